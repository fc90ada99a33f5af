"""The daemon is killed at every step and started again: each job is finished once, with one result."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from lgi.daemon.jobdir import RUN_PID
from lgi.daemon.runscript import watch
from lgi.states import JobState
from lgi.wire.specifics import with_tags
from tests.unit.daemon.rig import Rig, Tap, lives
from tests.unit.daemon.server import FakeServer, Killed
from tests.unit.daemon.test_daemon import FOREIGN, DaemonTestCase


class KilledTests(DaemonTestCase):
    def prepared(self) -> tuple[FakeServer, Rig, Tap]:
        server, tap = FakeServer(), self.tap()
        server.submit()
        return server, self.waiting_rig(server, tap), tap

    async def test_a_running_job_is_found_again(self) -> None:
        server, rig, tap = self.prepared()
        await rig.go()
        pid = int((rig.job / RUN_PID).read_text())
        await rig.restart()
        await rig.turn(2)
        self.assertTrue(lives(pid))
        tap.open()
        # No cycle passes: the end of a process that is not our child is noticed too.
        await self.finish(rig, server)
        self.assertEqual(self.number_of_runs(), 1)
        self.assertEqual(server.jobs[12].output, b"21 \x00 \xff")

    async def test_a_job_that_ended_meanwhile_is_reported(self) -> None:
        server, rig, tap = self.prepared()
        await rig.go()
        rig.kill()
        await self.ended(rig, tap)
        rig.start()
        await rig.go()
        await self.finish(rig, server)
        self.assertEqual(self.number_of_runs(), 1)

    async def ended(self, rig: Rig, tap: Tap) -> None:
        """Let the job end with no daemon there."""
        pid = int((rig.job / RUN_PID).read_text())
        done: Deferred[None] = Deferred()
        self.assertIsNotNone(watch(reactor, pid, lambda: done.callback(None)))
        tap.open()
        await done

    async def test_a_prologue_that_goes_on_is_waited_for(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        log = Path(self.mktemp()).absolute()
        prologue = f"echo begin >>'{log}'; [ -e once ] || {{ touch once; {tap.wait}; }}; echo end >>'{log}'"
        rig = self.rig(server, job_prologue_script=prologue)
        rig.daemon.start()
        while not log.exists():
            await deferLater(reactor, 0)
        former = rig.tasks
        rig.kill()
        server.expire()
        rig.start()
        await rig.go()
        await rig.turn(3)
        self.assertEqual(log.read_text(), "begin\n")
        tap.open()
        await former.idle()
        while server.jobs[12].state is not JobState.FINISHED:
            await rig.turn()
        await self.finish(rig, server)
        self.assertEqual(log.read_text(), "begin\nend\n" * 2)

    async def test_requeued_while_the_daemon_was_away(self) -> None:
        server, rig, tap = self.prepared()
        await rig.go()
        rig.kill()
        server.lose_pulse(12)
        rig.start()
        await rig.go()
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        tap.open()
        await self.finish(rig, server)
        self.assertEqual(self.number_of_runs(), 1)

    async def test_taken_over_while_the_daemon_was_away(self) -> None:
        server, rig, _tap = self.prepared()
        await rig.go()
        pid = int((rig.job / RUN_PID).read_text())
        rig.kill()
        server.expire()
        server.change(12, job_specifics=with_tags(server.jobs[12].job_specifics, daemon_reference=FOREIGN))
        rig.start()
        await rig.go()
        self.assertEqual(rig.jobs(), [])
        self.assertFalse(lives(pid))
        self.assertEqual(server.jobs[12].output, b"")

    async def test_nothing_is_started_before_the_server_has_said_that_it_is_still_ours(self) -> None:
        server, rig, tap = self.prepared()
        server.after = _killed_at("update", 1)  # accepted, and killed before anything has run
        await rig.go()
        rig.kill()
        self.flushLoggedErrors(Killed)
        server.down()
        rig.start()
        await rig.go()
        await rig.turn(3)
        self.assertEqual(self.number_of_runs(), 0)
        server.up()
        server.expire()
        tap.open()
        await rig.turn()
        await self.finish(rig, server)

    async def survives(self, server: FakeServer, rig: Rig) -> None:
        """Restart a daemon that was killed in a hook, and see the job to its end."""
        rig.kill()
        self.flushLoggedErrors(Killed)
        server.up()
        server.expire()
        rig.start()
        await rig.go()
        while server.jobs[12].state is not JobState.FINISHED or rig.jobs():
            await rig.turn()
        self.assertEqual(rig.jobs() + rig.leftovers(), [])

    async def test_killed_around_any_call(self) -> None:
        for name, number in (("request_work", 1), ("update", 1), ("unlock", 1), ("signoff", 1), ("lock", 1)):
            for moment in ("before", "after"):
                server, rig, tap = self.prepared()
                tap.open()
                setattr(server, moment, _killed_at(name, number))
                rig.daemon.start()
                await rig.tasks.idle()
                await self.survives(server, rig)
                self.assertEqual(self.number_of_runs(), 1, f"{moment} {name}")
                self.assertEqual(server.jobs[12].output, b"21 \x00 \xff")

    async def test_killed_around_the_report(self) -> None:
        for moment in ("before", "after"):
            server, rig, tap = self.prepared()
            tap.open()
            setattr(server, moment, _killed_at("update", 2))
            rig.daemon.start()
            await rig.tasks.idle()
            if server.said.count("update") < 2:
                await server.called("update")
                await rig.tasks.idle()
            await self.survives(server, rig)
            self.assertEqual(self.number_of_runs(), 1, moment)

    async def test_killed_before_any_write_reaches_the_disk(self) -> None:
        fsync = os.fsync
        counter = [0, 0]

        def killing(descriptor: int) -> None:
            counter[0] += 1
            if counter[0] == counter[1]:
                raise Killed
            fsync(descriptor)

        self.patch(os, "fsync", killing)
        number = 57  # those before are alike: the job's directory is being made
        while True:
            server, rig, tap = self.prepared()
            tap.open()
            counter[:] = [0, number]
            rig.daemon.start()
            await rig.tasks.idle()
            reached = counter[0] >= number
            if not reached:
                await self.finish(rig, server)
                break
            counter[1] = -1
            await self.survives(server, rig)
            self.assertEqual(self.number_of_runs(), 1, f"killed at write {number}")
            self.assertEqual(server.jobs[12].output, b"21 \x00 \xff", f"killed at write {number}")
            await rig.clean_up()
            number += 1
        self.assertGreater(number, 70)


def _killed_at(name: str, number: int) -> Callable[[str], None]:
    count = [0]

    def hook(called: str) -> None:
        if called == name:
            count[0] += 1
            if count[0] == number:
                raise Killed

    return hook
