"""Several servers, of which some are down, busy, or lie: each is on its own (LGI 1.41, Resource daemon)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred

from lgi.client.answers import AnswerMalformed, ServerUnreachable
from lgi.errors import ErrorNumber
from lgi.states import JobState
from tests.unit.daemon.rig import reactor_runs
from tests.unit.daemon.server import FakeServer, refused
from tests.unit.daemon.test_daemon import DaemonTestCase
from tests.unit.daemon.test_reload import second_application


def url(name: str) -> str:
    return f"https://{name}.example/LGI"


class OthersTests(DaemonTestCase):
    def servers(self, *names: str) -> tuple[FakeServer, ...]:
        master = FakeServer(slaves=tuple(url(name) for name in names))
        return master, *(FakeServer(url=url(name)) for name in names)

    async def served(self, spoil: Callable[[FakeServer], None]) -> None:
        """With one server spoilt, a job of another one is done in the first cycle."""
        master, bad, good = self.servers("bad", "good")
        bad.submit()
        good.submit()
        spoil(bad)
        rig = self.rig(master, bad, good)
        await rig.go()
        await good.becomes(12, JobState.FINISHED)
        self.assertEqual(bad.jobs[12].state, JobState.QUEUED)
        await rig.tasks.idle()
        self.assertEqual((good.sessions, good.locks), ({}, {}))
        bad.up()
        bad.careless = False
        await rig.turn(4)
        await bad.becomes(12, JobState.FINISHED)

    async def test_down(self) -> None:
        await self.served(lambda bad: bad.down())

    async def test_down_after_the_session_has_begun(self) -> None:
        await self.served(lambda bad: bad.down("request_work"))

    async def test_in_back_off(self) -> None:
        def busy(name: str) -> None:
            raise refused(ErrorNumber.OVERLOADED, 10)

        await self.served(lambda bad: setattr(bad, "before", busy))

    async def test_answers_that_mean_nothing(self) -> None:
        def nonsense(name: str) -> None:
            raise AnswerMalformed("the server's answer is not <LGI> but <html>")

        await self.served(lambda bad: setattr(bad, "after", nonsense))

    async def test_an_error_that_nobody_knows(self) -> None:
        def strange(name: str) -> None:
            raise refused(ErrorNumber.JOB_UNKNOWN)

        await self.served(lambda bad: setattr(bad, "before", strange))

    async def test_a_job_of_another_application(self) -> None:
        server = FakeServer()
        server.submit(application="lj_md")
        server.careless = True
        rig = self.rig(server)
        await rig.go()
        await rig.turn()
        self.assertEqual((server.jobs[12].state, rig.jobs(), rig.leftovers()), (JobState.QUEUED, [], []))
        self.assertEqual((server.sessions, server.locks), ({}, {}))

    async def test_addresses_that_are_none(self) -> None:
        master = FakeServer(slaves=("", "http://plain.example/LGI", "file:///etc/passwd", "nonsense", url("good")))
        good = FakeServer(url=url("good"))
        good.submit()
        rig = self.rig(master, good)
        await rig.go()
        await good.becomes(12, JobState.FINISHED)
        await rig.tasks.idle()

    async def test_all_applications_in_changing_order(self) -> None:
        server = FakeServer()
        rig = self.rig(server)
        rig.file.write_text(second_application(rig.file.read_text()))
        rig.start()
        await rig.go()
        await rig.turn(20)
        rounds = {tuple(server.asked[start : start + 2]) for start in range(0, len(server.asked), 2)}
        self.assertEqual(rounds, {("hello_world", "lj_md"), ("lj_md", "hello_world")})


class SignedOffTests(DaemonTestCase):
    async def test_stopped_while_a_job_is_looked_at(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        begun = Path(self.mktemp()).absolute()
        rig = self.rig(server, job_check_limits_script=f"touch '{begun}'; {tap.wait}")
        rig.daemon.start()
        while not begun.exists():
            await reactor_runs()
        self.assertEqual(len(rig.leftovers()), 1)
        await rig.daemon.stop()
        self.assertEqual((server.sessions, server.locks), ({}, {}))
        self.assertEqual((server.jobs[12].state, rig.jobs(), rig.leftovers()), (JobState.QUEUED, [], []))

    async def test_stopped_while_it_waits_for_work(self) -> None:
        server = FakeServer()
        server.work_wait = 60
        rig = self.rig(server)
        waits = server.called("wait_for_work")
        rig.daemon.start()
        await waits
        await rig.daemon.stop()
        self.assertEqual((server.sessions, server.waits), ({}, {}))

    async def test_stopped_between_claim_and_its_answer(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server)
        server.hold["update"] = Deferred()
        locked = server.called("request_work")
        rig.daemon.start()
        await locked
        stopped = Deferred.fromCoroutine(rig.daemon.stop())
        server.hold.pop("update").callback(None)
        await stopped
        self.assertEqual((server.sessions, server.locks), ({}, {}))
        await rig.restart()
        await rig.turn()
        await self.finish(rig, server)

    async def test_reconfigured_while_it_waits_for_work(self) -> None:
        server = FakeServer()
        server.work_wait = 60
        rig = self.rig(server)
        waits = server.called("wait_for_work")
        rig.daemon.start()
        await waits
        rig.file.write_text(second_application(rig.file.read_text()))
        again = server.called("wait_for_work")
        rig.daemon.reconfigure(rig.config, {})
        await again
        self.assertIn("<lj_md>", server.capabilities, "without waiting for a cycle")
        self.assertEqual([sorted(names) for names, _ in server.waits.values()], [["hello_world", "lj_md"]])
        self.assertEqual(len(server.sessions), 1)


class OutputTests(DaemonTestCase):
    async def test_what_the_server_takes_counts_if_it_is_less(self) -> None:
        for announced, most in ((101, 100), (10_000, 4096), (None, 4096)):
            server = FakeServer()
            server.largest_field = announced
            server.submit()
            rig = self.rig(server, job_run_script="seq 5000 >LGI_output")
            await rig.go()
            await self.finish(rig, server)
            output = server.jobs[12].output or b""
            self.assertEqual(len(output), most)
            self.assertIn(b"this is not all, the output has 23893 bytes and %d may be sent" % most, output)

    async def test_a_server_that_is_down_while_jobs_end(self) -> None:
        # As it is when the resource's certificate has expired: no server speaks with it any more.
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()

        def refuse(name: str) -> None:
            raise ServerUnreachable(f"{server.url}: sslv3 alert certificate expired")

        server.before = refuse
        tap.open()
        await rig.turn(3)
        self.assertEqual(len(rig.jobs()), 1, "the job is kept")
        server.up()
        await rig.turn(2)
        await self.finish(rig, server)
        self.assertEqual(self.number_of_runs(), 1)
