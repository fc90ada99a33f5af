"""Many files to or from a repository at once: one that fails stops no other, a server that is away stops all."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore, FirstError, gatherResults

from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.client.landing import Landing
from lgi.client.places import Target
from lgi.client.repository import RepositoryClient
from lgi.client.transfer import Progress
from lgi.client.walk import LocalFile
from lgi.model import RepositoryFile

T = TypeVar("T")

AT_ONCE = 8
_ON_THE_WAY = 128  # files that have come and are not on disk yet
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
PROBLEMS = (ServerRefused, ServerUnreachable, AnswerMalformed, OSError, ValueError)
Problem = ServerRefused | ServerUnreachable | AnswerMalformed | OSError | ValueError


class Watcher(Protocol):
    """Who is told of each file."""

    def started(self, name: str, size: int) -> Progress:
        """It is on its way; the result is told of its bytes."""

    def done(self, name: str, size: int) -> None:
        """It is where it should be, on disk."""

    def failed(self, name: str, problem: Problem) -> None:
        """It is not."""


class Stopped(Exception):
    """Nothing more can be moved: `why` it is so, and of how many files nothing was tried or finished."""

    def __init__(self, why: Problem, left: int) -> None:
        self.why = why
        self.left = left
        super().__init__(str(why))


async def at_once(count: int, items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do `work` to each item, `count` at a time; the first that raises ends the others, as does cancelling."""
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    workers = [Deferred.fromCoroutine(worker()) for _ in range(count)]
    try:
        await gatherResults(workers, consumeErrors=True)
    except FirstError as first:
        problem = first.subFailure.value
        assert problem is not None
        raise problem from None
    finally:
        for one in workers:
            one.cancel()
        await DeferredList(workers, consumeErrors=True)


@attrs.frozen(kw_only=True)
class Tree:
    """Files moved between `store` and this machine, `count` at once."""

    store: RepositoryClient
    watcher: Watcher
    count: int = AT_ONCE
    verify: bool = False

    @asynccontextmanager
    async def _counted(self, total: int) -> AsyncIterator[list[int]]:
        ended = [0]
        try:
            yield ended
        except (ServerUnreachable, OSError) as problem:
            raise Stopped(problem, total - ended[0]) from problem

    def _failed(self, name: str, problem: Problem) -> None:
        self.watcher.failed(name, problem)
        if isinstance(problem, ServerUnreachable) or (isinstance(problem, OSError) and problem.errno in _HOPELESS):
            # The others would fail too, each after its own attempts.
            raise problem

    async def get(self, files: Sequence[RepositoryFile], target: Target) -> None:
        """Download; raises Stopped."""
        landing = Landing()
        room = DeferredSemaphore(_ON_THE_WAY)
        settling: set[Deferred[None]] = set()
        hopeless: list[OSError] = []

        async with self._counted(len(files)) as ended:

            async def settle(name: str, size: int, settled: Deferred[None]) -> None:
                try:
                    await settled
                except OSError as problem:
                    ended[0] += 1
                    self.watcher.failed(name, problem)
                    if problem.errno in _HOPELESS:
                        hopeless.append(problem)
                else:
                    ended[0] += 1
                    self.watcher.done(name, size)
                finally:
                    room.release()

            async def get(file: RepositoryFile) -> None:
                if hopeless:
                    raise hopeless[0]
                await room.acquire()
                try:
                    with target.place(file.name) as place:
                        progress = self.watcher.started(file.name, file.size)
                        arrived = await self.store.fetch(file.name, place, progress, verify=self.verify)
                except PROBLEMS as problem:
                    room.release()
                    ended[0] += 1
                    self._failed(file.name, problem)
                    return
                waiting = Deferred.fromCoroutine(settle(file.name, arrived.size, landing.settle(arrived)))
                settling.add(waiting)
                waiting.addBoth(lambda _: settling.discard(waiting))

            try:
                await at_once(self.count, files, get)
            finally:
                # What has come is brought to its place also where the rest will not come.
                await DeferredList(list(settling), consumeErrors=True)
            if hopeless:
                raise hopeless[0]

    async def put(self, files: Sequence[LocalFile]) -> None:
        """Upload; raises Stopped."""
        async with self._counted(len(files)) as ended:

            async def put(file: LocalFile) -> None:
                progress = self.watcher.started(file.name, file.size)
                try:
                    size = await self.store.put(file.path, file.name, progress, verify=self.verify)
                except PROBLEMS as problem:
                    ended[0] += 1
                    self._failed(file.name, problem)
                else:
                    ended[0] += 1
                    self.watcher.done(file.name, size)

            await at_once(self.count, files, put)

    async def remove(self, files: Sequence[RepositoryFile]) -> None:
        """Remove; raises Stopped."""
        async with self._counted(len(files)) as ended:

            async def remove(file: RepositoryFile) -> None:
                try:
                    await self.store.delete(file.name)
                except PROBLEMS as problem:
                    ended[0] += 1
                    self._failed(file.name, problem)
                else:
                    ended[0] += 1
                    self.watcher.done(file.name, file.size)

            await at_once(self.count, files, remove)
