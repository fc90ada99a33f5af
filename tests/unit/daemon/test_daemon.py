"""The life of jobs, from offer to report, with real scripts and a server in memory."""

from __future__ import annotations

from pathlib import Path

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from lgi.client.answers import AnswerMalformed, ServerUnreachable
from lgi.daemon.jobdir import EXIT_STATUS, INPUT, OUTPUT, RUN_PID
from lgi.errors import ErrorNumber
from lgi.states import JobState
from lgi.wire.specifics import read_tag, with_tags
from tests.unit.daemon.rig import Rig, Tap, lives, reactor_runs, write_script
from tests.unit.daemon.server import RESOURCE, FakeServer, refused

FOREIGN = "0123456789ABCDEF" * 2


class DaemonTestCase(TestCase):
    """A rig and a server, and what several tests do with them."""

    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await reactor_runs()

    def rig(self, *servers: FakeServer, **bodies: str | None) -> Rig:
        rig = Rig(Path(self.mktemp()).absolute(), reactor, *servers, **bodies)
        self.addCleanup(lambda: Deferred.fromCoroutine(rig.clean_up()))
        return rig

    def tap(self) -> Tap:
        tap = Tap(Path(self.mktemp()).absolute())
        self.addCleanup(tap.close)
        return tap

    def waiting_rig(self, server: FakeServer, tap: Tap, **bodies: str | None) -> Rig:
        """A resource whose jobs run until the tap is opened, and note each run in the file `runs`."""
        runs = Path(self.mktemp()).absolute()
        self.runs = runs
        text = f"echo run >>'{runs}'; {tap.wait}; cat LGI_input >LGI_output"
        return self.rig(server, **({"job_run_script": text} | bodies))

    def number_of_runs(self) -> int:
        return len(self.runs.read_text().split()) if self.runs.exists() else 0

    async def finish(self, rig: Rig, server: FakeServer, state: JobState = JobState.FINISHED) -> None:
        await server.becomes(12, state)
        await rig.tasks.idle()
        self.assertEqual(rig.jobs() + rig.leftovers(), [])
        self.assertEqual((server.sessions, server.locks), ({}, {}))


