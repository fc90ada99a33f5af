"""A job's directory: everything about the job, durable and sealed (LGI 1.41, Resource daemon).

It is `RUN_DIRECTORY/PROJECT/APPLICATION/JOB_<reference>`, the reference being 32 upper-case hexadecimal digits. A
directory whose name begins with a dot is being made or removed: it is never run, and cleared away at the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from lgi.daemon.config import JOB_SCRIPTS
from lgi.daemon.seal import Seal
from lgi.durable import EXECUTABLE, PRIVATE, read_regular, sync, write_atomically, write_new
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
"""What a complete directory has, each with its `.hash`."""
INPUT, OUTPUT, RUN_PID = "LGI_input", "LGI_output", "LGI_job_run_script_pid"
RUN_LOG = "job_run_script.log"
PRINTED = 4096  # bytes of it that are told where a run script left no output
EXIT_STATUS = "LGI_exit_status"  # written by the process around the run script, so not sealed
RUN_LOCK, STEP_LOCK = "LGI_job.lock", "LGI_step.lock"
LARGEST_OUTPUT = 65354  # bytes that a server takes in a long field
_NAME = re.compile(r"JOB_([0-9A-F]{32})")


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
    """A complete job directory, or one in the making."""

    path: Path
    seal: Seal = attrs.field(repr=False)

    @property
    def reference(self) -> str:
        """The daemon's reference to the job."""
        return self.path.name.lstrip(".").removeprefix("JOB_")

    def read(self, name: str) -> bytes:
        """The verified content of a sealed file; raises Tampered."""
        path = self.path / name
        try:
            content = read_regular(path)
            hashes = read_regular(self.path / f"{name}.hash").decode("ascii", "replace")
        except OSError as problem:
            raise Tampered(f"{problem.filename or path}: {problem.strerror or problem}") from None
        if not self.seal.matches(hashes, self.reference, name, content):
            raise Tampered(f"{path}: its content is not what {name}.hash says")
        return content

    def text(self, name: str) -> str:
        """The verified content of a sealed file as text; raises Tampered."""
        return self.read(name).decode()

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a sealed file; raises OSError, or Tampered where the file to be replaced does not verify.

        For the moment of the change the hash file has both hashes: whenever it is interrupted, the file verifies.
        """
        hashes = [self.seal.sign(self.reference, name, content)]
        replaced = self.has(name)
        if replaced:
            before = self.read(name)
            if before == content:
                return
            hashes.append(self.seal.sign(self.reference, name, before))
        write_atomically(self.path / f"{name}.hash", "\n".join([*hashes, ""]).encode())
        write_atomically(self.path / name, content)
        if replaced:
            write_atomically(self.path / f"{name}.hash", f"{hashes[0]}\n".encode())

    def has(self, name: str) -> bool:
        """Whether there is anything of this name."""
        return os.path.lexists(self.path / name)

    def verify(self) -> None:
        """Check every sealed file; raises Tampered for the first that is missing or changed."""
        for name in sorted(FILES):
            self.read(name)
        if self.has(INPUT) or self.state is not JobState.QUEUED:
            self.read(INPUT)
        if self.has(RUN_PID):
            self.read(RUN_PID)
        said = (self.text("LGI_project"), self.text("LGI_application"), self.text("LGI_daemon_reference"))
        if said != (self.path.parent.parent.name, self.path.parent.name, self.reference):
            raise Tampered(f"{self.path}: the directory has been moved")

    @property
    def state(self) -> JobState:
        """The state the server said last; `queued` means that it has not yet said that the job is ours."""
        return JobState(self.text("LGI_state"))

    def load(self) -> JobRecord:
        """The verified job; raises Tampered."""
        self.verify()
        return JobRecord(
            job_id=int(self.text("LGI_job_id")),
            project=self.text("LGI_project"),
            application=self.text("LGI_application"),
            server=self.text("LGI_this_project_server"),
            owners=decode_list(self.text("LGI_owners")),
            reference=self.reference,
            max_output_size=int(self.text("LGI_max_output_size")),
        )

    def output(self, most: int) -> bytes:
        """The job's output, at most `most` bytes of it with a line about the cut; empty where there is none."""
        path = self.path / OUTPUT
        try:
            content = read_regular(path, most + 1)
            if len(content) <= most:
                return content
            notice = f"\n[LGI: this is not all, the output has {path.stat().st_size} bytes and {most} may be sent]\n"
        except OSError:
            return b""
        return content[: max(0, most - len(notice))] + notice.encode() if len(notice) <= most else content[:most]

    def report(self, most: int) -> bytes:
        """The job's output, or the end of what its run script printed if that failed and left no output."""
        output = self.output(most)
        status = self.exit_status()
        if output or not status:
            return output
        try:
            printed = read_regular(self.path / RUN_LOG, PRINTED, end=True)
        except OSError:
            printed = b""
        notice = f"[LGI: the run script ended with status {status} and left no output; it printed:]\n".encode()
        return (notice + printed)[:most] if printed else output

    def exit_status(self) -> int | None:
        """What the run script ended with; None while it runs, and where its end was never seen."""
        try:
            text = read_regular(self.path / EXIT_STATUS, 16).decode("ascii", "replace").strip()
        except OSError:
            return None
        return int(text) if text.isdigit() else None

    def publish(self) -> JobDirectory:
        """Make a directory in the making the job's: complete, on disk, with its final name."""
        sync(self.path / f"{name}{ending}" for name in sorted(FILES) for ending in ("", ".hash"))
        sync((self.path,))
        final = self.path.with_name(self.path.name.lstrip("."))
        self.path.rename(final)
        sync((final.parent, final.parent.parent, final.parent.parent.parent))
        return attrs.evolve(self, path=final)

    def retire(self) -> Path:
        """Take the directory out of sight and return where it is now, for `discard`."""
        hidden = self.path.with_name(f".{self.path.name.lstrip('.')}")
        self.path.rename(hidden)
        return hidden


