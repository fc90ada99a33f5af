"""A job's directory: everything about the job, durable and sealed (LGI 1.41, Resource daemon).

It is `RUN_DIRECTORY/PROJECT/APPLICATION/JOB_<reference>`, the reference being 32 upper-case hexadecimal digits. A
directory whose name begins with a dot is being made or removed: it is never run, and cleared away at the next start.

Where the job has a uid of its own (`lgi.daemon.sandbox`), the directory is root's with the job's group and the sticky
bit, and so are all files that the daemon writes: the job can read them, but neither change, remove nor replace them.
What it may write to is there from the beginning, so that it cannot put anything else in its place.
"""

# pathlib takes longer than the calls themselves

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from lgi.daemon import quick
from lgi.daemon.config import JOB_SCRIPTS
from lgi.daemon.sandbox import StillAlive, end_processes, uid_of
from lgi.daemon.seal import Seal
from lgi.durable import (
    EXECUTABLE,
    PRIVATE,
    read_regular,
    reading,
    sync,
    sync_at_once,
    write_atomically,
    write_new,
)
from lgi.lists import decode_list
from lgi.states import JobState

SCRIPTS = frozenset(f"LGI_{tag}" for tag in JOB_SCRIPTS)
FILES = SCRIPTS | {
    "LGI_project",
    "LGI_this_project_server",
    "LGI_project_master_server",
    "LGI_application",
    "LGI_job_id",
    "LGI_owners",
    "LGI_read_access",
    "LGI_write_access",
    "LGI_job_specifics",
    "LGI_target_resources",
    "LGI_state",
    "LGI_state_time_stamp",
    "LGI_key_file",
    "LGI_certificate_file",
    "LGI_ca_certificate_file",
    "LGI_max_output_size",
    "LGI_job_sandbox_uid",
    "LGI_daemon_reference",
}
"""What a complete directory has, each with its `.hash`, but for the scripts that are left out."""
HASHES = "LGI_hashes"
"""In the place of `.hash` files: the hashes of all that a directory in `lgi.daemon.intake` began with."""
LEFT_OUT = "LGI_scripts_left_out"
"""Which scripts those are, where there are any; else it is not there."""
INPUT, OUTPUT, RUN_PID = "LGI_input", "LGI_output", "LGI_job_run_script_pid"
RUN_LOG = "job_run_script.log"
PRINTED = 4096  # bytes of it that are told where a run script left no output
EXIT_STATUS = "LGI_exit_status"  # written by the process around the run script, so not sealed
RUN_LOCK, STEP_LOCK = "LGI_job.lock", "LGI_step.lock"
SANDBOX_UID = "LGI_job_sandbox_uid"
_IDENTITY = frozenset(
    {
        *("LGI_project", "LGI_application", "LGI_daemon_reference", "LGI_this_project_server", "LGI_job_id"),
        *("LGI_owners", "LGI_max_output_size", "LGI_state", SANDBOX_UID),
    }
)
LARGEST_OUTPUT = 65354  # bytes that a server takes in a long field
_FOR_GROUP, _RUN_BY_GROUP, _WRITTEN_BY_GROUP = 0o640, 0o750, 0o660
_MOST_STATUS = 255
_SETTLED = 20_000_000  # nanoseconds, a few ticks of the clock that file systems look at
_SHARED, _PASSAGE = 0o1770, 0o711
_SHORT = 4096  # bytes of a sealed file that are kept in memory, so that they need not be read again
_IN_ORDER = tuple(sorted(FILES))
_KEPT_LOGS = ("job_prologue_script.log", RUN_LOG, "job_epilogue_script.log", "job_abort_script.log")
_NAME = re.compile(r"JOB_([0-9A-F]{32})")


Mark = tuple[int, ...]
"""What any change of a file changes."""
_Marks = tuple[Mark, Mark]


class Tampered(Exception):
    """A file of a job directory is not what the daemon wrote; one line with the file and what is wrong."""


@attrs.frozen(kw_only=True)
class JobRecord:
    """What never changes about a job here; `max_output_size` in bytes."""

    job_id: int
    project: str
    application: str
    server: str
    owners: tuple[str, ...]
    reference: str
    max_output_size: int


