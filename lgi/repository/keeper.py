"""Changes to repositories, within what a repository and a user may take, and one at a time of each file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from twisted.internet.defer import DeferredLock
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from lgi.errors import LGIError
from lgi.httpd.body import Upload
from lgi.httpd.refusal import Refused
from lgi.httpd.spool import SpooledFile
from lgi.model import RepositoryFile
from lgi.repository.access import ACCESS_FILE
from lgi.repository.conditions import Conditions
from lgi.repository.files import Repositories
from lgi.repository.locks import FileLocks
from lgi.repository.store import FileState
from lgi.repository.unmade import FindUnmade, Unmade, nothing_unmade
from lgi.repository.usage import Unlimited, Usage, UsageExceeded

_log = Logger()


class Keeper:
    """Makes the changes, and has account kept of them; `others` keeps the server's other processes out meanwhile.

    `unmade` tells of repositories that are made with their first file.
    """

    def __init__(
        self,
        repositories: Repositories,
        usage: Usage | None = None,
        others: FileLocks | None = None,
        unmade: FindUnmade = nothing_unmade,
    ) -> None:
        self._unmade = unmade
        self._repositories = repositories
        self._others = others
        self._usage: Usage = usage or Unlimited()
        self._locks: dict[tuple[str, str], tuple[DeferredLock, int]] = {}

    async def create(self, repository: str, write_access: Sequence[str], uploads: Sequence[Upload]) -> None:
        """Make a repository; raises UsageExceeded, NameRefused or OSError, and leaves nothing behind then.

        Its files count for their owner when its job does.
        """
        limit = self._repositories.max_repository_size
        if sum(upload.file.size for upload in uploads) > limit:
            raise UsageExceeded("max_repository_size: the files of a repository together", limit)
        await deferToThread(self._repositories.create, repository, write_access, uploads)

    async def make(self, repository: str, unmade: Unmade) -> None:
        """Make the repository of a job without files, which is there afterwards; raises OSError."""
        async with self._alone(repository, ACCESS_FILE):
            if await deferToThread(self._repositories.is_there, repository):
                return
            # What was half made when a process was killed.
            await deferToThread(self._repositories.store.remove, repository)
            await deferToThread(self._repositories.create, repository, unmade.write_access, ())
        if await self._unmade(repository) is None:
            # Its job was deleted meanwhile.
            await self.remove(repository)

    async def list(self, repository: str) -> tuple[RepositoryFile, ...]:
        """The files in a repository in order of their names; none if no job has it. Raises OSError, LGIError."""
        if files := await deferToThread(self._repositories.list, repository):
            return files
        if (unmade := await self._unmade(repository)) and not unmade.is_lost:
            return unmade.files
        # It may have been made meanwhile.
        return await deferToThread(self._repositories.list, repository)

    async def writers(self, repository: str) -> tuple[Sequence[str], Unmade | None]:
        """Who may change a repository, and what it is to be like if it has to be made. Raises OSError, LGIError."""
        found = await deferToThread(self._repositories.writers, repository)
        if found is not None:
            return found, None
        if (unmade := await self._unmade(repository)) and not unmade.is_lost:
            return unmade.write_access, unmade
        # It may have been made meanwhile.
        return await deferToThread(self._repositories.writers, repository) or (), None

    async def remove(self, repository: str) -> None:
        """Remove a repository, of which the job is gone and counts no more; raises OSError, NameRefused."""
        await deferToThread(self._repositories.remove, repository)

    async def check_room(self, repository: str, name: str, size: int) -> None:
        """Raise UsageExceeded where a file of this size would not be taken, before any of it has come."""
        growth = size - _size(await self.state(repository, name))
        await self._usage.release(await self._usage.reserve(repository, growth))

    async def keep(self, repository: str, name: str, file: SpooledFile, conditions: Conditions) -> None:
        """Put a received file in place.

        Raises Refused where the conditions do not hold, UsageExceeded, FileNotFoundError for an unknown repository,
        NotAFile or OSError, and changes nothing then.
        """
        async with self._alone(repository, name):
            state = await self.state(repository, name)
            check(conditions, state)
            await self._counted(repository, file.size - _size(state), self._repositories.store.keep, name, file)

    async def delete(self, repository: str, name: str, conditions: Conditions) -> None:
        """Delete a file; raises Refused where the conditions do not hold, FileNotFoundError, OSError."""
        async with self._alone(repository, name):
            state = await self.state(repository, name)
            check(conditions, state)
            await self._counted(repository, -_size(state), self._repositories.store.delete, name)

    async def _counted(self, repository: str, growth: int, change: Callable[..., None], *arguments: object) -> None:
        """Make a change that is counted, and count anew what is there where it failed: it may be half made."""
        reservation = await self._usage.reserve(repository, growth)
        try:
            await deferToThread(change, repository, *arguments)
        except FileNotFoundError:
            await self._usage.release(reservation)
            raise
        except Exception:
            await self._usage.release(reservation)
            try:
                files = await deferToThread(self._repositories.list, repository)
                size = sum(file.size for file in files if not file.name.startswith("."))
                await self._usage.recount(repository, size)
            except (OSError, LGIError) as problem:
                # What the change itself failed with is what is told.
                _log.error("{repository} cannot be counted: {problem}", repository=repository, problem=problem)
            raise

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

    @asynccontextmanager
    async def _alone(self, repository: str, name: str) -> AsyncIterator[None]:
        key = repository, name
        lock, users = self._locks.get(key, (DeferredLock(), 0))
        self._locks[key] = lock, users + 1
        try:
            await lock.acquire()
            try:
                if self._others is None:
                    yield
                else:
                    async with self._others.held(repository, name):
                        yield
            finally:
                lock.release()
        finally:
            _, users = self._locks[key]
            if users > 1:
                self._locks[key] = lock, users - 1
            else:
                del self._locks[key]


def _size(state: FileState | None) -> int:
    return 0 if state is None else state.size


def check(conditions: Conditions, state: FileState | None) -> None:
    """Raise Refused where a change must not be made."""
    if conditions and conditions.fail(state):
        raise Refused(412, "the file is not, or no longer, as the request has it")
