"""How much the files of one user's jobs take together: what the repositories ask of whoever keeps account.

The owner of a repository is the first name in its access file that is not `admin`. What is reserved counts from that
moment, so that uploads at the same time cannot pass the limit together. In the order of events:

    reservation = await usage.reserve(repository, owner, delta)   # before a file is put in place
    await usage.settle(reservation)                               # it is in place
    await usage.release(reservation)                              # or: it is not, nothing has changed

A file that replaces another one, or that is deleted, has a `delta` of its new size less its old one; what is negative
is never refused. A process that is killed between `reserve` and `settle` leaves a reservation that nobody ends: the
next `recount` of that repository puts it right. What comes with a submission is counted with its job, and what a
deleted job had is counted no more.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from lgi.errors import ErrorNumber, LGIError

GROUP_OF_ALL = "admin"


class UsageExceeded(LGIError):
    """Something would be larger than it may be: `what` says which limit it is, `limit` how large it is in bytes."""

    def __init__(self, what: str, limit: int) -> None:
        self.limit = limit
        super().__init__(ErrorNumber.FILE_TOO_BIG, f"{what} may take at most {limit} bytes")


@attrs.frozen(kw_only=True)
class Reservation:
    """Bytes that an owner's files are about to grow by, or to shrink by where `size` is negative."""

    repository: str
    owner: str
    size: int


class Usage(Protocol):
    """Keeps account of what the files of each owner take; all raise LGIError where the account cannot be had."""

    async def reserve(self, repository: str, owner: str, delta: int) -> Reservation:
        """Count this much more from now on; raises UsageExceeded, and then counts nothing."""

    async def settle(self, reservation: Reservation) -> None:
        """The change has been made."""

    async def release(self, reservation: Reservation) -> None:
        """The change has not been made: count it no more."""

    async def recount(self, repository: str, owner: str, size: int) -> None:
        """The files of this repository take so much at this moment, whatever was counted."""


class Unlimited:
    """Keeps no account, where no user has a limit."""

    async def reserve(self, repository: str, owner: str, delta: int) -> Reservation:
        """Let it be."""
        return Reservation(repository=repository, owner=owner, size=delta)

    async def settle(self, reservation: Reservation) -> None:
        """Do nothing."""

    async def release(self, reservation: Reservation) -> None:
        """Do nothing."""

    async def recount(self, repository: str, owner: str, size: int) -> None:
        """Do nothing."""


def owner_of(writers: tuple[str, ...]) -> str:
    """Whose a repository is, from its access file; empty where it has none."""
    return next((name for name in writers if name != GROUP_OF_ALL), "")
