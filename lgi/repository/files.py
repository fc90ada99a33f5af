"""The repositories of a server: their names, where clients find them, how large they may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import attrs

from lgi.httpd.body import Upload
from lgi.httpd.spool import Spool
from lgi.identity import Identity
from lgi.model import RepositoryFile
from lgi.repository.access import may_change
from lgi.repository.local import LocalStore
from lgi.repository.names import NameRefused, checked_file, checked_repository, fan_out
from lgi.repository.store import Store
from lgi.repository.unfinished import Unfinished

SPOOL = ".spool"
UNFINISHED = ".unfinished"
MAX_REPOSITORY_SIZE = 1 << 40


@attrs.frozen(kw_only=True)
class Repositories:
    """All repositories of a server, on whatever `store` keeps them, in `directory` there.

    `location` and `url` (no trailing slash) are what clients are told. Uploads wait on this machine, those that come
    in one request in `spool`, others in `unfinished`. Sizes in bytes. All methods block: call them in a thread.
    """

    store: Store
    directory: PurePosixPath
    spool: Spool
    unfinished: Unfinished
    location: str
    url: str
    max_repository_size: int = MAX_REPOSITORY_SIZE

    @classmethod
    def local(
        cls, *, root: Path, location: str, url: str, max_repository_size: int = MAX_REPOSITORY_SIZE
    ) -> Repositories:
        """Repositories on this machine, below `root`."""
        spool = Spool(root / SPOOL)
        return cls(
            store=LocalStore(root=root, spool=spool),
            directory=PurePosixPath(root),
            spool=spool,
            unfinished=Unfinished(root / UNFINISHED),
            location=location,
            url=url,
            max_repository_size=max_repository_size,
        )

    def prepare(self) -> None:
        """Make what is needed, and finish what a killed process began; raises OSError."""
        self.store.prepare()
        self.spool.prepare()
        self.unfinished.prepare()

    def path(self, repository: str) -> PurePosixPath:
        """Where a repository is, for people to read; raises NameRefused."""
        return self.directory / fan_out(checked_repository(repository)) / repository

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
        self.store.create(repository, write_access, [(upload.filename, upload.file) for upload in uploads])

    def remove(self, repository: str) -> None:
        """Remove a repository at once, as far as clients can see, and then its files; nothing if there is none."""
        self.store.remove(repository)
        self.unfinished.forget(repository)

    def is_there(self, repository: str) -> bool:
        """Whether there is such a repository: each has at least its access file."""
        try:
            return bool(self.list(repository))
        except NameRefused:
            return False

    def list(self, repository: str) -> tuple[RepositoryFile, ...]:
        """The files in a repository in order of their names; none if there is no such repository."""
        return self.store.list(repository)

    def writers(self, repository: str) -> tuple[str, ...] | None:
        """The names in the access file of a repository, None if there is no such repository; raises OSError."""
        if found := self.store.writers(repository):
            return found
        # Where it is there, it may have been made since its access file was looked for.
        return self.store.writers(repository) if self.is_there(repository) else None

    def may_change(self, identity: Identity, writers: Sequence[str]) -> bool:
        """Whether the holder of a certificate may upload to and delete from a repository that these may change."""
        return may_change(identity, writers, self.store)

    def untouched(self, since: float) -> Iterator[str]:
        """The repositories in which no file has come or gone since then, in Unix seconds; in no order."""
        return self.store.untouched(since)

    def write_resource_list(self, names: Iterable[str]) -> None:
        """Replace the list of resources that may change files in all repositories, unless it says so already."""
        self.store.write_resources(names)