class LifeTests(DaemonTestCase):
    async def test_from_queue_to_finished(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server)
        await rig.go()
        await self.finish(rig, server)
        job = server.jobs[12]
        self.assertEqual(job.output, b"run\n21 \x00 \xff")
        self.assertEqual(read_tag(job.job_specifics, "exit_status"), "0")
        self.assertEqual(read_tag(job.job_specifics, "nodes"), "2")
        self.assertEqual(job.target_resources, (RESOURCE,))
        self.assertEqual(server.capabilities, "<hello_world> nothing special </hello_world>")

    async def test_a_job_that_fails_is_finished_with_its_exit_status(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server, job_run_script="echo no >LGI_output; exit 7")
        await rig.go()
        await self.finish(rig, server)
        self.assertEqual(read_tag(server.jobs[12].job_specifics, "exit_status"), "7")
        self.assertEqual(server.jobs[12].output, b"no\n")

    async def test_long_output_is_cut_with_a_notice(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server, job_run_script="head -c 5000 /dev/zero | tr '\\0' x >LGI_output")
        await rig.go()
        await self.finish(rig, server)
        output = server.jobs[12].output or b""
        self.assertEqual(len(output), 4096)
        self.assertTrue(output.startswith(b"xxx"))
        self.assertIn(b"the output has 5000 bytes and 4096 may be sent", output)

    async def test_scripts_run_in_the_documents_order(self) -> None:
        order = Path(self.mktemp()).absolute()
        names = ("check_limits", "check_running", "check_finished", "prologue", "run", "epilogue")
        endings = {"check_running": "exit 1", "check_finished": "[ -s LGI_exit_status ]"}
        bodies = {f"job_{name}_script": f"echo {name} >>'{order}'; {endings.get(name, 'exit 0')}" for name in names}
        server = FakeServer()
        server.submit()
        rig = self.rig(server, **bodies)
        await rig.go()
        await self.finish(rig, server)
        inspection = ["check_running", "check_finished"]
        wanted = ["check_limits", *inspection, "prologue", "run", *inspection, "epilogue"]
        self.assertEqual(order.read_text().split(), wanted)

    async def test_prologue_and_epilogue_are_tried_again_with_growing_pauses(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server, job_prologue_script="exit 1", job_epilogue_script="[ -e ready ]")
        await rig.go()
        log = rig.job / "job_prologue_script.log"
        write_script(rig.scripts / "job_prologue_script", "exit 0")  # the copy is what counts
        for pause in (1, 2, 4):
            for _ in range(pause - 1):
                before = log.stat().st_mtime_ns
                await rig.turn()
                self.assertEqual(log.stat().st_mtime_ns, before)
            await rig.turn()
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)

    async def test_epilogue_is_tried_again(self) -> None:
        server = FakeServer()
        server.submit()
        mark = Path(self.mktemp()).absolute()
        rig = self.rig(server, job_epilogue_script=f"[ -e '{mark}' ]")
        await rig.go()
        while not (rig.job / "job_epilogue_script.log").exists():
            await rig.turn()
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        mark.touch()
        await rig.turn(3)
        await self.finish(rig, server)

    async def test_a_job_not_called_finished_runs_again_after_a_pause(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap, job_check_finished_script="[ -e ended ]")
        await rig.go()
        tap.open()
        await self.until_not_running(rig)
        self.assertEqual(self.number_of_runs(), 1)
        await rig.turn(2)
        tap.open()
        await self.until_not_running(rig)
        self.assertEqual(self.number_of_runs(), 2)
        (rig.job / "ended").touch()
        await rig.turn(4)
        await self.finish(rig, server)

    async def until_not_running(self, rig: Rig) -> None:
        (keeper,) = rig.daemon.holdings.keepers
        exited = keeper._steps._watched
        assert isinstance(exited, Deferred)
        done: Deferred[None] = Deferred()
        exited.addCallback(lambda status: done.callback(None))
        await done
        await rig.tasks.idle()

    async def test_a_check_that_gives_no_answer_starts_nothing(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        mark = Path(self.mktemp()).absolute()
        check = f"[ -e LGI_job_run_script_pid ] || exit 1; [ -e '{mark}' ] && exit 0; kill -KILL $$"
        rig = self.waiting_rig(server, tap, job_check_running_script=check, job_check_finished_script="exit 1")
        await rig.go()
        tap.open()
        await self.until_not_running(rig)
        await rig.turn(8)
        self.assertEqual(self.number_of_runs(), 1)
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)