def prepare(
    run_directory: Path, seal: Seal, project: str, application: str, contents: Mapping[str, bytes]
) -> JobDirectory:
    """Make a directory for a job, under a name that begins with a dot, with these files and their hashes.

    The reference is made here; `LGI_project`, `LGI_application` and `LGI_daemon_reference` come with it. Raises
    OSError, and leaves nothing behind then. Nothing is forced to disk before `publish`: it may be discarded at once.
    """
    reference = secrets.token_hex(16).upper()
    parent = run_directory / project / application
    for level in (parent.parent, parent):
        level.mkdir(mode=EXECUTABLE, exist_ok=True)
    directory = JobDirectory(path=parent / f".JOB_{reference}", seal=seal)
    identity = {"project": project, "application": application, "daemon_reference": reference}
    try:
        directory.path.mkdir(mode=EXECUTABLE)
        for name, content in {**contents, **{f"LGI_{tag}": text.encode() for tag, text in identity.items()}}.items():
            write_new(directory.path / name, content, EXECUTABLE if name in SCRIPTS else PRIVATE, now=False)
            write_new(directory.path / f"{name}.hash", f"{seal.sign(reference, name, content)}\n".encode(), now=False)
    except OSError:
        discard(directory.path)
        raise
    return directory


def discard(path: Path) -> None:
    """Remove a directory and all in it, as far as that goes: what stays begins with a dot."""
    shutil.rmtree(path, ignore_errors=True)


def scan(run_directory: Path, seal: Seal) -> Iterator[JobDirectory]:
    """The job directories in a run directory, unverified; half-made and half-removed ones are cleared away."""
    for path in sorted(run_directory.glob("*/*/*")):
        if path.is_symlink() or not path.is_dir() or path.parent.parent.name.startswith("."):
            continue
        if _NAME.fullmatch(path.name):
            yield JobDirectory(path=path, seal=seal)
        elif _NAME.fullmatch(path.name.removeprefix(".")):
            discard(path)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def flocked(path: Path) -> Iterator[int]:
    """A descriptor that holds the lock on the file, for a process to inherit; raises BlockingIOError if it is held.

    The lock lasts until the last process that has the descriptor has ended.
    """
    with _opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor


def is_flocked(path: Path) -> bool:
    """Whether a living process holds the lock on the file."""
    if not path.exists():
        return False
    try:
        with flocked(path):
            return False
    except BlockingIOError:
        return True
