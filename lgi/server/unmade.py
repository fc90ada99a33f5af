"""The repositories that are yet to be made, as the jobs say that have them."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from lgi.db.database import Database
from lgi.db.jobs import fetch_of_repository
from lgi.repository.unmade import Unmade


@attrs.frozen(kw_only=True)
class UnmadeOfJobs:
    """Looks in all projects of the server: a repository does not say of which it is."""

    databases: Iterable[Database]

    async def __call__(self, repository: str) -> Unmade | None:
        """What the repository of a job is to be like, None where no job has it; raises LGIError."""
        for database in self.databases:
            found = await database.read("find job of repository", fetch_of_repository, repository)
            if found is not None:
                write_access, date, size = found
                return Unmade(write_access=write_access, date=date, size=size)
        return None