class OfferTests(DaemonTestCase):
    async def test_the_limits_script_rejects(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server, job_check_limits_script="grep -q mark LGI_owners || exit 0; echo no; exit 1")
        await rig.go()
        self.assertEqual(server.jobs[12].state, JobState.QUEUED)
        self.assertEqual(rig.jobs() + rig.leftovers(), [])
        self.assertEqual((server.sessions, server.locks), ({}, {}))
        server.change(12, owners=("anna",))
        await rig.turn()
        await self.finish(rig, server)

    async def test_rejected_jobs_do_not_hide_those_behind_them(self) -> None:
        server = FakeServer()
        for number in range(1, 12):
            server.submit(number, owners=("mark",))
        server.submit(12, owners=("anna",))
        rig = self.rig(server, job_check_limits_script="! grep -q mark LGI_owners")
        await rig.go()
        await self.finish(rig, server)
        self.assertEqual({server.jobs[number].state for number in range(1, 12)}, {JobState.QUEUED})

    async def test_no_more_jobs_of_an_owner_than_his_limit(self) -> None:
        server, tap = FakeServer(), self.tap()
        for number in (1, 2, 3, 4):
            server.submit(number, owners=("mark",))
        server.submit(5, owners=("anna",))
        server.submit(6, owners=("anna",))
        rig = self.waiting_rig(server, tap)
        await rig.go()
        await rig.turn(2)
        running = {number for number, job in server.jobs.items() if job.state is JobState.RUNNING}
        self.assertEqual(running, {1, 2, 3, 5}, "three of mark's, four in all")
        self.assertEqual(server.locks, {})

    async def test_nothing_is_asked_for_while_the_system_limits_script_says_no(self) -> None:
        server = FakeServer()
        server.submit()
        mark = Path(self.mktemp()).absolute()
        rig = self.rig(server, check_system_limits_script=f"[ -e '{mark}' ]")
        await rig.go()
        await rig.turn(2)
        self.assertEqual(server.said, ["signup", "signoff"], "once, so that the server knows what is offered here")
        self.assertIn("hello_world", server.capabilities)
        mark.touch()
        await rig.turn()
        await self.finish(rig, server)

    async def test_a_job_with_unreadable_specifics_is_given_back(self) -> None:
        server = FakeServer()
        server.submit(job_specifics="<a> <b> </a>")
        rig = self.rig(server)
        await rig.go()
        self.assertEqual(server.jobs[12].state, JobState.QUEUED)
        self.assertEqual((rig.jobs(), server.locks), ([], {}))

    async def test_a_server_that_does_not_answer_holds_up_no_other(self) -> None:
        master = FakeServer(slaves=("https://slave.example/LGI",))
        slave = FakeServer(url="https://slave.example/LGI")
        rig = self.rig(master, slave)
        master.hold["request_work"] = Deferred()
        slave.submit()
        rig.daemon.start()
        # The master tells of its slave, and then hangs.
        await slave.becomes(12, JobState.FINISHED)
        master.hold.pop("request_work").callback(None)
        await rig.tasks.idle()
        self.assertEqual((master.sessions, slave.sessions), ({}, {}))

    async def test_a_session_is_signed_off_after_an_error(self) -> None:
        server = FakeServer()
        server.submit()
        server.down("request_work")
        rig = self.rig(server)
        await rig.go()
        self.assertEqual(server.said, ["signup", "request_work", "signoff"])
        self.assertEqual(server.sessions, {})

    async def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(self) -> None:
        server = FakeServer()
        server.submit()

        def busy(name: str) -> None:
            if name == "request_work":
                raise refused(ErrorNumber.OVERLOADED, 12)

        server.before = busy
        rig = self.rig(server)
        asked = server.called("request_work")
        rig.daemon.start()
        await asked
        for _ in range(2):
            rig.clock.advance(5)
        self.assertEqual(server.said, ["signup", "request_work"])
        server.up()
        await rig.turn(2)
        self.assertEqual(server.said[2], "signoff")
        await self.finish(rig, server)


class UnsureTests(DaemonTestCase):
    """The answer to the claim of a job does not come."""

    async def test_claim_arrived_but_not_its_answer(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server)

        def lost(name: str) -> None:
            if name == "update":
                server.up()
                raise ServerUnreachable("connection lost")

        server.after = lost
        await rig.go()
        self.assertEqual((rig.job / "LGI_state").read_text(), "queued")
        self.assertFalse((rig.job / INPUT).exists())
        await rig.turn()
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"run\n21 \x00 \xff")

    async def test_claim_did_not_arrive(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server)
        server.down("update")
        await rig.go()
        first = rig.job
        server.up()
        await rig.turn(2)
        await self.finish(rig, server)
        self.assertNotIn(first.name[4:], server.jobs[12].job_specifics, "it was taken anew, with a new reference")
        self.assertEqual(server.jobs[12].output, b"run\n21 \x00 \xff")

    async def test_aborted_before_the_claim_was_known(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server)

        def lost(name: str) -> None:
            if name == "update":
                server.up()
                server.delete(12)
                raise ServerUnreachable("connection lost")

        server.after = lost
        await rig.go()
        await rig.turn()
        await self.finish(rig, server, JobState.ABORTED)

    async def test_an_answer_about_another_job_is_none(self) -> None:
        server = FakeServer()
        server.submit()
        server.submit(13, owners=("x",), target_resources=("elsewhere",))
        rig = self.rig(server)
        calls = rig._connect("LGI", server.url)

        class Confused(type(calls)):  # type: ignore[misc]
            async def state(self, job_id: int) -> object:
                answer = await super().state(job_id)
                return attrs.evolve(answer, job=attrs.evolve(answer.job, job_id=13, state=JobState.ABORTING))

        (link,) = [rig.daemon._links.to("LGI", server.url)]
        link._calls = Confused(server)
        tap = self.tap()
        write_script(rig.scripts / "job_run_script", tap.wait)
        await rig.go()
        await rig.turn(2)
        self.assertTrue((rig.job / RUN_PID).exists())
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)