@attrs.frozen(kw_only=True)
class JobDirectory:
    """A complete job directory, or one in the making; `uid` is that of its sandbox, None without one.

    Without `synced`, what is written is not on disk at once: where the power goes, the directory is made anew from
    what `lgi.daemon.intake` has on disk.
    """

    path: Path
    seal: Seal = attrs.field(repr=False)
    uid: int | None = None
    synced: bool = True
    _verified: dict[str, Any] = attrs.field(factory=dict, init=False, repr=False, eq=False)
    _texts: dict[str, bytes] = attrs.field(factory=dict, init=False, repr=False, eq=False)
    _tabled: set[str] = attrs.field(factory=set, init=False, repr=False, eq=False)
    _place: str = attrs.field(init=False, repr=False, eq=False)

    @_place.default
    def _(self) -> str:
        return str(self.path)

    @property
    def reference(self) -> str:
        """The daemon's reference to the job."""
        return self._place.rpartition("/")[2].lstrip(".").removeprefix("JOB_")

    def at(self, name: str) -> str:
        """Where the file of this name is: most of a short job's time would go into making Paths of it."""
        return f"{self._place}/{name}"

    def read(self, name: str) -> bytes:
        """The verified content of a sealed file; raises Tampered."""
        path = self.at(name)
        owner = None if self.uid is None else 0
        try:
            content = read_regular(path, owner=owner)
            where, hashes = self._hashes(name)
        except OSError as problem:
            raise Tampered(f"{problem.filename or path}: {problem.strerror or problem}") from None
        if not self.seal.matches(hashes, self.reference, name, content):
            raise Tampered(f"{path}: its content is not what {where} says")
        return content

    def _hashes(self, name: str) -> tuple[str, str]:
        """The file with the hash of another, and what stands there of it; raises OSError."""
        if name != RUN_PID and self.has(HASHES):  # that one comes later
            table = self._table()
            if name in table:
                self._tabled.add(name)
                return HASHES, table[name]
        self._tabled.discard(name)
        owner = None if self.uid is None else 0
        return f"{name}.hash", read_regular(self.at(f"{name}.hash"), owner=owner).decode("ascii", "replace")

    def _table(self) -> dict[str, str]:
        text = read_regular(self.at(HASHES), owner=None if self.uid is None else 0).decode("ascii", "replace")
        return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)

    def _put_hashes(self, name: str, hashes: Sequence[str]) -> None:
        if name != RUN_PID and self.has(HASHES):  # that one comes later
            table = self._table()
            if name in table:
                self._put(HASHES, table_of({**table, name: " ".join(hashes)}))
                return
        self._put(f"{name}.hash", "\n".join([*hashes, ""]).encode())

    def text(self, name: str) -> str:
        """The verified content of a sealed file as text; raises Tampered."""
        return self._content(name).decode()

    def _content(self, name: str) -> bytes:
        """The verified content of a sealed file, read again unless the file is the very one that was read before."""
        content = self._check(name)
        return self.read(name) if content is None else content

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a sealed file; raises OSError, or Tampered where the file to be replaced does not verify.

        For the moment of the change the hash file has both hashes: whenever it is interrupted, the file verifies.
        """
        before = self._content(name) if self.has(name) else None
        if before == content:
            return
        new = self.seal.sign(self.reference, name, content)
        if before is None:
            self._put_hashes(name, [new])
            self._put(name, content)
        else:
            self._put_hashes(name, [new, self.seal.sign(self.reference, name, before)])
            self._put(name, content)
            self._put_hashes(name, [new])

    def _put(self, name: str, content: bytes) -> None:
        mode = PRIVATE if self.uid is None else _FOR_GROUP
        if self.synced:
            write_atomically(self.path / name, content, mode, group=self.uid)
        else:
            quick.put(self.at(name), content, mode, group=self.uid)

    def has(self, name: str) -> bool:
        """Whether there is anything of this name."""
        return os.path.lexists(self.at(name))

    def has_script(self, name: str) -> bool:
        """Whether the job has a script of this name, or was made without one; raises Tampered."""
        return name not in self.left_out

    @property
    def left_out(self) -> frozenset[str]:
        """The scripts that the job was made without; raises Tampered."""
        return frozenset(decode_list(self.text(LEFT_OUT))) if self.has(LEFT_OUT) else frozenset()

    def check(self, name: str) -> None:
        """Verify a sealed file; raises Tampered."""
        self._check(name)

    def _check(self, name: str, table: Mark | None = None) -> bytes | None:
        """Verify a sealed file, unless it is the very one that was verified before; its content, if that is at hand.

        `table` is what marks the file with all hashes, where that has just been looked at. Raises Tampered.
        """
        marks = self._marks(name, table)
        if marks is not None and marks == self._verified.get(name):
            return self._texts.get(name)
        content = self.read(name)
        # Nobody but the system sets the time of a file's last change. What was changed at this very moment may
        # be changed again without another time to show for it.
        if marks is not None and max(mark[0] for mark in marks) < time.time_ns() - _SETTLED:
            self._know(name, marks, content)
        return content

    def _know(self, name: str, marks: _Marks | None, content: bytes) -> None:
        self._verified[name] = marks
        self._texts.pop(name, None)
        if len(content) <= _SHORT:
            self._texts[name] = content

    def know_all(self, files: Mapping[str, bytes], marks: Mapping[str, Mark | None]) -> None:
        """These have just been written, with a table of their hashes; some of their marks are known already."""
        self._tabled.update(files)
        table = mark_of(self.at(HASHES))
        for name, content in files.items():
            # Looked at twice within milliseconds; whoever could be quicker could make hashes as well.
            file = marks.get(name) or mark_of(self.at(name))
            self._know(name, (file, table) if file and table else None, content)

    def known(self) -> dict[str, tuple[bytes, Mark]]:
        """The content of short files that were verified, and what marked them."""
        return {
            name: (text, self._verified[name][0]) for name, text in self._texts.items() if self._verified.get(name)
        }

    def _marks(self, name: str, table: Mark | None = None) -> _Marks | None:
        """What any change of a file or its hash changes; None where one is missing."""
        path = self.at(name)
        of_it = self.at(HASHES) if name in self._tabled else f"{path}.hash"
        hashes = table if table is not None and name in self._tabled else mark_of(of_it)
        file = mark_of(path)
        return None if file is None or hashes is None else (file, hashes)

    def verify(self) -> None:
        """Check every sealed file; raises Tampered for the first that is missing or changed."""
        self._verify()

    def _verify(self) -> dict[str, str]:
        """The same, and what stands in the files that say which job it is."""
        left_out = self.left_out
        table = mark_of(self.at(HASHES)) if self._tabled else None
        said = {}
        for name in _IN_ORDER:
            if name not in left_out:
                content = self._check(name, table)
                if name in _IDENTITY:
                    said[name] = (self.read(name) if content is None else content).decode()
        if said["LGI_state"] != JobState.QUEUED.value or self.has(INPUT):
            self._check(INPUT, table)
        if self.has(RUN_PID):
            self._check(RUN_PID)
        identity = (said["LGI_project"], said["LGI_application"], said["LGI_daemon_reference"])
        uid = said[SANDBOX_UID]
        *_, at_project, at_application, _own = self._place.rsplit("/", 3)
        if identity != (at_project, at_application, self.reference):
            raise Tampered(f"{self.path}: the directory has been moved")
        if uid != ("" if self.uid is None else str(self.uid)):
            raise Tampered(
                f"{self.path}: its owner, group and mode are not those of a job with the uid {uid or 'none'}"
            )
        return said

    @property
    def state(self) -> JobState:
        """The state the server said last; `queued` means that it has not yet said that the job is ours."""
        return JobState(self.text("LGI_state"))

    def load(self, *, made: bool = False) -> JobRecord:
        """The verified job; raises Tampered. One that has just been `made` is not looked at again."""
        if made and self._texts.keys() >= _IDENTITY:
            said = {name: self._texts[name].decode() for name in _IDENTITY}
        else:
            said = self._verify()
        return JobRecord(
            job_id=int(said["LGI_job_id"]),
            project=said["LGI_project"],
            application=said["LGI_application"],
            server=said["LGI_this_project_server"],
            owners=decode_list(said["LGI_owners"]),
            reference=self.reference,
            max_output_size=int(said["LGI_max_output_size"]),
        )

    def output(self, most: int) -> bytes:
        """The job's output, at most `most` bytes of it with a line about the cut; empty where there is none."""
        path = self.at(OUTPUT)
        try:
            with reading(path, owner=self.uid) as file:
                content = file.read(most + 1)
                size = os.fstat(file.fileno()).st_size
            if len(content) <= most:
                return content
            notice = f"\n[LGI: this is not all, the output has {size} bytes and {most} may be sent]\n"
        except OSError:
            return b""
        return content[: max(0, most - len(notice))] + notice.encode() if len(notice) <= most else content[:most]

    def report(self, most: int, status: int | None) -> bytes:
        """The job's output, or the end of what its run script printed if that failed and left no output.

        `status` is its exit status.
        """
        output = self.output(most)
        if output or not status:
            return output
        try:
            owner = None if self.uid is None else 0
            printed = read_regular(self.at(RUN_LOG), PRINTED, end=True, owner=owner)
        except OSError:
            printed = b""
        notice = f"[LGI: the run script ended with status {status} and left no output; it printed:]\n".encode()
        return (notice + printed)[:most] if printed else output

    def exit_status(self) -> int | None:
        """What the run script ended with, by the job's own word; None while it runs, or if nobody saw its end."""
        try:
            text = read_regular(self.at(EXIT_STATUS), 16, owner=self.uid).decode("ascii", "replace").strip()
        except OSError:
            return None
        return int(text) if text.isdigit() and int(text) <= _MOST_STATUS else None

    def publish(self) -> JobDirectory:
        """Make a directory in the making the job's: complete, on disk, with its final name."""
        if self.synced:
            names = {*_IN_ORDER, LEFT_OUT} - self.left_out if self.has(LEFT_OUT) else _IN_ORDER
            sync_at_once(self.path / f"{name}{ending}" for name in sorted(names) for ending in ("", ".hash"))
            sync((self.path,))
        final = self.path.with_name(f"JOB_{self.reference}")
        self.path.rename(final)
        if self.synced:
            sync((final.parent, final.parent.parent, final.parent.parent.parent))
        published = attrs.evolve(self, path=final)
        published._verified.update(self._verified)
        published._texts.update(self._texts)
        published._tabled.update(self._tabled)
        return published

    def retire(self) -> Path:
        """Take the directory out of sight and return where it is now, for `discard`."""
        hidden = self.path.with_name(f".{self.path.name.lstrip('.')}")
        self.path.rename(hidden)
        return hidden


