"""Job states."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lgi.states import (
    POSTED_STATE_EVENTS,
    SUBMITTABLE,
    TERMINAL,
    TRANSITIONS,
    Actor,
    JobEvent,
    JobState,
    TransitionRefused,
    next_state,
    posted_state,
)
from tests.strategies import events

# The document's rules in words: state, event, actor, next state.
EXPECTED = """
queued start resource running
queued finish resource finished
queued abort resource aborted
running finish resource finished
running abort resource aborted
running return resource queued
aborting finish resource finished
aborting abort resource aborted
queued delete interface deleted
finished delete interface deleted
aborted delete interface deleted
running delete interface aborting
aborting delete interface aborting
queued abort interface aborted
running abort interface aborting
running pulse_lost scheduler queued
aborting pulse_lost scheduler aborted
running return administrator queued
queued abort administrator aborted
running abort administrator aborting
finished delete administrator deleted
aborted delete administrator deleted
"""


class TransitionTests(SynchronousTestCase):
    """What may follow what, and nothing else."""

    def setUp(self) -> None:
        rows = [line.split() for line in EXPECTED.split("\n") if line]
        self.expected = {
            (JobState(state), JobEvent(event.replace("_", " ")), Actor(actor)): JobState(following)
            for state, event, actor, following in rows
        }

    def test_every_triple(self) -> None:
        for triple in product(JobState, JobEvent, Actor):
            if triple in self.expected:
                self.assertIs(next_state(*triple), self.expected[triple], triple)
            else:
                error = self.assertRaises(TransitionRefused, next_state, *triple)
                for part in triple:
                    self.assertIn(str(part), str(error))
        self.assertEqual(TRANSITIONS, self.expected)

    def test_terminal_states_are_left_by_deletion_only(self) -> None:
        self.assertEqual(TERMINAL, {JobState.FINISHED, JobState.ABORTED})
        for (state, event, _actor), following in TRANSITIONS.items():
            if state in TERMINAL:
                self.assertEqual((event, following), (JobEvent.DELETE, JobState.DELETED))
        self.assertFalse([state for state, _event, _actor in TRANSITIONS if state is JobState.DELETED])

    def test_submittable_states(self) -> None:
        self.assertEqual(SUBMITTABLE, {JobState.QUEUED, JobState.RUNNING, JobState.FINISHED})

    @given(st.lists(events, max_size=12))
    def test_whatever_happens_a_job_stays_in_a_known_state(self, happenings: list[tuple[JobEvent, Actor]]) -> None:
        state, ended = JobState.QUEUED, False
        for event, actor in happenings:
            try:
                state = next_state(state, event, actor)
            except TransitionRefused:
                continue
            self.assertFalse(ended and state is not JobState.DELETED)
            ended = ended or state in TERMINAL or state is JobState.DELETED


class PostedStateTests(SynchronousTestCase):
    """What a resource posts in resource_update_job."""

    def test_every_pair(self) -> None:
        for state, posted in product(JobState, JobState):
            if posted is state:
                self.assertIs(posted_state(state, posted), state)
                continue
            event = POSTED_STATE_EVENTS.get(posted)
            if event is not None and (state, event, Actor.RESOURCE) in TRANSITIONS:
                self.assertIs(posted_state(state, posted), posted)
            else:
                self.assertRaises(TransitionRefused, posted_state, state, posted)

    def test_a_resource_cannot_undo_an_abort_or_revive_a_job(self) -> None:
        for state, posted in (
            ("aborting", "running"),
            ("aborting", "queued"),
            ("finished", "running"),
            ("finished", "queued"),
            ("aborted", "queued"),
            ("aborted", "finished"),
            ("queued", "aborting"),
            ("running", "aborting"),
            ("running", "deleted"),
            ("finished", "deleted"),
        ):
            self.assertRaises(TransitionRefused, posted_state, JobState(state), JobState(posted))
