"""How much the files of a repository, and of one user's jobs, take together: what uploads ask of who keeps account.

What is reserved counts from that moment, so that uploads at the same time cannot pass a limit together. In the order
of events:

    reservation = await usage.reserve(repository, delta)   # before a file is put in place
    await usage.release(reservation)                       # only where it was not: nothing has changed

A file that replaces another one, or that is deleted, has a `delta` of its new size less its old one; what is negative
is never refused. A process that is killed between `reserve` and its file's rename leaves too much counted: the next
`recount` of that repository puts it right. What comes with a submission is counted with its job, and what a deleted
job had is counted no more.
"""

from __future__ import annotations

from typing import Protocol

import attrs

from lgi.errors import ErrorNumber, LGIError


class UsageExceeded(LGIError):
    """Something would be larger than it may be: `what` says which limit it is, `limit` how large it is in bytes."""

    def __init__(self, what: str, limit: int) -> None:
        self.limit = limit
        super().__init__(ErrorNumber.FILE_TOO_BIG, f"{what} may take at most {limit} bytes")


@attrs.frozen(kw_only=True)
class Reservation:
    """Bytes that a repository's files are about to grow by, or to shrink by where `size` is negative."""

    repository: str
    size: int


class Usage(Protocol):
    """Keeps account of what files take; all raise LGIError where the account cannot be had."""

    async def reserve(self, repository: str, delta: int) -> Reservation:
        """Count this much more from now on; raises UsageExceeded, and then counts nothing."""

    async def release(self, reservation: Reservation) -> None:
        """The change has not been made: count it no more."""

    async def recount(self, repository: str, size: int) -> None:
        """The files of this repository take so much at this moment, whatever was counted."""


class Unlimited:
    """Keeps no account, where nothing has a limit."""

    async def reserve(self, repository: str, delta: int) -> Reservation:
        """Let it be."""
        return Reservation(repository=repository, size=delta)

    async def release(self, reservation: Reservation) -> None:
        """Do nothing."""

    async def recount(self, repository: str, size: int) -> None:
        """Do nothing."""