def prepare(
    run_directory: Path,
    seal: Seal,
    project: str,
    application: str,
    contents: Mapping[str, bytes],
    *,
    uid: int | None = None,
    reference: str = "",
) -> JobDirectory:
    """Make a directory for a job, under a name that begins with a dot, with these files and their hashes.

    The reference is made here, unless it was before; `LGI_project`, `LGI_application` and `LGI_daemon_reference` come
    with it, and with `uid` the layout of a sandbox, with `LGI_job_sandbox_uid` to say so. Raises OSError, and leaves
    nothing behind then. Nothing is forced to disk before `publish`, and with a reference from before not then either.
    """
    synced = not reference
    reference = reference or new_reference()
    parent = run_directory / project / application
    make_levels(parent, uid)
    directory = JobDirectory(path=parent / f".JOB_{reference}", seal=seal, uid=uid, synced=synced)
    try:
        directory.path.mkdir(mode=EXECUTABLE)
        plain, script = (PRIVATE, EXECUTABLE) if uid is None else (_FOR_GROUP, _RUN_BY_GROUP)
        files = with_identity(contents, project, application, reference, uid)
        signs = {name: seal.sign(reference, name, content) for name, content in files.items()}
        for name, content in files.items():
            quick.make(directory.at(name), content, script if name in SCRIPTS else plain, group=uid)
            if synced:
                quick.make(directory.at(f"{name}.hash"), f"{signs[name]}\n".encode(), plain, group=uid)
        if not synced:
            quick.make(directory.at(HASHES), table_of(signs), plain, group=uid)
            directory.know_all(files, {})
        if uid is not None:
            _open_to(directory.path, uid)
    except OSError:
        discard(directory.path)
        raise
    return directory


