"""The output of a running job, for those who follow it."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from lgi.daemon.jobdir import OUTPUT
from lgi.errors import ErrorNumber
from lgi.states import JobState
from tests.unit.daemon.rig import CYCLE, Rig, Tap
from tests.unit.daemon.server import FakeServer, refused
from tests.unit.daemon.test_daemon import DaemonTestCase


class LiveOutputTests(DaemonTestCase):
    async def running(self, server: FakeServer) -> tuple[Rig, Tap, Path]:
        """A job that has written a line and goes on when the tap is opened; and its output's file."""
        tap = self.tap()
        server.submit()
        rig = self.rig(server, job_run_script=f"echo one >LGI_output; {tap.wait}; echo two >>LGI_output")
        await rig.go()
        await server.becomes(12, JobState.RUNNING)
        output = rig.jobs()[0] / OUTPUT
        while not (output.exists() and output.stat().st_size):
            await deferLater(reactor, 0.01)
        return rig, tap, output

    def posts(self, server: FakeServer) -> int:
        return server.said.count("update")

    async def test_told_while_it_runs_and_only_when_it_has_changed(self) -> None:
        server = FakeServer()
        rig, tap, _output = await self.running(server)
        await rig.turn(2)
        self.assertEqual((server.jobs[12].output, server.jobs[12].state), (b"one\n", JobState.RUNNING))
        self.assertEqual((server.locks, server.sessions), ({}, {}))
        posts = self.posts(server)
        await rig.turn(4)
        self.assertEqual(self.posts(server), posts)
        tap.open()
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"one\ntwo\n")

    async def test_why_it_does_not_begin(self) -> None:
        """A prologue that keeps failing is told to the job's owner, who sees nothing else of the daemon."""
        server = FakeServer()
        server.submit()
        tap = self.tap()
        rig = self.rig(
            server,
            job_prologue_script="[ -e ready ] || { echo no licence is free; exit 1; }",
            job_run_script=f"{tap.wait}; echo done >LGI_output",
        )
        await rig.go()
        await rig.turn(8)
        self.assertIn(b"no licence is free", server.jobs[12].output or b"")
        (rig.jobs()[0] / "ready").touch()
        while not any(rig.run.glob("*/*/JOB_*/LGI_job_run_script_pid")):
            await rig.turn(4)
        await rig.turn(4)
        self.assertEqual(server.jobs[12].output, b"")
        tap.open()
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"done\n")

    async def test_what_runs_for_long_is_told_less_often(self) -> None:
        server = FakeServer()
        rig, tap, output = await self.running(server)
        for number in range(200):
            with output.open("a") as file:
                file.write(f"line {number}\n")
            await rig.turn()
        self.assertGreater(self.posts(server), 10)
        self.assertLess(self.posts(server), 50, f"in {200 * CYCLE} seconds")
        tap.open()
        await self.finish(rig, server)

    async def test_somebody_else_holds_the_lock(self) -> None:
        server = FakeServer()
        rig, tap, _output = await self.running(server)

        def locked(name: str) -> None:
            if name == "lock":
                raise refused(ErrorNumber.LOCK_REFUSED)

        server.before = locked
        await rig.turn(3)
        self.assertEqual(server.jobs[12].output, b"")
        server.up()
        await rig.turn(2)
        self.assertEqual(server.jobs[12].output, b"one\n")
        tap.open()
        await self.finish(rig, server)

    async def test_the_report_comes_after_it(self) -> None:
        """A post that is under way when the job ends: the report waits for it, and nothing older follows."""
        server = FakeServer()
        rig, tap, _output = await self.running(server)
        held: Deferred[None] = Deferred()
        server.hold["update"] = held
        rig.clock.advance(CYCLE)
        while "lock" not in server.said[-3:]:
            await deferLater(reactor, 0.01)
        tap.open()
        await deferLater(reactor, 0.3)
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        del server.hold["update"]
        held.callback(None)
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"one\ntwo\n")
