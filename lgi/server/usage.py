"""The account of what files take, kept in the databases of the projects whose jobs they are of.

A repository does not say of which project it is: the one that has its job is looked for. What no job has, such as
what is left of a submission that failed, is not counted. Nothing is reserved beside the account: what is charged
counts at once, and a process that is killed before its file is in place leaves that to `recount`.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from twisted.internet.defer import Deferred, ensureDeferred

from lgi.db.database import Database
from lgi.db.usage import AccountFull, RepositoryFull, recount, reserve
from lgi.repository.usage import Reservation, UsageExceeded

_Waiting = tuple[int, Deferred[Reservation]]


@attrs.define(kw_only=True)
class Accounts:
    """The accounts of all repositories and users, in bytes.

    `repository_limit` is what the files of one repository may take, `user_limit` those of one user of a project; 0 is
    no limit. All that is reserved in one repository while a transaction of it is under way is counted in the next
    one: many small files then wait for few commits.
    """

    databases: Iterable[Database]
    repository_limit: int = 0
    user_limit: int = 0
    _queues: dict[str, list[_Waiting]] = attrs.field(factory=dict, init=False)

    async def reserve(self, repository: str, delta: int) -> Reservation:
        """Count this much more from now on; raises UsageExceeded, and then counts nothing."""
        if not delta:
            return Reservation(repository=repository, size=0)
        done: Deferred[Reservation] = Deferred()
        waiting = self._queues.get(repository)
        if waiting is None:
            self._queues[repository] = [(delta, done)]
            ensureDeferred(self._work_off(repository))
        else:
            waiting.append((delta, done))
        return await done

    async def release(self, reservation: Reservation) -> None:
        """Count it no more, or again where something was to be deleted."""
        if reservation.size:
            await self._count(reservation.repository, -reservation.size, limited=False)

    async def recount(self, repository: str, size: int) -> None:
        """The files of this repository take so much at this moment, whatever was counted."""
        for database in self.databases:
            if await database.run("recount files", recount, repository, size):
                return

    async def _work_off(self, repository: str) -> None:
        """Count what waits, all together if that fits and one by one if not, until nothing does."""
        while waiting := self._queues[repository]:
            self._queues[repository] = []
            together = sum(delta for delta, _ in waiting)
            # What is taken off may be more than was counted, and then says how much it was: on its own.
            if len(waiting) > 1 and all(delta > 0 for delta, _ in waiting):
                try:
                    counted = await self._count(repository, together)
                except UsageExceeded:
                    pass
                except Exception as problem:
                    for _, done in waiting:
                        done.errback(problem)
                    continue
                else:
                    for delta, done in waiting:
                        done.callback(Reservation(repository=repository, size=delta if counted else 0))
                    continue
            for delta, done in waiting:
                try:
                    size = await self._count(repository, delta)
                except Exception as problem:
                    done.errback(problem)
                else:
                    done.callback(Reservation(repository=repository, size=size))
        del self._queues[repository]

    async def _count(self, repository: str, delta: int, *, limited: bool = True) -> int:
        """What was counted more, in bytes; raises UsageExceeded."""
        limits = {"limit": self.repository_limit, "user_limit": self.user_limit} if limited else {}
        for database in self.databases:
            try:
                charged = await database.run("count files", reserve, repository, delta, **limits)
            except AccountFull as full:
                raise UsageExceeded(f"max_user_size: the files of {full.user}", self.user_limit) from None
            except RepositoryFull:
                raise UsageExceeded(
                    "max_repository_size: the files of a repository together", self.repository_limit
                ) from None
            if charged is not None:
                return charged.size
        return 0