def make_levels(parent: Path, uid: int | None = None) -> None:
    """Have the directories above a job's, `parent` and the one above it."""
    for level in (parent.parent, parent):
        level.mkdir(mode=EXECUTABLE, exist_ok=True)
        if uid is not None:
            level.chmod(_PASSAGE)


def with_identity(
    contents: Mapping[str, bytes], project: str, application: str, reference: str, uid: int | None = None
) -> dict[str, bytes]:
    """What a job's directory begins with, the files that say whose it is among it."""
    identity = {"project": project, "application": application, "daemon_reference": reference}
    if uid is not None:
        identity["job_sandbox_uid"] = str(uid)
    return {**contents, **{f"LGI_{tag}": text.encode() for tag, text in identity.items()}}


def table_of(hashes: Mapping[str, str]) -> bytes:
    """A line for each file: its name, and its hash, or two while it is being changed."""
    return "".join(f"{name} {sign}\n" for name, sign in hashes.items()).encode()


def mark_of(path: str) -> Mark | None:
    """What marks a file as it is now, None where there is none."""
    try:
        s = os.lstat(path)
    except OSError:
        return None
    return (s.st_ctime_ns, s.st_dev, s.st_ino, s.st_mode, s.st_uid, s.st_gid, s.st_size)


def new_reference() -> str:
    """A daemon's reference to a job that nobody else has."""
    return secrets.token_hex(16).upper()


