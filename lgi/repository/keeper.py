"""Changes to repositories, within what a repository and a user may take, and one at a time in each repository."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import attrs
from twisted.internet.defer import DeferredLock
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from lgi.errors import LGIError
from lgi.httpd.body import Upload
from lgi.httpd.refusal import Refused
from lgi.httpd.spool import SpooledFile
from lgi.repository.conditions import Conditions
from lgi.repository.files import Repositories
from lgi.repository.store import FileState
from lgi.repository.usage import Unlimited, Usage, UsageExceeded, owner_of

_log = Logger()


@attrs.frozen(kw_only=True)
class _Seen:
    """What there is before a change: sizes in bytes, of the file and of all, and the file's state if it was asked."""

    owner: str
    old: int
    total: int
    state: FileState | None


class Keeper:
    """Makes the changes, and has account kept of them."""

    def __init__(self, repositories: Repositories, usage: Usage | None = None) -> None:
        self._repositories = repositories
        self._usage: Usage = usage or Unlimited()
        self._locks: dict[str, tuple[DeferredLock, int]] = {}

    async def create(self, repository: str, write_access: Sequence[str], uploads: Sequence[Upload]) -> None:
        """Make a repository; raises UsageExceeded, NameRefused or OSError, and leaves nothing behind then.

        Its files count for their owner when its job does.
        """
        self._check_size(sum(upload.file.size for upload in uploads))
        await deferToThread(self._repositories.create, repository, write_access, uploads)

    async def remove(self, repository: str) -> None:
        """Remove a repository, of which the job is gone and counts no more; raises OSError, NameRefused."""
        async with self._alone(repository):
            await deferToThread(self._repositories.remove, repository)

    async def check_room(self, repository: str, name: str, size: int) -> None:
        """Raise UsageExceeded where a file of this size would not be taken, before any of it has come."""
        seen = await deferToThread(self._look, repository, name, Conditions())
        self._check_size(seen.total - seen.old + size, size - seen.old)
        await self._usage.release(await self._usage.reserve(repository, seen.owner, size - seen.old))

    async def keep(self, repository: str, name: str, file: SpooledFile, conditions: Conditions) -> None:
        """Put a received file in place.

        Raises Refused where the conditions do not hold, UsageExceeded, FileNotFoundError for an unknown repository,
        NotAFile or OSError, and changes nothing then.
        """
        async with self._alone(repository):
            seen = await deferToThread(self._look, repository, name, conditions)
            check(conditions, seen.state)
            growth = file.size - seen.old
            self._check_size(seen.total + growth, growth)
            await self._counted(repository, seen.owner, growth, self._repositories.store.keep, name, file)

    async def delete(self, repository: str, name: str, conditions: Conditions) -> None:
        """Delete a file; raises Refused where the conditions do not hold, FileNotFoundError, OSError."""
        async with self._alone(repository):
            seen = await deferToThread(self._look, repository, name, conditions)
            check(conditions, seen.state)
            await self._counted(repository, seen.owner, -seen.old, self._repositories.store.delete, name)

    async def _counted(
        self, repository: str, owner: str, growth: int, change: Callable[..., None], *arguments: object
    ) -> None:
        """Make a change that is counted, and count anew what is there where it failed: it may be half made."""
        reservation = await self._usage.reserve(repository, owner, growth)
        try:
            await deferToThread(change, repository, *arguments)
        except Exception:
            await self._usage.release(reservation)
            try:
                seen = await deferToThread(self._look, repository, "", Conditions())
                await self._usage.recount(repository, owner, seen.total)
            except (OSError, LGIError) as problem:
                # What the change itself failed with is what is told.
                _log.error("{repository} cannot be counted: {problem}", repository=repository, problem=problem)
            raise
        await self._usage.settle(reservation)

    async def state(self, repository: str, name: str) -> FileState | None:
        """What a file is, None where there is none; raises OSError."""
        return await deferToThread(self._state, repository, name)

    def _state(self, repository: str, name: str) -> FileState | None:
        try:
            file = self._repositories.store.open(repository, name)
        except FileNotFoundError:
            return None
        try:
            return file.state
        finally:
            file.close()

    def _look(self, repository: str, name: str, conditions: Conditions) -> _Seen:
        sizes = {file.name: file.size for file in self._repositories.list(repository)}
        return _Seen(
            owner=owner_of(self._repositories.store.writers(repository)),
            old=sizes.get(name, 0),
            total=sum(size for file, size in sizes.items() if not file.startswith(".")),
            state=self._state(repository, name) if conditions else None,
        )

    def _check_size(self, total: int, growth: int = 1) -> None:
        limit = self._repositories.max_repository_size
        # What shrinks is welcome, also where the limit was once higher.
        if growth > 0 and total > limit:
            raise UsageExceeded("max_repository_size: the files of a repository together", limit)

    @asynccontextmanager
    async def _alone(self, repository: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(repository, (DeferredLock(), 0))
        self._locks[repository] = lock, users + 1
        try:
            await lock.acquire()
            try:
                yield
            finally:
                lock.release()
        finally:
            _, users = self._locks[repository]
            if users > 1:
                self._locks[repository] = lock, users - 1
            else:
                del self._locks[repository]


def check(conditions: Conditions, state: FileState | None) -> None:
    """Raise Refused where a change must not be made."""
    if conditions and conditions.fail(state):
        raise Refused(412, "the file is not, or no longer, as the request has it")
