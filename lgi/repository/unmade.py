"""Repositories that are yet to be made: nothing is kept for a job without files until the first of them comes.

Most jobs of some applications never have one. Clients see no difference: such a repository is listed as one that has
its access file alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from lgi.model import RepositoryFile
from lgi.repository.access import ACCESS_FILE, encode_access


@attrs.frozen(kw_only=True)
class Unmade:
    """What the repository of a job is to be like: who may change it, its date in Unix seconds, what its files take.

    One that is not there although it has files is lost, or its storage is missing for a while: it is not made anew.
    """

    write_access: tuple[str, ...]
    date: int
    size: int

    @property
    def is_lost(self) -> bool:
        """Whether it has been made."""
        return self.size > 0

    @property
    def files(self) -> tuple[RepositoryFile, ...]:
        """What is listed of it."""
        if self.is_lost:
            return ()
        size = len(encode_access(self.write_access))
        return (RepositoryFile(name=ACCESS_FILE, size=size, date=float(self.date)),)


FindUnmade = Callable[[str], Awaitable[Unmade | None]]
"""Gives what the repository of this name is to be like, None where no job has it; raises LGIError."""


async def nothing_unmade(_repository: str) -> None:
    """Where repositories are made with their jobs."""