def _open_to(path: Path, uid: int) -> None:
    """Make what a job may write to, and let it in."""
    write_new(path / OUTPUT, b"", PRIVATE, now=False, owner=uid, group=uid)
    for name in _KEPT_LOGS:
        write_new(path / name, b"", _WRITTEN_BY_GROUP, now=False, group=uid)
    write_new(path / RUN_LOCK, b"", _FOR_GROUP, now=False, group=uid)
    write_new(path / STEP_LOCK, b"", PRIVATE, now=False)
    os.chown(path, 0, uid, follow_symlinks=False)
    path.chmod(_SHARED)


def discard(path: Path) -> bool:
    """Remove a directory and all in it, as far as that goes: what stays begins with a dot. Whether nothing stays.

    All that a sandboxed job still runs is killed first. `rm` takes what a job may have made, such as ten thousand
    directories in each other, and no link that is put before it leads it elsewhere.
    """
    try:
        uid = uid_of(path)
        if uid is None:
            try:
                quick.remove(str(path))
            except OSError:
                _remove(path)
        else:
            end_processes(uid)
            subprocess.run(
                ["rm", "-rf", "--one-file-system", "--", str(path)], stderr=subprocess.DEVNULL, check=False
            )
    except (OSError, StillAlive):
        pass
    return not os.path.lexists(path)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        # A job may leave directories in which nobody may write.
        path.chmod(EXECUTABLE)
        for folder, names, _files in os.walk(path):
            for below in (Path(folder, name) for name in names):
                if not below.is_symlink():
                    below.chmod(EXECUTABLE)
        shutil.rmtree(path, ignore_errors=True)


def scan(run_directory: Path, seal: Seal) -> Iterator[JobDirectory]:
    """The job directories in a run directory, unverified; half-made and half-removed ones are cleared away."""
    for path in sorted(run_directory.glob("*/*/*")):
        if path.is_symlink() or not path.is_dir() or path.parent.parent.name.startswith("."):
            continue
        if _NAME.fullmatch(path.name):
            yield JobDirectory(path=path, seal=seal, uid=uid_of(path))
        elif _NAME.fullmatch(path.name.removeprefix(".")):
            discard(path)
