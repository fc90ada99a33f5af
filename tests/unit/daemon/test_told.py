"""The daemon at servers that tell it of work: nothing here waits for a cycle."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from lgi.client.answers import ServerUnreachable
from lgi.states import JobState
from tests.unit.daemon.rig import CYCLE, Rig
from tests.unit.daemon.server import FakeServer
from tests.unit.daemon.test_daemon import DaemonTestCase

HELLO = ("hello_world",)


class ToldTests(DaemonTestCase):
    """The clock stands still unless a test moves it."""

    async def waits(self, server: FakeServer) -> None:
        """Until the daemon waits."""
        if not server.waits:
            await server.called("wait_for_work")
        self.assertEqual([names for names, _told in server.waits.values()], [HELLO])

    def tell(self, server: FakeServer, *applications: str) -> None:
        for _names, told in list(server.waits.values()):
            told.callback(applications)

    async def waiting(self, server: FakeServer, **bodies: str) -> Rig:
        """A daemon that waits."""
        rig = self.rig(server, **bodies)
        rig.daemon.start()
        await self.waits(server)
        self.addCleanup(lambda: Deferred.fromCoroutine(rig.daemon.stop()))
        return rig

    async def test_told(self) -> None:
        """A job is taken in the session that waited, at once; then it waits again."""
        server = FakeServer(work_wait=100)
        await self.waiting(server)
        [session_id] = server.waits
        for job_id in (12, 13):
            server.submit(job_id)
            asked = len(server.said)
            self.tell(server, *HELLO)
            await server.becomes(job_id, JobState.FINISHED)
            self.assertIn("request_work", server.said[asked:])
            await self.waits(server)
            self.assertEqual(list(server.waits), [session_id])

    async def test_what_is_there_at_the_start(self) -> None:
        server = FakeServer(work_wait=100)
        server.submit()
        await self.waiting(server)
        await server.becomes(12, JobState.FINISHED)

    async def test_cycles_leave_it_alone(self) -> None:
        server = FakeServer(work_wait=100)
        rig = await self.waiting(server)
        before = list(server.said)
        rig.clock.advance(CYCLE)
        rig.clock.advance(CYCLE)
        self.assertEqual(server.said, before)
        # Time is up: a hint may have been lost.
        server.submit()
        self.tell(server)
        await server.becomes(12, JobState.FINISHED)

    async def test_no_room(self) -> None:
        """It waits for nothing while it can take nothing, and looks as soon as it can."""
        server, tap = FakeServer(work_wait=100), self.tap()
        for job_id in (12, 13, 14, 15, 16):
            server.submit(job_id, owners=(f"user{job_id}",))
        rig = self.rig(server, job_run_script=tap.wait)
        rig.daemon.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(rig.daemon.stop()))
        await server.becomes(15, JobState.RUNNING)
        await rig.tasks.idle()
        self.assertEqual((server.waits, server.sessions, server.jobs[16].state), ({}, {}, JobState.QUEUED))
        for _ in range(5):
            tap.open()
        await server.becomes(16, JobState.FINISHED)
        await self.waits(server)

    async def test_silent(self) -> None:
        """One that falls silent is asked in the cycles, and waited for again when it is back."""
        server = FakeServer(work_wait=100)
        rig = await self.waiting(server)
        server.down()
        [(_names, told)] = server.waits.values()
        told.errback(ServerUnreachable("gone"))
        await rig.tasks.idle()
        self.assertEqual(server.waits, {})
        server.up()
        server.sessions.clear()
        rig.clock.advance(CYCLE)
        await self.waits(server)

    async def test_tried_again_long_before_the_next_cycle(self) -> None:
        server = FakeServer(work_wait=100)
        rig = self.rig(server)
        rig.daemon._work._cycle = 600.0
        rig.daemon._loops[1][0].interval = 600.0
        rig.daemon.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(rig.daemon.stop()))
        await self.waits(server)
        for _ in range(3):
            server.down()
            for _names, told in list(server.waits.values()):
                told.errback(ServerUnreachable("gone"))
            await rig.tasks.idle()
            rig.clock.advance(5)
            await rig.tasks.idle()
            self.assertEqual(server.waits, {})
        server.up()
        server.sessions.clear()
        rig.clock.advance(5)
        await self.waits(server)

    async def test_session_that_has_ended(self) -> None:
        server = FakeServer(work_wait=100)
        rig = await self.waiting(server)
        server.expire()
        self.tell(server, *HELLO)
        await rig.tasks.idle()
        rig.clock.advance(CYCLE)
        await self.waits(server)

    async def test_system_limits(self) -> None:
        """What the resource's own script refuses is not waited for, but asked about again in the next cycle."""
        server = FakeServer(work_wait=100)
        rig = self.rig(server, check_system_limits_script="exit 1")
        await rig.go()
        self.assertEqual((server.waits, server.sessions), ({}, {}))
        (rig.scripts / "check_system_limits_script").write_text("#!/bin/sh\n")
        rig.clock.advance(CYCLE)
        await self.waits(server)
        rig_stopped = Deferred.fromCoroutine(rig.daemon.stop())
        await rig_stopped

    async def test_stopped(self) -> None:
        server = FakeServer(work_wait=100)
        rig = await self.waiting(server)
        await rig.daemon.stop()
        self.assertEqual((server.waits, server.sessions), ({}, {}))

    async def test_old_server(self) -> None:
        server = FakeServer()
        rig = self.rig(server)
        await rig.go()
        await rig.turn(3)
        self.assertNotIn("wait_for_work", server.said)
        self.assertEqual(server.sessions, {})