class ServerDownTests(DaemonTestCase):
    async def test_the_job_goes_on_and_the_report_is_repeated(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()
        server.down()
        await rig.turn(3)
        tap.open()
        while not (rig.job / "job_epilogue_script.log").exists():
            await rig.turn()
        await rig.turn(3)
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        self.assertEqual((rig.job / OUTPUT).read_bytes(), b"21 \x00 \xff")
        server.up()
        server.expire()
        await rig.turn()
        await self.finish(rig, server)
        self.assertEqual(self.number_of_runs(), 1)

    async def test_nonsense_is_no_answer(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()

        def nonsense(name: str) -> None:
            raise AnswerMalformed("an HTML page")

        server.before = nonsense
        await rig.turn(2)
        self.assertTrue(rig.job.exists())
        server.up()
        tap.open()
        await self.finish(rig, server)

    async def test_the_answer_to_the_report_is_lost(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server)

        def lost(name: str) -> None:
            if name == "update" and server.jobs[12].state is JobState.FINISHED:
                server.up()
                raise ServerUnreachable("connection lost")

        server.after = lost
        await rig.go()
        await server.becomes(12, JobState.FINISHED)
        await rig.tasks.idle()
        self.assertEqual(len(rig.jobs()), 1)
        await rig.turn()
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"run\n21 \x00 \xff")

    async def test_a_lock_of_somebody_else_is_waited_for(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()
        server.locks[12] = -1
        tap.open()
        while "lock" not in server.said:
            await rig.turn()
        await rig.turn(2)
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        server.locks.clear()
        await rig.turn()
        await self.finish(rig, server)

    async def test_a_session_that_has_ended_is_replaced(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server)

        def expire(name: str) -> None:
            if name == "lock":
                server.before = lambda name: None
                server.expire()

        server.before = expire
        await rig.go()
        while server.said.count("lock") < 1:
            await rig.turn()
        await rig.turn(3)
        await self.finish(rig, server)


class NotOursTests(DaemonTestCase):
    async def running(self) -> tuple[FakeServer, Rig, int]:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        return server, rig, int((rig.job / RUN_PID).read_text())

    def assert_dropped(self, server: FakeServer, rig: Rig, pid: int) -> None:
        self.assertFalse(lives(pid))
        self.assertEqual(rig.jobs() + rig.leftovers(), [])
        self.assertNotIn("lock", server.said)

    async def test_another_daemons_reference(self) -> None:
        server, rig, pid = await self.running()
        server.change(12, job_specifics=with_tags(server.jobs[12].job_specifics, daemon_reference=FOREIGN))
        await rig.turn()
        self.assert_dropped(server, rig, pid)
        self.assertEqual((server.jobs[12].state, server.jobs[12].output), (JobState.RUNNING, b""))

    async def test_no_reference(self) -> None:
        server, rig, pid = await self.running()
        server.change(12, job_specifics="")
        await rig.turn()
        self.assert_dropped(server, rig, pid)

    async def test_unknown_job(self) -> None:
        server, rig, pid = await self.running()
        del server.jobs[12]
        await rig.turn()
        self.assert_dropped(server, rig, pid)

    async def test_another_resources_job(self) -> None:
        server, rig, pid = await self.running()
        server.change(12, target_resources=("elsewhere@example",))
        await rig.turn()
        self.assert_dropped(server, rig, pid)

    async def test_finished_by_itself(self) -> None:
        server, rig, pid = await self.running()
        server.change(12, state=JobState.FINISHED, output=b"as reported before")
        await rig.turn()
        self.assert_dropped(server, rig, pid)
        self.assertEqual(server.jobs[12].output, b"as reported before")

    async def test_other_refusals_mean_nothing_for_the_job(self) -> None:
        server, rig, pid = await self.running()

        def refuse(name: str) -> None:
            raise refused(ErrorNumber.DATABASE_UNREACHABLE)

        server.before = refuse
        await rig.turn(2)
        self.assertTrue(lives(pid))
        self.assertTrue(rig.job.exists())

    async def test_taken_over_while_its_report_waits(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()
        changed = with_tags(server.jobs[12].job_specifics, daemon_reference=FOREIGN)

        def take_over(name: str) -> None:
            if name == "lock":
                server.change(12, job_specifics=changed)

        server.before = take_over
        tap.open()
        while rig.jobs():
            await rig.turn()
        self.assertEqual(server.jobs[12].job_specifics, changed)
        self.assertEqual((server.jobs[12].state, server.jobs[12].output), (JobState.RUNNING, b""))


class AbortTests(DaemonTestCase):
    async def test_aborted_on_request(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()
        pid = int((rig.job / RUN_PID).read_text())
        (rig.job / OUTPUT).write_bytes(b"so far")
        server.delete(12)
        await rig.turn()
        await self.finish(rig, server, JobState.ABORTED)
        self.assertEqual(server.jobs[12].output, b"so far")
        self.assertFalse(lives(pid))

    async def test_abort_script_has_to_succeed(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        mark = Path(self.mktemp()).absolute()
        abort = f"[ -e '{mark}' ] && kill -s KILL -- -$(cat LGI_job_run_script_pid) && flock LGI_job.lock true"
        rig = self.waiting_rig(server, tap, job_abort_script=abort)
        await rig.go()
        server.delete(12)
        await rig.turn(2)
        self.assertEqual((rig.job / "LGI_state").read_text(), "aborting")
        self.assertEqual(server.jobs[12].state, JobState.ABORTING)
        mark.touch()
        await rig.turn(4)
        await self.finish(rig, server, JobState.ABORTED)

    async def test_aborted_while_its_prologue_fails(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server, job_prologue_script="exit 1")
        await rig.go()
        await rig.turn(4)
        server.delete(12)
        await rig.turn()
        await self.finish(rig, server, JobState.ABORTED)


class RequeuedTests(DaemonTestCase):
    async def test_claimed_again_when_asked_about(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()
        reference = rig.job.name
        server.lose_pulse(12)
        server.down("request_work")
        await rig.turn()
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        self.assertIn("details", server.said)
        server.up()
        tap.open()
        await self.finish(rig, server)
        self.assertIn(reference[4:], server.jobs[12].job_specifics)
        self.assertEqual(self.number_of_runs(), 1)

    async def test_claimed_again_when_offered(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()
        reference = rig.job.name
        # Somebody has cleared the specifics and the targets; only the offer tells that we still have it.
        server.lose_pulse(12)
        server.down("state")
        server.change(12, job_specifics="", target_resources=("any",))
        await rig.turn()
        server.up()
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        await rig.turn()
        self.assertEqual(rig.job.name, reference)
        tap.open()
        await self.finish(rig, server)
        self.assertEqual(self.number_of_runs(), 1)


class StopTests(DaemonTestCase):
    async def test_stopping_leaves_the_job_running(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()
        pid = int((rig.job / RUN_PID).read_text())
        await rig.daemon.stop()
        self.assertTrue(lives(pid))
        self.assertEqual((server.sessions, server.locks), ({}, {}))
        rig.start()
        await rig.go()
        tap.open()
        await self.finish(rig, server)
        self.assertEqual(self.number_of_runs(), 1)

    async def test_stopping_signs_off_from_a_server_that_hangs(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server)
        server.hold["request_work"] = Deferred()
        rig.daemon.start()
        await server.called("signup")
        stopped = Deferred.fromCoroutine(rig.daemon.stop())
        self.assertNoResult(stopped)
        rig.clock.advance(10)
        await stopped
        self.assertEqual(server.sessions, {})

    async def test_stopping_ends_scripts_under_way(self) -> None:
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap, job_prologue_script="exec sleep 60")
        rig.daemon.start()
        await server.becomes(12, JobState.RUNNING)
        await rig.daemon.stop()
        self.assertEqual(rig.daemon._scripts._running, {})
        self.assertFalse((rig.job / EXIT_STATUS).exists())
        self.assertEqual(self.number_of_runs(), 0)
