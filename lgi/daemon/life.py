"""The life of one job as a state machine: what has been learnt, and the step that follows.

LGI 1.41, Resource daemon. It does nothing itself. Two sides tell it things: the server's answers, and the outcomes of
steps. Where the server's word comes while a step is under way, the step that follows is the one after the server's
word, and the outcome is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto, unique
from typing import Protocol

import attrs
from automat import TypeMachineBuilder


@unique
class Step(Enum):
    """What to do next for the job."""

    NOTHING = auto()
    INSPECT = auto()
    PROLOGUE = auto()
    RUN = auto()
    EPILOGUE = auto()
    REPORT_FINISHED = auto()
    ABORT = auto()
    REPORT_ABORTED = auto()
    STOP = auto()
    REMOVE = auto()


@attrs.frozen
class Outlook:
    """What to do next for the job, whether nothing will ever happen to it here, and which words change that."""

    step: Step
    ended: bool
    heeded: frozenset[Word]


class Words(Protocol):
    """What may be told about a job; each is answered with what follows."""

    def accepted(self) -> Outlook:
        """The server says: running, and ours."""

    def abort(self) -> Outlook:
        """The server says: aborting, and ours."""

    def lost(self) -> Outlook:
        """The server says: not ours."""

    def closed(self) -> Outlook:
        """The server says: finished or aborted, and ours: the report had arrived."""

    def look(self) -> Outlook:
        """It is time to look whether the run script still runs."""

    def found_running(self) -> Outlook:
        """It runs."""

    def found_finished(self) -> Outlook:
        """It does not run, and the job is finished."""

    def found_idle(self) -> Outlook:
        """It does not run, and the job is not finished."""

    def prepared(self) -> Outlook:
        """The prologue is done."""

    def started(self) -> Outlook:
        """The run script runs."""

    def wrapped(self) -> Outlook:
        """The epilogue is done."""

    def stopped(self) -> Outlook:
        """Nothing of the job runs any more."""

    def reported(self) -> Outlook:
        """The server has accepted the report."""

    def removed(self) -> Outlook:
        """The directory is gone."""

    def tampered(self) -> Outlook:
        """A file of the job is not what the daemon wrote."""


Word = Callable[[Words], Outlook]
"""One of them, such as `Words.accepted`."""


@attrs.frozen
class _Nothing:
    """The machine needs nothing but its state."""


_builder = TypeMachineBuilder(Words, _Nothing)
_unsure = _builder.state("unsure")  # complete on disk, but the server has not yet said that the job is ours
_resting = _builder.state("resting")
_preparing = _builder.state("preparing")
_starting = _builder.state("starting")
_running = _builder.state("running")
_finishing = _builder.state("finishing")
_reporting = _builder.state("reporting")
_aborting = _builder.state("aborting")
_reporting_abort = _builder.state("reporting the abort")
_dropping = _builder.state("dropping")
_removing = _builder.state("removing")
_gone = _builder.state("gone")
_refused = _builder.state("refused")

_STEPS = {
    _unsure: Step.NOTHING,
    _resting: Step.INSPECT,
    _preparing: Step.PROLOGUE,
    _starting: Step.RUN,
    _running: Step.NOTHING,
    _finishing: Step.EPILOGUE,
    _reporting: Step.REPORT_FINISHED,
    _aborting: Step.ABORT,
    _reporting_abort: Step.REPORT_ABORTED,
    _dropping: Step.STOP,
    _removing: Step.REMOVE,
    _gone: Step.NOTHING,
    _refused: Step.NOTHING,
}
_MOVES = {
    (_unsure, Words.accepted): _resting,
    (_resting, Words.found_running): _running,
    (_resting, Words.found_finished): _finishing,
    (_resting, Words.found_idle): _preparing,
    (_preparing, Words.prepared): _starting,
    (_starting, Words.started): _running,
    (_starting, Words.found_running): _running,
    (_running, Words.look): _resting,
    (_finishing, Words.wrapped): _reporting,
    (_reporting, Words.reported): _removing,
    (_aborting, Words.stopped): _reporting_abort,
    (_reporting_abort, Words.reported): _removing,
    (_dropping, Words.stopped): _removing,
    (_removing, Words.removed): _gone,
}
_AT_WORK = (_unsure, _resting, _preparing, _starting, _running, _finishing)
_HELD = (*_AT_WORK, _reporting, _aborting, _reporting_abort)
_MOVES |= {(state, Words.abort): _aborting for state in _AT_WORK}  # a finished job is reported as that all the same
_MOVES |= {(state, Words.lost): _dropping for state in _HELD}
_MOVES |= {(state, Words.closed): _dropping for state in _HELD}
_MOVES |= {(state, Words.tampered): _refused for state in (*_HELD, _dropping)}
# What may come at any time: where it changes nothing the machine, which looks for a word among all, is not told.
_AT_ANY_TIME = frozenset({Words.accepted, Words.abort, Words.lost, Words.closed, Words.look, Words.tampered})

_outlooks = {
    state: Outlook(step, state in (_gone, _refused), frozenset(word for at, word in _MOVES if at is state))
    for state, step in _STEPS.items()
}
for (_state, _word), _next in _MOVES.items():
    _state.upon(_word).to(_next).returns(_outlooks[_next])

_machine = _builder.build()


class Life:
    """The life of a job."""

    def __init__(self, machine: Words, outlook: Outlook) -> None:
        self._machine = machine
        self._outlook = outlook

    def tell(self, word: Word) -> None:
        """Say one of `Words` to it."""
        if word in _AT_ANY_TIME and word not in self._outlook.heeded:
            return
        said: Callable[[], Outlook] = getattr(self._machine, word.__name__)
        self._outlook = said()

    def step(self) -> Step:
        """What to do next."""
        return self._outlook.step

    def ended(self) -> bool:
        """Whether nothing will ever happen to it here."""
        return self._outlook.ended


def new_life() -> Life:
    """The life of a job whose directory is complete, before the server has said that it is ours."""
    return Life(_machine(_Nothing()), _outlooks[_unsure])


def resumed_life() -> Life:
    """The life of a job that the server once said is ours, as a new daemon finds it."""
    return Life(_machine(_Nothing(), _resting), _outlooks[_resting])
