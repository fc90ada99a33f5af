"""Resources that wait for work: each is told when there is some, one of them for each new job.

What is told is a hint to ask for work, nothing is promised by it: whoever asks first gets the job. So a resource that
was told and takes nothing costs the job a second, after which the next one in the line is told, and a hint that is
lost costs it until a resource asks by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger

from lgi.lists import ANY

RETELL = 1.0
"""Seconds in which a resource that was told takes the job, or another one is told."""
LINGER = 120.0
"""Seconds for which what comes is kept for a session that does not wait just now."""


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
    """Who has been told of an application's work since the last new job."""

    told: set[int] = attrs.Factory(set)
    timer: Any = None


class Waiting:
    """The sessions of one project that wait in this process.

    `on_offer` says whether anything of an application is on offer to any resource; `reactor` is asked for when it is
    first needed.
    """

    _log = Logger()

    def __init__(self, reactor: Callable[[], Any], on_offer: Callable[[str], Awaitable[bool]]) -> None:
        self._reactor = reactor
        self._on_offer = on_offer
        self._places: dict[int, _Place] = {}
        self._lines: dict[str, dict[int, _Place]] = {}
        self._by_name: dict[str, set[int]] = {}
        self._rounds: dict[str, _Round] = {}
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

    def tell(self, offers: Iterable[tuple[str, str]]) -> None:
        """There is something new to take: (application, target resource or `any`)."""
        for application, target in offers:
            line = self._lines.get(application, {})
            if target == ANY:
                if line:
                    self._begin(application)
                continue
            for session_id in self._by_name.get(target, ()):
                if session_id in line:
                    line[session_id].tell(application)

    def forget(self, session_id: int) -> None:
        """The session is over, or nobody is there any more."""
        place = self._places.pop(session_id, None)
        if place is None:
            return
        for application in place.applications:
            line = self._lines[application]
            del line[session_id]
            if not line:
                del self._lines[application]
        names = self._by_name[place.resource_name]
        names.remove(session_id)
        if not names:
            del self._by_name[place.resource_name]
        if place.end is not None and place.end.active():
            place.end.cancel()
        if place.waits and place.held is not None:
            place.held.callback(None)

    def stop(self) -> None:
        """Let nobody wait any more."""
        self._stopped = True
        for round_ in self._rounds.values():
            if round_.timer is not None and round_.timer.active():
                round_.timer.cancel()
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
                self._lines.setdefault(application, {})[session_id] = place
            self._by_name.setdefault(resource_name, set()).add(session_id)
        return place

    def _begin(self, application: str) -> None:
        """A new job for whoever takes it."""
        round_ = self._rounds.get(application)
        if round_ is None:
            round_ = self._rounds[application] = _Round()
        round_.told.clear()
        self._tell_next(application, round_)
        if round_.timer is None or not round_.timer.active():
            round_.timer = self._reactor().callLater(RETELL, self._again, application)

    def _tell_next(self, application: str, round_: _Round) -> bool:
        """Tell the first in the line who waits and has not been told; where nobody waits, all who may come back."""
        line = self._lines.get(application, {})
        for session_id, place in line.items():
            if place.waits and session_id not in round_.told:
                round_.told.add(session_id)
                # To the end of the line.
                line[session_id] = line.pop(session_id)
                place.tell(application)
                return True
        if not any(place.waits for place in line.values()):
            for place in line.values():
                place.tell(application)
        return False

    def _again(self, application: str) -> None:
        ensureDeferred(self._look_again(application)).addErrback(
            lambda failure: self._log.failure("looking for work of {application}", failure, application=application)
        )

    async def _look_again(self, application: str) -> None:
        round_ = self._rounds.get(application)
        if round_ is None:
            return
        left = await self._on_offer(application)
        if self._rounds.get(application) is not round_ or (round_.timer is not None and round_.timer.active()):
            return
        if left and self._tell_next(application, round_):
            round_.timer = self._reactor().callLater(RETELL, self._again, application)
        else:
            del self._rounds[application]
