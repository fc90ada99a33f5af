"""What a program looks at by itself while it waits: what the record of jobs has gained, and what is still on offer.

Each look is one or two short statements, however many wait for what it finds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Integer, Row, bindparam, exists, func, select

from lgi.db.log import GAP_SECONDS
from lgi.db.prepared import Prepared, numbered, values_of
from lgi.db.schema import job_log, job_offers
from lgi.model import Changes
from lgi.states import JobState

T = TypeVar("T")

Offer = tuple[str, str]
"""An application and a target resource, or `any`."""

MOST = 2000
"""So many entries of the record are read in one look; where there are more, the next look follows at once."""
MOST_MISSING = 256
"""So many numbers that have not come yet are asked for again, the newest."""
_AT_ONCE = 32

_NEWEST = Prepared(select(func.max(job_log.c.number)))
_ENTRIES = (job_log.c.number, job_log.c.job_id, job_log.c.to_state)
_LATER = Prepared(
    select(*_ENTRIES)
    .where(job_log.c.number > bindparam("seen"))
    .order_by(job_log.c.number)
    .limit(bindparam("most", type_=Integer))
)


@lru_cache(maxsize=16)
def _numbers(number: int) -> Prepared:
    return Prepared(select(*_ENTRIES).where(job_log.c.number.in_(numbered("number", number))))


@lru_cache(maxsize=16)
def _offers(number: int) -> Prepared:
    wanted = job_offers.c.job_id.in_(numbered("job", number))
    return Prepared(select(job_offers.c.application, job_offers.c.target).where(wanted).distinct())


@lru_cache(maxsize=_AT_ONCE)
def _still(number: int) -> Prepared:
    pairs = zip(numbered("application", number), numbered("target", number), strict=True)
    return Prepared(
        select(
            *(
                exists()
                .where(job_offers.c.application == application, job_offers.c.target == target)
                .label(f"offer_{index}")
                for index, (application, target) in enumerate(pairs)
            )
        )
    )


def still_offered(connection: Connection, offers: Collection[Offer]) -> set[Offer]:
    """Those of `offers` under which there is a job on offer."""
    found: set[Offer] = set()
    for some in _parts(sorted(offers), _AT_ONCE):
        values = values_of("application", (application for application, _target in some))
        values |= values_of("target", (target for _application, target in some))
        row: Sequence[Any] = _still(len(some))(connection, **values).one()
        found.update(offer for offer, there in zip(some, row, strict=True) if there)
    return found


def _parts(values: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    for begin in range(0, len(values), most):
        yield values[begin : begin + most]


def _filled(values: Sequence[int]) -> list[int]:
    """As many as a power of two, so that few statements are prepared."""
    return [*values, *[values[-1]] * ((1 << (len(values) - 1).bit_length()) - len(values))]


class Follower:
    """Follows the record of jobs from where it is at the first look.

    Numbers are drawn before transactions commit, so that a lower one may appear after a higher one: those that are
    missing are asked for again, for GAP_SECONDS. What each entry says is not kept, nor in which order they come.
    """

    def __init__(self) -> None:
        self._seen: int | None = None
        # When each was missed.
        self._missing: dict[int, float] = {}

    def skip(self, connection: Connection) -> None:
        """Nobody wants to know what was new until now."""
        self._seen, self._missing = _NEWEST(connection).scalar() or 0, {}

    def read(self, connection: Connection, now: float, *, offers: bool) -> tuple[Changes, bool]:
        """What has changed since the last look, and whether there is more than that; `now` in seconds.

        Of the jobs that were queued, it has what is on offer only with `offers`.
        """
        if self._seen is None:
            self.skip(connection)
            return Changes(), False
        rows = _LATER(connection, seen=self._seen, most=MOST).all()
        more = len(rows) == MOST
        came: Sequence[Row[Any]] = ()
        if self._missing:
            asked = _filled(tuple(self._missing))
            came = _numbers(len(asked))(connection, **values_of("number", asked)).all()
        queued = {row.job_id for row in (*rows, *came) if row.to_state == JobState.QUEUED.value}
        found: set[Offer] = set()
        if offers and queued:
            for some in _parts(sorted(queued), 256):
                these = _filled(some)
                found.update(
                    (row.application, row.target)
                    for row in _offers(len(these))(connection, **values_of("job", these))
                )
        # From here on nothing fails, and nothing is read twice.
        self._pass([row.number for row in rows], {row.number for row in came}, now)
        return Changes(jobs=frozenset(row.job_id for row in (*rows, *came)), offers=frozenset(found)), more

    def _pass(self, numbers: Iterable[int], came: Collection[int], now: float) -> None:
        assert self._seen is not None
        for number in came:
            self._missing.pop(number, None)
        for number in numbers:
            for missed in range(max(self._seen + 1, number - MOST_MISSING), number):
                self._missing[missed] = now
            self._seen = number
        kept = [number for number, since in self._missing.items() if since > now - GAP_SECONDS]
        self._missing = {number: self._missing[number] for number in kept[-MOST_MISSING:]}
