"""Signs of life are gathered, written together, and not lost by a database that is away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lgi.db.database import Database
from lgi.db.pulses import write_pulses
from lgi.errors import ErrorNumber, LGIError
from lgi.server.pulses import GATHER_SECONDS, Pulses

Times = dict[int, int]


class _Database:
    """Notes what it is to write, and fails or takes its time as the test says."""

    def __init__(self) -> None:
        self.written: list[tuple[Times, Times]] = []
        self.problem: Exception | None = None
        self.busy: Deferred[None] | None = None

    async def run(self, _name: str, function: object, jobs: Mapping[int, int], resources: Mapping[int, int]) -> None:
        assert function is write_pulses
        asked = dict(jobs), dict(resources)
        if self.busy is not None:
            await self.busy
        if self.problem is not None:
            raise self.problem
        self.written.append(asked)


class PulsesTests(SynchronousTestCase):
    """When what is written."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.database = _Database()
        self.pulses = Pulses(lambda: self.clock, cast(Database, self.database))

    def pass_by(self, seconds: float = GATHER_SECONDS) -> None:
        self.clock.advance(seconds)

    def hold(self) -> Deferred[None]:
        """Let what is written from now on wait for this."""
        self.database.busy = Deferred()
        return self.database.busy

    def stop(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.pulses.stop())

    def test_gathered(self) -> None:
        """All of a second at once, each thing once with the last it said, and then nothing more."""
        self.pulses.of_job(7, 100)
        self.pulses.of_resource(2, 100)
        self.pass_by(GATHER_SECONDS / 2)
        self.pulses.of_job(8, 100)
        self.pulses.of_job(7, 101)
        self.assertEqual(self.database.written, [])
        self.pass_by(GATHER_SECONDS / 2)
        self.assertEqual(self.database.written, [({7: 101, 8: 100}, {2: 100})])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.pulses.of_job(7, 105)
        self.pass_by()
        self.assertEqual(self.database.written[1:], [({7: 105}, {})])

    def test_stop(self) -> None:
        """What is left is written without waiting for its second, and nothing afterwards."""
        self.pulses.of_job(7, 100)
        self.successResultOf(self.stop())
        self.assertEqual(self.database.written, [({7: 100}, {})])
        self.pulses.of_job(7, 101)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.database.written), 1)

    def test_stop_with_nothing_to_write(self) -> None:
        self.successResultOf(self.stop())
        self.assertEqual(self.database.written, [])

    def test_one_writing_at_a_time(self) -> None:
        """What comes in during a writing is written after it."""
        busy = self.hold()
        self.pulses.of_job(7, 100)
        self.pass_by()
        self.pulses.of_job(7, 101)
        self.pulses.of_resource(2, 101)
        self.pass_by(3 * GATHER_SECONDS)
        self.database.busy = None
        busy.callback(None)
        self.assertEqual(self.database.written, [({7: 100}, {})])
        self.pass_by()
        self.assertEqual(self.database.written[1:], [({7: 101}, {2: 101})])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_during_a_writing(self) -> None:
        """It ends first, and what has come in meanwhile is written too."""
        busy = self.hold()
        self.pulses.of_job(7, 100)
        self.pass_by()
        self.pulses.of_job(8, 101)
        stopped = self.stop()
        self.assertNoResult(stopped)
        self.database.busy = None
        busy.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.database.written, [({7: 100}, {}), ({8: 101}, {})])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_database_is_away(self) -> None:
        """It is tried again, with the latest of each, until it is back."""
        self.database.problem = LGIError(ErrorNumber.OVERLOADED)
        self.pulses.of_job(7, 100)
        self.pulses.of_job(8, 100)
        self.pulses.of_resource(2, 100)
        self.pass_by()
        self.pulses.of_job(7, 101)
        for _ in range(3):
            self.pass_by()
        self.assertEqual(self.database.written, [])
        self.database.problem = None
        self.pass_by()
        self.assertEqual(self.database.written, [({7: 101, 8: 100}, {2: 100})])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_comes_in_while_it_goes_away(self) -> None:
        """The attempt that fails is older than what has come in during it."""
        busy = self.hold()
        self.database.problem = LGIError(ErrorNumber.OVERLOADED)
        self.pulses.of_job(7, 100)
        self.pulses.of_resource(2, 100)
        self.pass_by()
        self.pulses.of_job(7, 105)
        self.pulses.of_resource(2, 105)
        self.database.busy = None
        busy.callback(None)
        self.database.problem = None
        self.pass_by()
        self.assertEqual(self.database.written, [({7: 105}, {2: 105})])

    def test_stop_while_it_is_away(self) -> None:
        """The end of the server does not wait for it."""
        self.database.problem = LGIError(ErrorNumber.OVERLOADED)
        self.pulses.of_job(7, 100)
        self.successResultOf(self.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_mistake(self) -> None:
        """An error that nobody expects is logged, and the next are written."""
        self.database.problem = ValueError("what is this?")
        self.pulses.of_job(7, 100)
        self.pass_by()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.database.problem = None
        self.pulses.of_job(8, 101)
        self.pass_by()
        self.assertEqual(self.database.written, [({8: 101}, {})])

    def test_mistake_at_the_end(self) -> None:
        """The server ends all the same."""
        self.database.problem = ValueError("what is this?")
        self.pulses.of_job(7, 100)
        self.successResultOf(self.stop())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
