"""Where the files of repositories are kept: what the server asks of it, whatever it is.

`lgi.repository.local` keeps them on this machine, `lgi.repository.remote` on another one over SSH (LGI 1.41,
Repositories: "or an other external storage server if desired"). Every method blocks: call them in a thread. Names
have been checked by the caller with `lgi.repository.names`, and are checked again here: raises NameRefused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import attrs

from lgi.httpd.spool import SpooledFile
from lgi.model import RepositoryFile

READ_NOW = 512 * 1024


class NotAFile(OSError):
    """The name is that of a directory, or goes through a file."""


@attrs.frozen(kw_only=True)
class FileState:
    """What a file is at this moment: `size` in bytes, `date` of its last change in ns, and a mark of its content.

    Two different contents under one name have different marks.
    """

    size: int
    date: int
    mark: str


class OpenFile(Protocol):
    """A file being read. It stays the file that was opened, whatever happens to its name."""

    @property
    def state(self) -> FileState:
        """What it is."""

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`; empty at the end. Raises OSError."""

    def read_now(self, offset: int, size: int) -> bytes:
        """`size` bytes, at most READ_NOW, from `offset` where all can be had without waiting; else empty.

        Not for threads: does not block.
        """

    def close(self) -> None:
        """Let go of it; may be called more than once."""


class Store(Protocol):
    """All repositories of a server. Raises OSError where the storage fails, FileNotFoundError where nothing is."""

    def prepare(self) -> None:
        """Make what is needed, and finish what a killed process began."""

    def create(self, repository: str, write_access: Iterable[str], files: Sequence[tuple[str, SpooledFile]]) -> None:
        """Make a repository with its access file and files, durably; leaves nothing behind when it fails."""

    def remove(self, repository: str) -> None:
        """Remove a repository at once, as far as clients can see, and then its files; nothing if there is none."""

    def list(self, repository: str) -> tuple[RepositoryFile, ...]:
        """Every regular file, hidden ones of the server at the top included, by name; none if there is no such."""

    def writers(self, repository: str) -> tuple[str, ...]:
        """The names in the repository's access file; none if there is no such repository."""

    def resources(self) -> tuple[str, ...]:
        """The names in the list of resources that may change all repositories."""

    def write_resources(self, names: Iterable[str]) -> None:
        """Replace that list, unless it says so already."""

    def keep(self, repository: str, name: str, file: SpooledFile) -> None:
        """Put a received file in place, durably, whole or not at all, in place of an older one.

        Raises FileNotFoundError for an unknown repository, NotAFile.
        """

    def open(self, repository: str, name: str) -> OpenFile:
        """Open a file for reading; raises FileNotFoundError, also where it is no regular file."""

    def delete(self, repository: str, name: str) -> None:
        """Delete a file; raises FileNotFoundError."""

    def untouched(self, since: float) -> Iterator[str]:
        """The repositories in which no file has come or gone since then, in Unix seconds; in no order."""
