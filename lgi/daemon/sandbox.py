"""A uid of its own for each job of a daemon that runs as root (LGI 1.41, Resource daemon: the sandboxing of jobs).

The uid is drawn from a range that nothing else uses, or is the application's `job_sandbox_uid`; the gid is the same
number. Programs of util-linux drop the rights in front of each script, so that no code of ours runs between fork and
exec. One uid is never two jobs': it is free again when no process of it lives and the job's directory is gone.
"""

from __future__ import annotations

import grp
import os
import pwd
import resource
import secrets
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from twisted.logger import Logger

from lgi.daemon.seal import KEY_FILE

_log = Logger()
FIRST_UID, LAST_UID = 2_100_000_000, 2_100_099_999
"""Above what Debian gives to users and their containers (login.defs: to 600,100,000), systemd to its containers (to
1,879,048,191) and directory services by default (to 2,000,200,000); below what systemd has for images (from
2,147,352,576), and a positive number also to programs that take it for 32 bits with a sign."""
KILLER_UID = LAST_UID + 1
PATIENCE = 5.0  # seconds that killed processes have to be gone
LIMITS = {"nproc": (resource.RLIMIT_NPROC, 4096), "nofile": (resource.RLIMIT_NOFILE, 4096)}
PROGRAMS = ("setpriv", "prlimit")
_OPEN_TO_JOBS = 0o711
_UIDS_LOOKED_AT = 1000
# Kills all that has the uid at one moment, so that nothing outruns it by forking. Of its own three uids only the
# effective one is the job's: the job can signal or trace it not.
_KILLER = f"""
import os, sys
os.setgroups([])
os.setresgid({KILLER_UID}, {KILLER_UID}, {KILLER_UID})
os.setresuid({KILLER_UID}, int(sys.argv[1]), {KILLER_UID})
try:
    os.kill(-1, 9)
except OSError:
    pass
"""
# Names the first of its arguments that cannot be entered or run.
_PROBE = 'for path; do [ -x "$path" ] || printf "%s\\0" "$path"; done'


class SandboxError(Exception):
    """Jobs cannot be sandboxed here; `reasons` are lines with what is wrong and what to do."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons))


class NoUid(Exception):
    """No uid can be given to a job now; one line why."""


class StillAlive(Exception):
    """Processes of a job survive being killed; one line."""


def confined(uid: int, command: list[str]) -> list[str]:
    """The command as the uid: no other group, no capability, no way to gain rights, with limits on resources.

    A limit is never above the one that the daemon was started with.
    """
    limits = []
    for name, (number, most) in LIMITS.items():
        _, inherited = resource.getrlimit(number)
        limits.append(f"--{name}={most if inherited == resource.RLIM_INFINITY else min(most, inherited)}")
    return [
        *("prlimit", "--core=0", *limits, "--"),
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"),
        *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--"),
        *command,
    ]


def uid_of(directory: Path) -> int | None:
    """The uid of the job that a directory was made for by a daemon with a sandbox; None where it was not.

    Only root can make such a directory: its own, with the group of the job, and with the sticky bit. Raises OSError.
    """
    status = directory.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and status.st_uid == 0 and status.st_gid:
        return status.st_gid
    return None


def living(uids: Collection[int] | None = None) -> dict[int, set[int]]:
    """The uids that living processes have in any role, with the processes' numbers; of these uids, or of all."""
    found: dict[int, set[int]] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            # Not the owner of the directory in /proc, which is root for a process that cannot be dumped.
            text = (process / "status").read_text("ascii", "replace")
        except OSError:
            continue
        lines = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        if lines.get("State", "?")[0] in "ZX":
            continue
        for uid in {int(word) for word in lines.get("Uid", "").split()}:
            if uids is None or uid in uids:
                found.setdefault(uid, set()).add(int(process.name))
    return found


def end_processes(uid: int, patience: float = PATIENCE) -> None:
    """Kill every process of a job's uid and wait until they are gone; raises StillAlive, or OSError.

    It blocks for as long as that takes, at most `patience` seconds.
    """
    deadline = time.monotonic() + patience
    # Looked at twice: one process that is born behind the eye that goes over the list is not seen.
    while alive := living((uid,)).get(uid) or living((uid,)).get(uid):
        if time.monotonic() > deadline:
            raise StillAlive(f"processes of uid {uid} survive being killed: {', '.join(map(str, sorted(alive)))}")
        subprocess.run([sys.executable, "-I", "-S", "-c", _KILLER, str(uid)], env={}, check=False, cwd="/")
        time.sleep(0.005)


class Sandbox:
    """The uids that jobs have."""

    def __init__(self) -> None:
        self._held: set[int] = set()

    @property
    def held(self) -> frozenset[int]:
        """The uids that are some job's."""
        return frozenset(self._held)

    def hold(self, uid: int) -> None:
        """A job directory was found that has this uid."""
        self._held.add(uid)

    def take(self, configured: int | None, reserved: Collection[int] = ()) -> int:
        """A uid for a new job, held until `release`: the `configured` one, or a free one but the `reserved`.

        Raises NoUid.
        """
        busy = living()
        if configured is not None:
            if configured in self._held:
                raise NoUid(f"another job runs under its job_sandbox_uid {configured}")
            if configured in busy:
                raise NoUid(f"processes that are no job's run under its job_sandbox_uid {configured}")
            self._held.add(configured)
            return configured
        subordinate = _subordinate()
        for _ in range(_UIDS_LOOKED_AT):
            # By chance, so that what a job has left in /tmp is not found by the next one.
            uid = FIRST_UID + secrets.randbelow(LAST_UID - FIRST_UID + 1)
            taken = uid in self._held or uid in reserved or uid in busy or _has_name(uid)
            if not taken and not any(uid in numbers for numbers in subordinate):
                self._held.add(uid)
                return uid
        raise NoUid(f"none of the uids from {FIRST_UID} to {LAST_UID} is free")

    def release(self, uid: int) -> None:
        """The job's directory is gone, and no process of it lives."""
        self._held.discard(uid)


