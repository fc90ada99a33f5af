"""Repositories on the local file system.

`DIR/<last three digits>/JOB_<32 digits>/<files>`. What is created is durable before a job that refers to it is
acknowledged. All functions block: call them in a thread.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from lgi.durable import sync
from lgi.httpd.body import Upload
from lgi.httpd.spool import Spool, SpooledFile
from lgi.model import RepositoryFile
from lgi.repository.access import ACCESS_FILE, RESOURCE_LIST, encode_access
from lgi.repository.names import NameRefused, checked_file, checked_repository, fan_out

SPOOL = ".spool"
_TRASH = ".trash"


@attrs.frozen(kw_only=True)
class Repositories:
    """All repositories of a server; `location` and `url` (no trailing slash) are what clients are told."""

    root: Path
    location: str
    url: str

    @property
    def spool(self) -> Spool:
        """Where uploads wait, on the same file system."""
        return Spool(self.root / SPOOL)

    def prepare(self) -> None:
        """Make the directories, and finish removing what a killed process began to remove; raises OSError."""
        self.root.mkdir(mode=0o750, parents=True, exist_ok=True)
        trash = self.root / _TRASH
        trash.mkdir(mode=0o700, exist_ok=True)
        for doomed in trash.iterdir():
            # Another process may be at it too.
            shutil.rmtree(doomed, ignore_errors=True)
        self.spool.prepare()

    def path(self, repository: str) -> Path:
        """The directory of a repository; raises NameRefused."""
        return self.root / fan_out(checked_repository(repository)) / repository

    def file(self, repository: str, name: str) -> Path:
        """The path of a file, which need not exist; raises NameRefused."""
        return self.path(repository) / checked_file(name)

    def location_of(self, repository: str) -> str:
        """What `<repository>` in a job's specifics says."""
        return f"{self.location}:{self.path(repository)}"

    def url_of(self, repository: str) -> str:
        """What `<repository_url>` in a job's specifics says."""
        return f"{self.url}/{fan_out(repository)}/{repository}"

    def create(self, repository: str, write_access: Iterable[str], uploads: Sequence[Upload]) -> None:
        """Make a repository with its access file and the uploaded files, durably.

        Raises NameRefused or OSError, and leaves nothing behind then.
        """
        for upload in uploads:
            checked_file(upload.filename)
        if len({upload.filename for upload in uploads}) != len(uploads):
            raise NameRefused("two uploaded files have the same name")
        path = self.path(repository)
        made = not path.parent.exists()
        path.mkdir(mode=0o750, parents=True)
        try:
            self._write(path / ACCESS_FILE, encode_access(write_access))
            for upload in uploads:
                upload.file.keep(path / upload.filename)
            sync((path.parent,))
            if made:
                sync((self.root,))
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            raise

    def remove(self, repository: str) -> None:
        """Remove a repository at once, as far as clients can see, and then its files."""
        doomed = self.root / _TRASH / checked_repository(repository)
        try:
            self.path(repository).rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)

    def list(self, repository: str) -> tuple[RepositoryFile, ...]:
        """The files in a repository in order of their names; none if there is no such repository."""
        try:
            with os.scandir(self.path(repository)) as entries:
                found = [_seen(entry) for entry in entries]
        except FileNotFoundError:
            return ()
        return tuple(sorted((file for file in found if file is not None), key=lambda file: file.name))

    def store(self, repository: str, name: str, received: SpooledFile) -> int:
        """Put a received file in place, whole or not at all; returns its size.

        Raises NameRefused, FileNotFoundError for an unknown repository, or OSError.
        """
        target = self.file(repository, name)
        if not target.parent.is_dir():
            raise FileNotFoundError(target.parent)
        size = received.size
        received.keep(target)
        return size

    def delete(self, repository: str, name: str) -> None:
        """Delete a file; raises NameRefused, or FileNotFoundError if there is none."""
        target = self.file(repository, name)
        target.unlink()
        sync((target.parent,))

    def untouched(self, since: float) -> Iterator[str]:
        """The repositories in which no file has come or gone since then, in Unix seconds; in no order."""
        for folder in self.root.iterdir():
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            for path in folder.iterdir():
                try:
                    if self.path(path.name) == path and path.is_dir() and path.stat().st_mtime < since:
                        yield path.name
                except (NameRefused, FileNotFoundError):
                    # Not one of ours, or removed at this moment.
                    continue

    def write_resource_list(self, names: Iterable[str]) -> None:
        """Replace the list of resources that may change files in all repositories, unless it says so already."""
        file, content = self.root / RESOURCE_LIST, encode_access(names)
        try:
            if file.read_bytes() == content:
                return
        except FileNotFoundError:
            pass
        self._write(file, content)

    def _write(self, target: Path, data: bytes) -> None:
        file = self.spool.create()
        try:
            file.write(data)
            file.keep(target)
        finally:
            file.discard()


def _seen(entry: os.DirEntry[str]) -> RepositoryFile | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        # Deleted or replaced at this moment.
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return RepositoryFile(name=entry.name, size=status.st_size, date=status.st_mtime_ns / 1e9)
