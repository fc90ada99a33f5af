"""Asking again: when, how often, and when not."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lgi.client.answers import ServerRefused, ServerUnreachable
from lgi.client.patience import Patience
from lgi.errors import ErrorNumber

BUSY = ServerRefused(ErrorNumber.OVERLOADED, "busy", 10)


class PatienceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.outcomes: list[Exception | str] = []
        self.times: list[float] = []
        self.notes: list[str] = []

    async def call(self) -> str:
        self.times.append(self.clock.seconds())
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def ask(
        self, *outcomes: Exception | str, busy: float = 60, unreachable: float = 0, chance: float = 0
    ) -> Deferred[str]:
        self.outcomes = list(outcomes)
        self.patience = Patience(
            self.clock, busy=busy, unreachable=unreachable, note=self.notes.append, chance=lambda: chance
        )
        return Deferred.fromCoroutine(self.patience.ask(self.call))

    def test_back_off_takes_the_time_that_the_server_says(self) -> None:
        asking = self.ask(BUSY, BUSY, "done")
        self.clock.pump([9.5, 0.5, 9.5, 0.5])
        self.assertEqual(self.successResultOf(asking), "done")
        self.assertEqual(self.times, [0, 10, 20])
        self.assertEqual(self.notes, ["busy (error 1); still trying for 60 s"])

    def test_patience_ends_with_one_last_attempt(self) -> None:
        asking = self.ask(BUSY, busy=25)
        self.clock.pump([1] * 30)
        self.assertIs(self.failureResultOf(asking).value, BUSY)
        self.assertEqual(self.times, [0, 10, 20, 25])

    def test_senseless_times_are_bounded(self) -> None:
        asking = self.ask(ServerRefused(1, "", 0), ServerRefused(1, "", 10**9), "done", busy=1000)
        self.clock.pump([0.5, 60])
        self.assertEqual(self.successResultOf(asking), "done")

    def test_other_refusals_are_final(self) -> None:
        refused = ServerRefused(ErrorNumber.JOB_UNKNOWN, "no such job")
        self.assertIs(self.failureResultOf(self.ask(refused)).value, refused)
        self.assertEqual((self.times, self.notes), ([0], []))

    def test_outage_is_final_unless_a_repetition_does_no_harm(self) -> None:
        down = ServerUnreachable("down")
        self.assertIs(self.failureResultOf(self.ask(down)).value, down)
        self.assertEqual(self.times, [0])

    def test_outage_that_passes(self) -> None:
        down = ServerUnreachable("down")
        asking = self.ask(down, down, down, "up", unreachable=60)
        self.clock.pump([0.25] * 40)
        self.assertEqual(self.successResultOf(asking), "up")
        self.assertEqual(self.times, [0, 0.5, 1.5, 3.5])
        self.assertEqual(self.notes, ["down; still trying for 60 s"])

    def test_outage_that_lasts(self) -> None:
        asking = self.ask(ServerUnreachable("down"), unreachable=60)
        self.clock.pump([0.25] * 300)
        self.failureResultOf(asking, ServerUnreachable)
        self.assertEqual((self.times[-1], self.clock.getDelayedCalls()), (60, []))

    def test_each_outage_is_noted_anew(self) -> None:
        down = ServerUnreachable("down")
        self.ask(down, "up", unreachable=60)
        self.clock.pump([0.5])
        self.outcomes = [down, "up"]
        again = Deferred.fromCoroutine(self.patience.ask(self.call))
        self.clock.pump([0.5])
        self.successResultOf(again)
        self.assertEqual(len(self.notes), 2)

    def test_clients_turned_away_together_come_back_one_by_one(self) -> None:
        down = ServerUnreachable("down")
        self.ask(BUSY, down, down, "up", unreachable=60, chance=0.5)
        self.clock.pump([0.125] * 120)
        # Never before the time that the server says; after an outage at any time in the second half of the pause.
        self.assertEqual(self.times, [0, 10.5, 10.875, 11.625])

    def test_what_is_bound_to_fail_again_is_not_repeated(self) -> None:
        wrong = ServerUnreachable("the certificate is not for this host", lasting=True)
        self.assertIs(self.failureResultOf(self.ask(wrong, "up", unreachable=60)).value, wrong)
        self.assertEqual(self.times, [0])

    def test_cancelling(self) -> None:
        asking = self.ask(BUSY)
        asking.cancel()
        self.failureResultOf(asking, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
