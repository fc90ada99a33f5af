"""Job states and the one table of what may follow what.

LGI 1.41, Job locking mechanism, interface_delete_job and Resource daemon.
"""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class JobState(StrEnum):
    """The states a job is stored in; `DELETED` is only ever said in an answer and in the record of jobs."""

    QUEUED = "queued"
    RUNNING = "running"
    ABORTING = "aborting"
    ABORTED = "aborted"
    FINISHED = "finished"
    DELETED = "deleted"


@unique
class Actor(StrEnum):
    """Who may change a job."""

    RESOURCE = "resource"
    INTERFACE = "interface"
    SCHEDULER = "scheduler"
    ADMINISTRATOR = "administrator"


@unique
class JobEvent(StrEnum):
    """What may happen to a job."""

    START = "start"
    RETURN = "return"
    FINISH = "finish"
    ABORT = "abort"
    DELETE = "delete"
    PULSE_LOST = "pulse lost"


_S, _A, _E = JobState, Actor, JobEvent

TRANSITIONS: dict[tuple[JobState, JobEvent, Actor], JobState] = {
    (_S.QUEUED, _E.START, _A.RESOURCE): _S.RUNNING,
    (_S.QUEUED, _E.FINISH, _A.RESOURCE): _S.FINISHED,
    (_S.QUEUED, _E.ABORT, _A.RESOURCE): _S.ABORTED,
    (_S.RUNNING, _E.FINISH, _A.RESOURCE): _S.FINISHED,
    (_S.RUNNING, _E.ABORT, _A.RESOURCE): _S.ABORTED,
    (_S.RUNNING, _E.RETURN, _A.RESOURCE): _S.QUEUED,
    (_S.ABORTING, _E.FINISH, _A.RESOURCE): _S.FINISHED,
    (_S.ABORTING, _E.ABORT, _A.RESOURCE): _S.ABORTED,
    (_S.QUEUED, _E.DELETE, _A.INTERFACE): _S.DELETED,
    (_S.FINISHED, _E.DELETE, _A.INTERFACE): _S.DELETED,
    (_S.ABORTED, _E.DELETE, _A.INTERFACE): _S.DELETED,
    (_S.RUNNING, _E.DELETE, _A.INTERFACE): _S.ABORTING,
    (_S.ABORTING, _E.DELETE, _A.INTERFACE): _S.ABORTING,
    (_S.QUEUED, _E.ABORT, _A.INTERFACE): _S.ABORTED,
    (_S.RUNNING, _E.ABORT, _A.INTERFACE): _S.ABORTING,
    (_S.RUNNING, _E.PULSE_LOST, _A.SCHEDULER): _S.QUEUED,
    (_S.ABORTING, _E.PULSE_LOST, _A.SCHEDULER): _S.ABORTED,
    (_S.RUNNING, _E.RETURN, _A.ADMINISTRATOR): _S.QUEUED,
    (_S.QUEUED, _E.ABORT, _A.ADMINISTRATOR): _S.ABORTED,
    (_S.RUNNING, _E.ABORT, _A.ADMINISTRATOR): _S.ABORTING,
    (_S.FINISHED, _E.DELETE, _A.ADMINISTRATOR): _S.DELETED,
    (_S.ABORTED, _E.DELETE, _A.ADMINISTRATOR): _S.DELETED,
}

# What a resource means by the state it posts in resource_update_job.
POSTED_STATE_EVENTS: dict[JobState, JobEvent] = {
    _S.RUNNING: _E.START,
    _S.QUEUED: _E.RETURN,
    _S.FINISHED: _E.FINISH,
    _S.ABORTED: _E.ABORT,
}

TERMINAL = frozenset({_S.FINISHED, _S.ABORTED})
SUBMITTABLE = frozenset({_S.QUEUED, _S.RUNNING, _S.FINISHED})
"""The states in which a resource may submit a job (a running or a finished storage job among them)."""


class TransitionRefused(ValueError):
    """A change that the table does not have; the message says which."""


def next_state(state: JobState, event: JobEvent, actor: Actor) -> JobState:
    """The state that follows; raises TransitionRefused where the table has no entry."""
    try:
        return TRANSITIONS[state, event, actor]
    except KeyError:
        raise TransitionRefused(f"a job that is {state} cannot be changed by '{event}' of a {actor}") from None


def posted_state(state: JobState, posted: JobState) -> JobState:
    """The state after a resource posts `posted` for a job in `state`; posting the same state changes nothing."""
    if posted is state:
        return state
    if posted not in POSTED_STATE_EVENTS:
        raise TransitionRefused(f"a resource cannot put a job into the state {posted}")
    return next_state(state, POSTED_STATE_EVENTS[posted], Actor.RESOURCE)
