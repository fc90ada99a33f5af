"""Resources that wait for work: each is told when there is some, one of them for each new job.

What is told is a hint to ask for work, nothing is promised by it: whoever asks first gets the job. So a resource that
was told and takes nothing costs the job a second, after which the next one in the line is told, then two at once, and
so on. Of a job for one resource its sessions are told in the same way. Each process that serves has lines of its own:
one is told in each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from lgi.errors import LGIError
from lgi.lists import ANY

RETELL = 1.0
"""Seconds in which a resource that was told takes the job, or another one is told."""
LINGER = 120.0
"""Seconds for which what comes is kept for a session that does not wait just now."""
TOGETHER = 0.1
"""Seconds within which looks are made at once that would follow each other."""

Offer = tuple[str, str]
"""An application and a target resource, or `any`."""
OnOffer = Callable[[Collection[Offer]], Awaitable[Collection[Offer]]]
"""Which of some offers are still there."""


@attrs.define(kw_only=True)
class _Place:
    """A session's place in the lines; `pending` is what it has not been told yet, `held` its call if it waits."""

    session_id: int
    resource_name: str
    applications: frozenset[str]
    pending: set[str]
    held: Deferred[None] | None = None
    end: Any = None

    def tell(self, application: str) -> None:
        self.pending.add(application)
        if self.held is not None and not self.held.called:
            self.held.callback(None)

    @property
    def waits(self) -> bool:
        return self.held is not None and not self.held.called


@attrs.define
class _Round:
    """Who has been told of an offer since the last new job; at `due`, if it is still there, `number` others are."""

    told: set[int] = attrs.Factory(set)
    number: int = 1
    due: float | None = None


