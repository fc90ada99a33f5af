"""The account of what files take, kept in the databases of the projects whose jobs they are of.

A repository does not say of which project it is: the one that has its job is looked for. What no job has, such as
what is left of a submission that failed, is not counted. Nothing is reserved beside the account: what is charged
counts at once, and a process that is killed before its file is in place leaves that to `recount`.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from lgi.db.database import Database
from lgi.db.usage import AccountFull, recount, reserve
from lgi.repository.usage import Reservation, UsageExceeded


@attrs.frozen(kw_only=True)
class Accounts:
    """The accounts of all users; `limit` is what the files of one user of a project may take in bytes, 0 for any."""

    databases: Iterable[Database]
    limit: int = 0

    async def reserve(self, repository: str, owner: str, delta: int) -> Reservation:
        """Count this much more from now on; raises UsageExceeded, and then counts nothing.

        The account is that of the job's first owner, who is `owner` unless the job was submitted for several of whom
        he had reached his limit.
        """
        size = 0
        try:
            size = await self._count(repository, delta, self.limit)
        except AccountFull:
            raise UsageExceeded(f"the files of {owner}", self.limit) from None
        return Reservation(repository=repository, owner=owner, size=size)

    async def settle(self, reservation: Reservation) -> None:
        """Nothing is left to do: it counts already."""

    async def release(self, reservation: Reservation) -> None:
        """Count it no more, or again where something was to be deleted."""
        await self._count(reservation.repository, -reservation.size, 0)

    async def recount(self, repository: str, _owner: str, size: int) -> None:
        """The files of this repository take so much at this moment, whatever was counted."""
        for database in self.databases:
            if await database.run("recount files", recount, repository, size):
                return

    async def forget(self, _repository: str) -> None:
        """Nothing is left to do: it is removed after its job, with which its account went, or never had one."""

    async def _count(self, repository: str, delta: int, limit: int) -> int:
        """What was counted more, in bytes."""
        if delta:
            for database in self.databases:
                charged = await database.run("count files", reserve, repository, delta, limit)
                if charged is not None:
                    return charged.size
        return 0
