"""What all witnesses together say of a job."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lgi.batch.values import State, Status
from lgi.batch.verdict import combined, left_behind, verdict
from lgi.batch.wrapper import Exit


def queued(state: State, **known: Any) -> Status:
    return Status(state=state, **known)


class VerdictTests(SynchronousTestCase):
    def says(self, state: State, **witnesses: Any) -> None:
        self.assertEqual(verdict(**witnesses).state, state, witnesses)

    def test_exit_file_is_the_first_witness(self) -> None:
        self.says(State.FINISHED, exit_file=Exit(code=0))
        self.says(State.FAILED, exit_file=Exit(code=3))
        self.says(State.FINISHED, exit_file=Exit(code=0), queued=queued(State.RUNNING))
        self.says(State.FINISHED, exit_file=Exit(code=0), queued=queued(State.FAILED))
        self.says(State.FINISHED, exit_file=Exit(code=0), cancelled=True)
        self.assertEqual(verdict(exit_file=Exit(code=143)).signal, 15)

    def test_exit_file_of_an_earlier_run_is_none(self) -> None:
        self.says(State.PENDING, exit_file=Exit(code=0), queued=queued(State.PENDING))
        self.says(State.RUNNING, exit_file=Exit(code=143, caught="TERM"), queued=queued(State.RUNNING))
        self.says(State.RUNNING, exit_file=Exit(code=137), queued=queued(State.RUNNING))
        self.says(State.RUNNING, exit_file=Exit(code=0, restarts=0), queued=queued(State.RUNNING, restarts=1))
        self.says(State.RUNNING, exit_file=Exit(code=143, restarts=0), queued=queued(State.RUNNING, restarts=0))
        self.says(State.FINISHED, exit_file=Exit(code=0, restarts=1), queued=queued(State.RUNNING, restarts=1))
        self.says(State.FAILED, exit_file=Exit(code=0, restarts=0), queued=queued(State.FAILED, restarts=1))
        self.assertFalse(left_behind(None, queued(State.RUNNING)))

    def test_cancelled(self) -> None:
        self.says(State.CANCELLED, exit_file=Exit(code=143), queued=queued(State.CANCELLED))
        self.says(State.CANCELLED, exit_file=Exit(code=143), accounted=queued(State.CANCELLED))
        self.says(State.CANCELLED, exit_file=Exit(code=143), cancelled=True)
        self.says(State.CANCELLED, queued=queued(State.FAILED), cancelled=True)
        self.says(State.CANCELLED, cancelled=True)
        self.says(State.RUNNING, queued=queued(State.RUNNING), cancelled=True)

    def test_absence_proves_nothing(self) -> None:
        self.says(State.UNKNOWN)
        self.says(State.UNKNOWN, missing=299.0)
        self.says(State.LOST, missing=300.0)
        self.says(State.FINISHED, missing=1000.0, accounted=queued(State.FINISHED, exit_code=0))
        self.says(State.FINISHED, missing=1000.0, exit_file=Exit(code=0))

    def test_word_that_nobody_knows_is_no_end(self) -> None:
        self.says(State.UNKNOWN, queued=queued(State.UNKNOWN), missing=1000.0)

    def test_array_is_over_when_all_its_tasks_are(self) -> None:
        done, failed = queued(State.FINISHED, exit_code=0), queued(State.FAILED, exit_code=3)
        for tasks, state in (
            ([done, queued(State.RUNNING), failed], State.RUNNING),
            ([done, queued(State.PENDING)], State.PENDING),
            ([done, queued(State.UNKNOWN), failed], State.UNKNOWN),
            ([done, queued(State.LOST)], State.LOST),
            ([done, failed], State.FAILED),
            ([done, done], State.FINISHED),
        ):
            self.assertEqual(combined(tasks).state, state)
        self.assertEqual(combined([done, failed, queued(State.FAILED, exit_code=9)]).exit_code, 9)