class Waiting:
    """The sessions of one project that wait in this process.

    `on_offer` is asked whether anybody has taken what was told of; `reactor` is asked for when it is first needed.
    """

    _log = Logger()

    def __init__(self, reactor: Callable[[], Any], on_offer: OnOffer) -> None:
        self._reactor = reactor
        self._on_offer = on_offer
        self._places: dict[int, _Place] = {}
        self._lines: dict[str, dict[int, _Place]] = {}
        # The lines of jobs for one resource, by application and its name.
        self._own_lines: dict[Offer, dict[int, _Place]] = {}
        self._rounds: dict[Offer, _Round] = {}
        self._timer: Any = None
        self._stopped = False

    def __len__(self) -> int:
        """How many sessions wait or may come back."""
        return len(self._places)

    @property
    def held(self) -> int:
        """How many sessions wait right now."""
        return sum(place.waits for place in self._places.values())

    def __contains__(self, session_id: int) -> bool:
        """Whether this session has a place already."""
        return session_id in self._places

    async def wait(
        self,
        session_id: int,
        resource_name: str,
        applications: frozenset[str],
        seconds: float,
        gone: Callable[[Callable[[], None]], None],
    ) -> frozenset[str]:
        """For which of `applications` it is worth asking for work; none after `seconds`.

        All of them at the first call of a session, which has to look before it can wait. `gone` is given what is to
        be called when the client hangs up: a session that is not there any more is not told.
        """
        place = self._placed(session_id, resource_name, applications)
        if not place.pending and not self._stopped:
            held: Deferred[None] = Deferred()
            place.held = held
            late = self._reactor().callLater(seconds, held.callback, None)

            def leave() -> None:
                if place.held is held:
                    self.forget(session_id)

            gone(leave)
            try:
                await held
            finally:
                if late.active():
                    late.cancel()
            place.held = None
        told, place.pending = frozenset(place.pending), set()
        if self._places.get(session_id) is place:
            place.end = self._reactor().callLater(LINGER, self.forget, session_id)
        return told

    def tell(self, offers: Iterable[Offer]) -> None:
        """There is something new to take: (application, target resource or `any`)."""
        for offer in offers:
            line = self._line(offer)
            if len(line) == 1 and offer not in self._rounds:
                # Nobody is there to be told later.
                for place in line.values():
                    place.tell(offer[0])
            elif line:
                self._begin(offer)

    def forget(self, session_id: int) -> None:
        """The session is over, or nobody is there any more."""
        place = self._places.pop(session_id, None)
        if place is None:
            return
        for application in place.applications:
            for lines, key in self._places_in(place, application):
                del lines[key][session_id]
                if not lines[key]:
                    del lines[key]
        if place.end is not None and place.end.active():
            place.end.cancel()
        if place.waits and place.held is not None:
            place.held.callback(None)

    def stop(self) -> None:
        """Let nobody wait any more."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._rounds.clear()
        for session_id in list(self._places):
            self.forget(session_id)

    def _placed(self, session_id: int, resource_name: str, applications: frozenset[str]) -> _Place:
        before = self._places.get(session_id)
        new = set(applications)
        if before is not None:
            new = set(applications - before.applications) | (before.pending & applications)
            self.forget(session_id)
        place = _Place(session_id=session_id, resource_name=resource_name, applications=applications, pending=new)
        if not self._stopped:
            self._places[session_id] = place
            for application in applications:
                for lines, key in self._places_in(place, application):
                    lines.setdefault(key, {})[session_id] = place
        return place

    def _places_in(self, place: _Place, application: str) -> tuple[tuple[dict[Any, dict[int, _Place]], Any], ...]:
        return (self._lines, application), (self._own_lines, (application, place.resource_name))

    def _line(self, offer: Offer) -> dict[int, _Place]:
        application, target = offer
        if target == ANY:
            return self._lines.get(application, {})
        return self._own_lines.get(offer, {})

    def _begin(self, offer: Offer) -> None:
        """A new job for whoever takes it."""
        round_ = self._rounds.get(offer)
        if round_ is None:
            round_ = self._rounds[offer] = _Round()
        round_.told.clear()
        round_.number = 1
        self._tell_next(offer, round_)
        if round_.due is None:
            self._later(round_)

    def _tell_next(self, offer: Offer, round_: _Round) -> bool:
        """Tell the first in the line who wait and have not been told; where nobody waits, all who may come back."""
        line = self._line(offer)
        chosen: list[int] = []
        for session_id, place in line.items():
            if place.waits and session_id not in round_.told:
                chosen.append(session_id)
                if len(chosen) == round_.number:
                    break
        for session_id in chosen:
            round_.told.add(session_id)
            # To the end of the line.
            line[session_id] = line.pop(session_id)
            line[session_id].tell(offer[0])
        if not chosen and not any(place.waits for place in line.values()):
            for place in line.values():
                place.tell(offer[0])
        return bool(chosen)

    def _later(self, round_: _Round) -> None:
        reactor = self._reactor()
        round_.due = reactor.seconds() + RETELL
        if self._timer is None or not self._timer.active():
            self._timer = reactor.callLater(RETELL, self._again)

    def _again(self) -> None:
        self._timer = None
        now = self._reactor().seconds()
        due = {
            offer: round_
            for offer, round_ in self._rounds.items()
            if round_.due is not None and round_.due <= now + TOGETHER
        }
        for round_ in due.values():
            round_.due = None
        if due:
            ensureDeferred(self._look_again(due)).addErrback(
                lambda failure: self._log.failure("looking for what is on offer", failure)
            )
        later = [round_.due for round_ in self._rounds.values() if round_.due is not None]
        if later and self._timer is None:
            self._timer = self._reactor().callLater(max(0.0, min(later) - now), self._again)

    async def _look_again(self, due: Mapping[Offer, _Round]) -> None:
        left: Collection[Offer] = ()
        try:
            left = await self._on_offer(due.keys())
        except LGIError as problem:
            # Such as a database that is away: who has been told asks by himself.
            self._log.warn("looking for what is on offer: {problem}", problem=problem)
        finally:
            for offer, round_ in due.items():
                if self._rounds.get(offer) is not round_ or round_.due is not None:
                    # It is over, or has begun anew.
                    continue
                if offer in left and self._tell_next(offer, round_):
                    round_.number *= 2
                    self._later(round_)
                else:
                    del self._rounds[offer]
