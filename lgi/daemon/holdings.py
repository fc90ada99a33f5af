"""What this resource holds at the moment: the jobs in its keeping, and those it is about to take."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from lgi.daemon.keeper import Keeper
from lgi.daemon.limits import Taken


@attrs.define
class Holdings:
    """The jobs this resource holds, and the places reserved for those being considered."""

    keepers: list[Keeper] = attrs.Factory(list)
    reserved: list[Taken] = attrs.Factory(list)
    refused: set[tuple[str, str, int]] = attrs.Factory(set)
    """Project, server and number of jobs whose directory was refused before there was a keeper."""
    freed: Callable[[], None] = lambda: None
    """Called when there is room for a job more."""
    left: Callable[[str], None] = lambda reference: None
    """Called with the reference of a job that is here no longer."""

    @property
    def taken(self) -> tuple[Taken, ...]:
        """All of them, for the limits; directories that were refused keep their places."""
        return (*(keeper.taken for keeper in self.keepers), *self.reserved)

    def drop(self, keeper: Keeper) -> None:
        """A job is held no longer."""
        self.keepers.remove(keeper)
        self.left(keeper.record.reference)
        self.freed()

    def find(self, project: str, server: str, job_id: int) -> Keeper | None:
        """The keeper of a server's job."""
        for keeper in self.keepers:
            record = keeper.record
            if (record.project, record.server, record.job_id) == (project, server.rstrip("/"), job_id):
                return keeper
        return None
