"""Jobs that are about to be claimed, many on disk with one sync; what a directory is made of when the power has gone.

A file in `.lgi-daemon.intake` has all that the directories of one round of jobs begin with, sealed as they are. It is
on disk before any of these jobs is claimed, so that their directories need not be: whatever is missing after a crash
is made anew from here, as of a job of which the server has not yet said that it is ours. The server is asked then,
and what is not ours or has been reported is given up. A file goes with the last of its jobs.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
from twisted.logger import Logger

from lgi.daemon.jobdir import JobDirectory, Tampered, discard, new_reference, prepare
from lgi.daemon.sandbox import uid_of
from lgi.daemon.seal import Seal
from lgi.daemon.spares import Spares
from lgi.durable import read_regular, sync, write_new

_log = Logger()
DIRECTORY = ".lgi-daemon.intake"
_SIGNED = "intake"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@attrs.frozen(kw_only=True)
class Entry:
    """A job: where it belongs, and the files that its directory begins with; `uid` is that of its sandbox, if any."""

    reference: str
    project: str
    application: str
    uid: int | None
    files: Mapping[str, bytes]


def boot() -> str:
    """What differs from one start of the machine to the next; empty where the system does not tell."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


class Intake:
    """The files of a run directory; directories are made of `spares` where there are any."""

    def __init__(self, run_directory: Path, seal: Seal, spares: Spares) -> None:
        self._run_directory = run_directory
        self._directory = run_directory / DIRECTORY
        self._seal = seal
        self._boot = boot()
        self._live: dict[Path, set[str]] = {}
        self._file_of: dict[str, Path] = {}
        self._spares = spares

    def write(self, entries: Sequence[Entry]) -> Path:
        """Have them on disk, in a file that is to be noted; raises OSError, and then has none of them.

        It waits for the disk, and touches nothing else: for a thread.
        """
        if not self._directory.is_dir():
            self._directory.mkdir(mode=0o700, exist_ok=True)
            sync((self._run_directory,))
        name = new_reference()
        path, new = self._directory / name, self._directory / f".{name}"
        text = _packed(entries, self._boot)
        try:
            write_new(new, f"{self._seal.sign(name, _SIGNED, text)}\n".encode() + text)
            new.rename(path)
            sync((self._directory,))
        except OSError:
            for left in (new, path):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)
            raise
        return path

    def note(self, path: Path, entries: Sequence[Entry]) -> None:
        """The file has these."""
        self._live[path] = {entry.reference for entry in entries}
        self._file_of.update((entry.reference, path) for entry in entries)

    def forget(self, reference: str) -> None:
        """The job is here no longer."""
        path = self._file_of.pop(reference, None)
        if path is not None:
            self._live[path].discard(reference)
            if not self._live[path]:
                del self._live[path]
                with contextlib.suppress(OSError):  # found again at the next start, and given up then
                    path.unlink()

    def make(self, entry: Entry, said: Mapping[str, bytes]) -> JobDirectory:
        """Make the directory of a job, with what the server has `said` in the place of what it began with.

        Raises OSError, and leaves nothing behind then.
        """
        files = {**entry.files, **said}
        if entry.uid is None:
            made = self._spares.refill(entry.project, entry.application, files, entry.reference)
            if made is not None:
                return made
        draft = prepare(
            self._run_directory,
            self._seal,
            entry.project,
            entry.application,
            files,
            uid=entry.uid,
            reference=entry.reference,
        )
        try:
            return draft.publish()
        except OSError:
            discard(draft.path)
            raise

    def missing(self) -> list[Entry]:
        """The jobs of a daemon before whose directories are not there, or did not survive a crash of the machine."""
        found: list[Entry] = []
        if not self._directory.is_dir():
            return found
        for path in sorted(self._directory.iterdir()):
            if path.name.startswith("."):
                path.unlink()
                continue
            entries, same = self._read(path)
            if entries:
                self.note(path, entries)
            found += [entry for entry in entries if not self._is_there(entry, same)]
        for entry in found:
            # What of it was being made or removed.
            discard(self._place(entry).with_name(f".JOB_{entry.reference}"))
        return found

    def _place(self, entry: Entry) -> Path:
        return self._run_directory / entry.project / entry.application / f"JOB_{entry.reference}"

    def _read(self, path: Path) -> tuple[list[Entry], bool]:
        """What a file has, and whether the machine has not been started anew since."""
        try:
            sign, _, text = read_regular(path).partition(b"\n")
            if not self._seal.matches(sign.decode("ascii", "replace"), path.name, _SIGNED, text):
                raise ValueError("its content is not what the daemon wrote")
            return _unpacked(text, self._boot)
        except (OSError, ValueError, KeyError, TypeError) as problem:
            _log.critical("{path}: jobs may be missing: {problem}", path=str(path), problem=problem)
            return [], True

    def _is_there(self, entry: Entry, same: bool) -> bool:
        path = self._place(entry)
        if not os.path.lexists(path):
            return False
        if same:
            return True
        try:
            JobDirectory(path=path, seal=self._seal, uid=uid_of(path)).load()
        except (Tampered, OSError, ValueError):
            _log.warn("{path}: not all of it was on disk when the machine went down, made anew", path=str(path))
            return not discard(path)
        return True


def _packed(entries: Sequence[Entry], started: str) -> bytes:
    contents: dict[str, str] = {}

    def kept(content: bytes) -> str:
        key = sha256(content).hexdigest()[:32]
        if key not in contents:
            contents[key] = base64.b64encode(content).decode()
        return key

    jobs = [
        {
            **attrs.asdict(entry, recurse=False),
            "files": {name: kept(content) for name, content in entry.files.items()},
        }
        for entry in entries
    ]
    return json.dumps({"boot": started, "jobs": jobs, "contents": contents}).encode()


def _unpacked(text: bytes, started: str) -> tuple[list[Entry], bool]:
    whole: dict[str, Any] = json.loads(text)
    contents = {key: base64.b64decode(content) for key, content in whole["contents"].items()}
    jobs = [
        Entry(**{**job, "files": {name: contents[key] for name, key in job["files"].items()}})
        for job in whole["jobs"]
    ]
    return jobs, bool(started) and whole["boot"] == started