def _has_name(number: int) -> bool:
    for look in (pwd.getpwuid, grp.getgrgid):
        try:
            look(number)
        except KeyError:
            continue
        return True
    return False


def _subordinate() -> list[range]:
    """What users may have in their containers."""
    ranges = []
    for name in ("/etc/subuid", "/etc/subgid"):
        try:
            lines = Path(name).read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        for line in lines:
            words = line.split(":")
            if len(words) == 3 and words[1].isdigit() and words[2].isdigit():
                ranges.append(range(int(words[1]), int(words[1]) + int(words[2])))
    return ranges


def sandbox_for(
    run_directory: Path, environment: Mapping[str, str], *, wanted: bool, configured: Collection[int]
) -> Sandbox | None:
    """The sandbox of a daemon that is about to work in a run directory, or None with a line in the log why not.

    Raises SandboxError and OSError as `open_sandbox` does.
    """
    if os.geteuid() != 0:
        if configured:
            _log.warn("job_sandbox_uid is ignored: jobs run under the daemon's own uid {uid}", uid=os.geteuid())
        return None
    if not wanted:
        _log.warn("jobs are not sandboxed (--no-sandbox): they run as root")
        return None
    sandbox = open_sandbox(run_directory, environment)
    _log.info("jobs are sandboxed: each runs under a uid of its own")
    return sandbox


def open_sandbox(run_directory: Path, environment: Mapping[str, str]) -> Sandbox:
    """A sandbox for the jobs in a run directory that is there and locked; raises SandboxError where one cannot be.

    The run directory is opened for passage (mode 0711). It, the ways to it, Python and this package have to be
    within reach of the jobs, which is tried with the rights of one.
    """
    _verify(run_directory, environment)
    run_directory.chmod(_OPEN_TO_JOBS)
    _try_reach(run_directory, environment)
    return Sandbox()


def examine_sandbox(run_directory: Path, environment: Mapping[str, str]) -> None:
    """Look whether `open_sandbox` could do its work, and change nothing; raises what it raises.

    The run directory need not be there yet, since it is made open for passage.
    """
    _verify(run_directory, environment)
    _try_reach(run_directory.parent, environment)


def _verify(run_directory: Path, environment: Mapping[str, str]) -> None:
    for program in PROGRAMS:
        if shutil.which(program, path=environment.get("PATH")) is None:
            raise SandboxError(f"the program {program} (of util-linux) is not in PATH, jobs could not be sandboxed")
    for kind in ("uid", "gid"):
        if not _mapped(Path(f"/proc/self/{kind}_map").read_text()):
            raise SandboxError(
                f"this container has no {kind}s from {FIRST_UID} to {KILLER_UID} for jobs: map them, or give "
                "--no-sandbox, and jobs run as its root"
            )
    if run_directory.exists():
        _own(run_directory, 0o022)
    if (run_directory / KEY_FILE).exists():
        _own(run_directory / KEY_FILE, 0o077)


def _own(path: Path, forbidden: int) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        status = path.stat()
    if status.st_uid != 0 or status.st_mode & forbidden:
        raise SandboxError(
            f"{path} belongs to uid {status.st_uid} and has mode {stat.S_IMODE(status.st_mode):04o}: a daemon that "
            "runs as root needs one that root alone can change"
        )


def _mapped(text: str) -> bool:
    for line in text.splitlines():
        inside, _, count = (int(word) for word in line.split())
        if inside <= FIRST_UID and inside + count > KILLER_UID:
            return True
    return False


_WORK = "work there"


def _try_reach(run_directory: Path, environment: Mapping[str, str]) -> None:
    python = Path(sys.executable)
    package = Path(__file__).parents[1]
    needed: dict[Path, str] = {}
    for wanted, why in ((run_directory, _WORK), (python, "run `lgi`"), (package, "run `lgi`")):
        # Where a link leads to first: what cannot be entered there is the reason, not the link.
        for path in (wanted.resolve(), wanted):
            needed.update((step, why) for step in (*reversed(path.parents), path) if step not in needed)
    command = confined(FIRST_UID, ["sh", "-c", _PROBE, "sh", *map(str, needed)])
    tried = subprocess.run(
        command,
        cwd="/",
        env={"PATH": environment.get("PATH", os.defpath)},
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        said = " ".join(tried.stderr.split()) or f"exit status {tried.returncode}"
        raise SandboxError(f"rights cannot be dropped here, jobs could not be sandboxed: {said}")
    shut = {Path(path) for path in tried.stdout.split("\0")[:-1]}
    # What is below one of them, or leads there, may be open or not: that is seen when the way there is.
    first = [path for path in needed if path in shut and shut.isdisjoint((*path.parents, *path.resolve().parents))]
    if first:
        raise SandboxError(*(_shut(path, needed[path]) for path in first))


def _shut(path: Path, why: str) -> str:
    other = (
        "name another run_directory in LGI.cfg"
        if why == _WORK
        else "install LGI with a Python outside of root's own directories"
    )
    return (
        f"the uids of jobs cannot enter {path}, so that jobs could not {why}: let others enter it (chmod o+x), or "
        f"{other}, or give --no-sandbox, and jobs run as root"
    )
