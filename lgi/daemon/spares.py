"""Directories of short jobs that are over, kept to be those of the next ones.

Making and removing tens of files for each of thousands of short jobs has ext4 search ever longer for an inode that
was not removed in the last minutes. Only directories whose files are not forced to disk are kept, and none of a
sandbox.
"""

# pathlib takes longer than the calls themselves
# ruff: noqa: PTH104, PTH108

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from contextlib import suppress
from pathlib import Path

import attrs

from lgi.daemon import quick
from lgi.daemon.flocks import is_flocked
from lgi.daemon.jobdir import (
    EXIT_STATUS,
    FILES,
    HASHES,
    INPUT,
    LEFT_OUT,
    RUN_LOCK,
    RUN_PID,
    SCRIPTS,
    JobDirectory,
    Mark,
    discard,
    make_levels,
    mark_of,
    table_of,
    with_identity,
)
from lgi.daemon.seal import Seal
from lgi.durable import EXECUTABLE, PRIVATE

DIRECTORY = ".lgi-daemon.spare"
MOST = 64
_TAKEN_AWAY = (RUN_PID, f"{RUN_PID}.hash", EXIT_STATUS)
# For the run script of the next job.
_IN_RESERVE = frozenset({RUN_LOCK, *(quick.new_of(f"/{name}").lstrip("/") for name in _TAKEN_AWAY)})
# What a job does not write to: something of it may have gone astray, and still write to the rest.
_USED_AGAIN = FILES | {HASHES, INPUT, LEFT_OUT} | _IN_RESERVE


@attrs.frozen(kw_only=True)
class _Spare:
    """A directory with the files of these `names`.

    Most files of jobs of one application are alike: `known` has, by name, what was written to a file, and what any
    change of it since then would have changed.
    """

    path: Path
    names: Set[str]
    known: Mapping[str, tuple[bytes, Mark]]

    def fill(self, name: str, content: bytes, mode: int) -> Mark | None:
        """Write a file; what marks it, if that is known already."""
        path = f"{self.path}/{name}"
        text, mark = self.known.get(name, (None, None))
        if text == content and mark == mark_of(path):
            return mark
        if name in self.names:
            with suppress(FileNotFoundError):
                quick.write_over(path, content, mode)
                return None
        quick.make(path, content, mode)
        return None


class Spares:
    """Those of a run directory, at most MOST."""

    def __init__(self, run_directory: Path, seal: Seal) -> None:
        self._run_directory = run_directory
        self._directory = run_directory / DIRECTORY
        self._seal = seal
        self._kept: list[_Spare] = []

    def clear(self) -> None:
        """Remove those that a daemon before has left."""
        discard(self._directory)

    def keep(self, directory: JobDirectory) -> bool:
        """Whether a job's directory that is needed no longer is out of the way, and kept if that goes."""
        if len(self._kept) >= MOST or directory.synced or directory.uid is not None:
            return False
        kept = self._directory / directory.reference
        try:
            if is_flocked(directory.at(RUN_LOCK)):
                # Whoever holds it has gone astray, and the next job would have to wait for him.
                return False
            try:
                directory.path.rename(kept)
            except FileNotFoundError:
                self._directory.mkdir(mode=EXECUTABLE, exist_ok=True)
                directory.path.rename(kept)
        except OSError:
            return False
        try:
            for name in _TAKEN_AWAY:
                quick.take_away(f"{kept}/{name}")
            names = quick.keep_only(str(kept), _USED_AGAIN)
        except OSError:
            discard(kept)
        else:
            self._kept.append(_Spare(path=kept, names=names, known=directory.known()))
        return True

    def refill(
        self, project: str, application: str, contents: Mapping[str, bytes], reference: str
    ) -> JobDirectory | None:
        """Have one be another job's, with the files that `prepare` gives it, in its place; None where that fails.

        Nothing is forced to disk.
        """
        if not self._kept:
            return None
        spare = self._kept.pop()
        try:
            return self._refilled(spare, project, application, contents, reference)
        except OSError:
            # What has become of it is no matter.
            discard(spare.path)
            return None

    def _refilled(
        self, spare: _Spare, project: str, application: str, contents: Mapping[str, bytes], reference: str
    ) -> JobDirectory:
        at = str(spare.path)
        parent = self._run_directory / project / application
        directory = JobDirectory(path=parent / f"JOB_{reference}", seal=self._seal, synced=False)
        files = with_identity(contents, project, application, reference)
        hashes = table_of({name: self._seal.sign(reference, name, content) for name, content in files.items()})
        for name in spare.names - {*files, HASHES} - _IN_RESERVE:
            os.unlink(f"{at}/{name}")
        marks = {
            name: spare.fill(name, content, EXECUTABLE if name in SCRIPTS else PRIVATE)
            for name, content in files.items()
        }
        spare.fill(HASHES, hashes, PRIVATE)
        try:
            os.rename(at, directory.path)
        except FileNotFoundError:
            make_levels(parent)
            os.rename(at, directory.path)
        directory.know_all(files, marks)
        return directory
