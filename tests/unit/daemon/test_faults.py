"""What goes wrong around a resource: full disks, senseless servers, scripts that misbehave, hundreds of jobs."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import attrs
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from lgi.client.answers import JobAnswer
from lgi.daemon import jobdir, quick, scripts
from lgi.daemon.jobdir import OUTPUT, RUN_LOCK, RUN_PID, discard, prepare
from lgi.daemon.jobfiles import job_files
from lgi.daemon.links import CALLS_AT_ONCE, LONGEST_PAUSE
from lgi.daemon.scripts import AT_ONCE, GRACE, TIME_LIMIT
from lgi.daemon.seal import load_seal
from lgi.daemon.work import LOOK_AGAIN, TRY_AGAIN, VAIN_HINTS
from lgi.durable import write_atomically, write_new
from lgi.errors import ErrorNumber
from lgi.states import JobState
from lgi.wire.specifics import read_tag, with_tags
from tests.unit.daemon.rig import CYCLE, Rig, lives
from tests.unit.daemon.server import PROJECT, RESOURCE, URL, FakeCalls, FakeServer, refused
from tests.unit.daemon.test_daemon import DaemonTestCase
from tests.unit.daemon.test_reload import second_application
from tests.unit.daemon.test_scripts import SEAL, ScriptTestCase

MANY = 500
NOBODY = 65534


class FullDiskTests(DaemonTestCase):
    """Each write of a job's life is the first of some for which there is no room."""

    async def test_at_each_write(self) -> None:
        state = {"writes": 0, "first": 0}

        def failing(function: Callable[..., None]) -> Callable[..., None]:
            def write(path: Path, *arguments: Any, **named: Any) -> None:
                state["writes"] += 1
                if state["first"] <= state["writes"] < state["first"] + 3:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                function(path, *arguments, **named)

            return write

        self.patch(jobdir, "write_atomically", failing(write_atomically))
        self.patch(jobdir, "write_new", failing(write_new))
        self.patch(quick, "make", failing(quick.make))
        first = 50  # those before are alike: the job's directory is being made
        while True:
            server, tap = FakeServer(), self.tap()
            server.submit()
            rig = self.waiting_rig(server, tap)
            tap.open()
            state.update(writes=0, first=first)
            await rig.go()
            for _ in range(40):
                if server.jobs[12].state is JobState.FINISHED:
                    break
                await rig.turn()
            await self.finish(rig, server)
            self.assertEqual(self.number_of_runs(), 1, first)
            self.assertEqual(server.jobs[12].output, b"21 \x00 \xff", first)
            await rig.daemon.stop()
            if state["writes"] < first:
                break
            first += 1
        self.assertGreater(first, 60)


class SenselessTests(DaemonTestCase):
    """A server that says what cannot be."""

    async def test_back_off_for_ever(self) -> None:
        server = FakeServer()
        server.submit()

        def busy(name: str) -> None:
            raise refused(ErrorNumber.OVERLOADED, 10**400)

        server.before = busy
        rig = self.rig(server)
        await rig.go()
        server.up()
        rig.clock.advance(LONGEST_PAUSE)
        await rig.tasks.idle()
        await self.finish(rig, server)

    async def test_hints_without_end(self) -> None:
        server = FakeServer(work_wait=100)

        async def at_once(calls: FakeCalls, session_id: int, names: Any, seconds: int) -> tuple[str, ...]:
            await calls._enter("wait_for_work")
            calls._in_session(session_id)
            return tuple(names)

        self.patch(FakeCalls, "wait_for_work", at_once)
        rig = self.rig(server)
        await rig.go()
        self.assertEqual(server.said.count("wait_for_work"), VAIN_HINTS)
        self.assertEqual(server.sessions, {})
        server.submit()
        rig.clock.advance(TRY_AGAIN)
        await self.finish(rig, server)

    async def test_updates_answered_with_another_job(self) -> None:
        """Both for the claim and for the report: what was asked for has happened, and is found out."""
        server = FakeServer()
        server.submit()
        lies = [True, True]
        update = FakeCalls.update

        async def confused(calls: FakeCalls, *arguments: Any, **named: Any) -> JobAnswer:
            answer = await update(calls, *arguments, **named)
            if named["state"] is JobState.RUNNING and lies[0]:
                lies[0] = False
            elif named["state"] is JobState.FINISHED and lies[1]:
                lies[1] = False
            else:
                return answer
            return attrs.evolve(answer, job=attrs.evolve(answer.job, job_id=13))

        self.patch(FakeCalls, "update", confused)
        rig = self.rig(server)
        await rig.go()
        self.assertFalse((rig.job / RUN_PID).exists())
        for _ in range(5):
            await rig.turn()
        await self.finish(rig, server)
        self.assertEqual(lies, [False, False])
        self.assertEqual(server.jobs[12].output, b"run\n21 \x00 \xff")


class ScriptTests(DaemonTestCase):
    async def test_hangs_and_ignores_term(self) -> None:
        server = FakeServer()
        server.submit()
        prologue = (
            "[ -e once ] && exit 0; trap '' TERM; echo $$ >once.new; mv once.new once; while :; do sleep 60; done"
        )
        rig = self.rig(server, job_prologue_script=prologue)
        rig.daemon.start()
        while not list(rig.run.glob("*/*/JOB_*/once")):
            await deferLater(reactor, 0.01)
        pid = int((rig.job / "once").read_text())
        rig.clock.advance(TIME_LIMIT)
        self.assertTrue(lives(pid))
        rig.clock.advance(GRACE)
        await rig.tasks.idle()
        self.assertFalse(lives(pid))
        await rig.turn(2)
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"run\n21 \x00 \xff")

    async def test_run_scripts_that_cannot_be_run(self) -> None:
        server = FakeServer()
        bodies = {1: "exit 126", 2: "no-such-program", 3: "kill -KILL $$", 4: "exit 255"}
        case = "".join(f"{number}) {body};; " for number, body in bodies.items())
        for number in bodies:
            server.submit(number, owners=(f"owner{number}",))
        rig = self.rig(server, job_run_script=f"case $(cat LGI_job_id) in {case} esac")
        await rig.go()
        for number, status in {1: 126, 2: 127, 3: 137, 4: 255}.items():
            await server.becomes(number, JobState.FINISHED)
            self.assertEqual(read_tag(server.jobs[number].job_specifics, "exit_status"), str(status))
        await rig.tasks.idle()
        self.assertEqual(rig.jobs() + rig.leftovers(), [])

    async def test_an_interpreter_that_is_missing(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server)
        (rig.scripts / "job_run_script").write_text("#!/no/such/shell\n")
        await rig.go()
        await self.finish(rig, server)
        self.assertIn(read_tag(server.jobs[12].job_specifics, "exit_status"), ("126", "127"))

    async def test_forks_and_exits(self) -> None:
        """The job lasts as long as what it left in the background, and all of its output is reported."""
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.rig(server, job_run_script=f"({tap.wait}; echo late >LGI_output) & exit 0")
        await rig.go()
        while not (rig.job / "LGI_exit_status").exists():
            await rig.turn()
        await rig.turn(3)
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        tap.open()
        while server.jobs[12].state is JobState.RUNNING:
            await rig.turn()
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"late\n")

    async def test_prints_megabytes(self) -> None:
        server = FakeServer()
        server.submit()
        loud = "head -c 8000000 /dev/zero | tr '\\0' x; exit 0"
        rig = self.rig(server, job_check_limits_script=loud, job_prologue_script=loud, job_run_script=loud)
        await rig.go()
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"")

    async def test_output_of_a_terabyte_without_content(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server, job_run_script="truncate -s 1T LGI_output")
        await rig.go()
        await self.finish(rig, server)
        output = server.jobs[12].output or b""
        self.assertEqual(len(output), 4096)
        self.assertIn(b"the output has 1099511627776 bytes", output)

    async def test_output_that_is_a_directory_or_a_link(self) -> None:
        secret = Path(self.mktemp()).absolute()
        secret.write_text("secret")
        for text in ("mkdir LGI_output", f"ln -s '{secret}' LGI_output", "ln -s /dev/zero LGI_output"):
            server = FakeServer()
            server.submit()
            rig = self.rig(server, job_run_script=text)
            await rig.go()
            await self.finish(rig, server)
            self.assertEqual(server.jobs[12].output, b"", text)
        self.assertEqual(secret.read_text(), "secret")

    async def test_removes_what_says_that_it_runs(self) -> None:
        """It is refused, as with any other file that is gone, and never started beside itself."""
        server, tap = FakeServer(), self.tap()
        server.submit()
        rig = self.waiting_rig(server, tap)
        await rig.go()
        pid = int((rig.job / RUN_PID).read_text())
        (rig.job / RUN_LOCK).unlink()
        await rig.turn()
        await rig.restart()
        await rig.turn(8)
        self.assertEqual((int((rig.job / RUN_PID).read_text()), lives(pid)), (pid, True))
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        self.assertTrue(rig.job.exists())

    async def test_removes_everything(self) -> None:
        server = FakeServer()
        server.submit()
        server.submit(13, owners=("anna",))
        rig = self.rig(
            server, job_run_script="[ $(cat LGI_job_id) = 13 ] && exit 0; rm -rf ./* ./.[!.]*; echo x >LGI_output"
        )
        await rig.go()
        await server.becomes(13, JobState.FINISHED)
        await rig.turn(3)
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)
        self.assertEqual((server.sessions, server.locks, len(rig.jobs())), ({}, {}, 1))

    async def test_shuts_its_directory(self) -> None:
        """As root nothing is shut; without, what stays readable is reported, and all is removed."""
        server = FakeServer()
        server.submit()
        shut = "mkdir -p a/b; echo 1 >a/b/c; echo done >LGI_output; chmod 500 a/b a"
        rig = self.rig(server, job_run_script=shut)
        await rig.go()
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, b"done\n")


class AtOnceTests(ScriptTestCase):
    async def test_scripts_of_an_application_take_turns(self) -> None:
        """However many jobs it has; those of another one do not wait."""
        run = Path(self.mktemp()).absolute()
        run.mkdir()
        tap = self.tap()
        name = "LGI_job_check_running_script"
        contents = {name: f"#!/bin/sh\n{tap.wait}\n".encode()}
        jobs = [prepare(run, SEAL, PROJECT, "app", contents) for _ in range(AT_ONCE + 1)]
        running = [Deferred.fromCoroutine(self.scripts.run(job, name)) for job in jobs]
        self.assertEqual(len(self.scripts._running), AT_ONCE)
        other = prepare(run, SEAL, PROJECT, "other", {name: b"#!/bin/sh\n"})
        self.assertTrue((await self.scripts.run(other, name)).ok)
        self.assertEqual(len(self.scripts._running), AT_ONCE)
        for _ in jobs:
            tap.open()
        self.assertTrue(all(outcome.ok for outcome in await gatherResults(running)))


class RemovalTests(SynchronousTestCase):
    def test_directories_in_which_nobody_may_write(self) -> None:
        """Of a job whose daemon is no superuser."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        outside = folder / "outside"
        job = folder / "run" / ".JOB"
        (job / "a" / "b").mkdir(parents=True)
        outside.mkdir()
        (job / "a" / "b" / "c").write_text("x")
        (job / "a" / "link").symlink_to(outside)
        outside.chmod(0o755)
        paths = [folder / "run", job, job / "a", job / "a" / "b"]
        if os.geteuid() == 0:
            for path in (folder, *paths, outside):
                os.chown(path, NOBODY, NOBODY)
            os.seteuid(NOBODY)
            self.addCleanup(os.seteuid, 0)
        for path in reversed(paths[1:]):
            path.chmod(0o500)
        self.assertTrue(discard(job))
        self.assertEqual(list((folder / "run").iterdir()), [])
        self.assertEqual(outside.stat().st_mode & 0o777, 0o755)


class ManyTests(DaemonTestCase):
    timeout = 120

    async def test_hundreds_of_jobs_at_the_start(self) -> None:
        """All are taken up, each is asked about once, and neither servers nor this machine are overrun."""
        server = FakeServer()
        rig = self.rig(server, job_check_running_script="exit 0")
        config, seal = rig.config, load_seal(rig.run)
        application = config.projects[0].applications[0]
        self.patch(jobdir, "sync_at_once", lambda paths: None)
        self.patch(jobdir, "sync", lambda paths: None)
        for number in range(MANY):
            job = server.submit(number)
            contents = job_files(config, application, URL, URL, job)
            contents |= {"LGI_input": job.input or b"", "LGI_state": b"running"}
            directory = prepare(rig.run, seal, PROJECT, "hello_world", contents).publish()
            specifics = with_tags(job.job_specifics, daemon_reference=directory.reference)
            server.change(number, state=JobState.RUNNING, target_resources=(RESOURCE,), job_specifics=specifics)
        most = {"calls": 0, "scripts": 0}
        running = {"calls": 0, "scripts": 0}
        asked: list[int] = []

        def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            async def count(*arguments: Any, **named: Any) -> Any:
                running[name] += 1
                most[name] = max(most[name], running[name])
                if name == "calls":
                    asked.append(arguments[1])
                    await deferLater(reactor, 0.001)
                try:
                    return await function(*arguments, **named)
                finally:
                    running[name] -= 1

            return count

        self.patch(FakeCalls, "state", counted("calls", FakeCalls.state))
        self.patch(scripts.Scripts, "_run", counted("scripts", scripts.Scripts._run))
        await rig.go()
        self.assertEqual(sorted(asked), list(range(MANY)))
        self.assertEqual((len(rig.daemon.holdings.keepers), len(rig.jobs())), (MANY, MANY))
        self.assertEqual(most["calls"], CALLS_AT_ONCE)
        self.assertLessEqual(most["scripts"], AT_ONCE)
        self.assertEqual({job.state for job in server.jobs.values()}, {JobState.RUNNING})
        self.assertEqual(set(server.said), {"signup", "signoff", "state"}, "and no work is asked for")


class LimitTests(DaemonTestCase):
    """`owner_allow`, `owner_deny` and `job_limit` of each level (LGI 1.41, Resource daemon)."""

    def limited(self, rig: Rig, level: int, allow: str = "<any> 10 </any>", deny: str = " ", jobs: int = 10) -> None:
        """All levels wide open but one: 0 is the resource's, 1 the project's, 2 the application's."""
        text = rig.file.read_text()
        for tag, narrow, wide in (
            ("owner_allow", allow, "<any> 10 </any>"),
            ("owner_deny", deny, " "),
            ("job_limit", str(jobs), "10"),
        ):
            count = iter(range(3))
            text, found = re.subn(
                rf"<{tag}>.*?</{tag}>",
                lambda _: f"<{tag}> {narrow if next(count) == level else wide} </{tag}>",  # noqa: B023
                text,
            )
            assert found == 3
        rig.file.write_text(text)
        rig.start()

    CASES: ClassVar[tuple[tuple[dict[str, Any], tuple[str, ...], set[int]], ...]] = (
        # what is narrow at one level; the owners of the jobs offered, in this order; the numbers of those taken
        ({"allow": "<mark> 1 </mark> <any> 2 </any>"}, ("mark", "mark", "anna", "anna", "anna"), {0, 2, 3}),
        # `any` is each other owner's limit, not that of all of them together.
        ({"allow": "<any> 1 </any>"}, ("mark", "anna", "otto", "anna"), {0, 1, 2}),
        ({"deny": "<mark> </mark>"}, ("mark", "anna, mark", "anna"), {2}),
        ({"jobs": 2}, ("mark", "anna", "otto"), {0, 1}),
        # A job counts for each of its owners, and none of them may pass his limit.
        ({"allow": "<mark> 2 </mark> <any> 1 </any>"}, ("mark, anna", "anna", "mark", "mark"), {0, 2}),
        ({"allow": "<mark> 2 </mark> <any> 1 </any>"}, ("anna", "mark, anna", "mark"), {0, 2}),
        # Who is not named where nobody else is allowed comes with somebody who is.
        ({"allow": "<mark> 2 </mark>"}, ("anna", "anna, mark"), {1}),
        ({"allow": "<mark> 0 </mark> <any> 2 </any>"}, ("mark", "anna"), {1}),
        ({"allow": "<mark@laptop> 1 </mark@laptop>"}, ("mark@laptop", "mark@laptop"), {0}),
    )

    async def test_at_each_level(self) -> None:
        for careless in (False, True):
            for number, (narrow, owners, taken) in enumerate(self.CASES):
                # A careless server offers also whom it was asked not to.
                level = number % 3 if careless else None
                for one in range(3) if level is None else (level,):
                    await self.taken(one, narrow, owners, taken, careless)

    async def taken(
        self, level: int, narrow: dict[str, Any], owners: tuple[str, ...], taken: set[int], careless: bool
    ) -> None:
        server, tap = FakeServer(), self.tap()
        server.careless = careless
        for number, names in enumerate(owners):
            server.submit(number, owners=tuple(names.split(", ")))
        rig = self.waiting_rig(server, tap)
        self.limited(rig, level, **narrow)
        await rig.go()
        await rig.turn()
        running = {number for number, job in server.jobs.items() if job.state is JobState.RUNNING}
        self.assertEqual(running, taken, (level, narrow, owners))
        self.assertEqual((server.locks, len(rig.jobs()), rig.leftovers()), ({}, len(taken), []))
        await rig.clean_up()

    async def test_what_counts(self) -> None:
        """At a resource and a project the jobs of all applications, at an application its own."""
        for level, taken in ((0, {1}), (1, {1}), (2, {1, 2})):
            server, tap = FakeServer(), self.tap()
            server.submit(1, owners=("mark",))
            rig = self.waiting_rig(server, tap)
            self.limited(rig, level, allow="<mark> 1 </mark> <any> 5 </any>")
            rig.file.write_text(second_application(rig.file.read_text()))
            rig.start()
            await rig.go()
            server.submit(2, owners=("mark",), application="lj_md")
            server.submit(3, owners=("anna",), application="lj_md")
            await rig.turn()
            running = {number for number, job in server.jobs.items() if job.state is JobState.RUNNING}
            self.assertEqual(running, taken | {3}, level)
            await rig.clean_up()

    async def test_the_end_of_a_job_makes_room(self) -> None:
        server, tap = FakeServer(), self.tap()
        for number in (12, 13):
            server.submit(number, owners=("mark",))
        rig = self.waiting_rig(server, tap)
        self.limited(rig, 1, allow="<mark> 1 </mark>")
        await rig.go()
        self.assertEqual(server.jobs[13].state, JobState.QUEUED)
        (rig.job / OUTPUT).touch()
        tap.open()
        await server.becomes(12, JobState.FINISHED)
        await rig.tasks.idle()
        await rig.turn()
        self.assertEqual(server.jobs[13].state, JobState.RUNNING)
        tap.open()
        await server.becomes(13, JobState.FINISHED)
        await rig.tasks.idle()
        self.assertEqual(rig.jobs(), [])

    async def test_the_end_of_a_job_makes_room_where_the_server_tells_of_work(self) -> None:
        """No cycle passes: a job that waited for its owner's limit is taken as soon as another of his ends."""
        server = FakeServer(work_wait=100)
        for number in (12, 13):
            server.submit(number, owners=("mark",))
        rig = self.rig(server)
        self.limited(rig, 2, allow="<any> 1 </any>")
        rig.daemon.start()
        await server.becomes(12, JobState.FINISHED)
        await server.becomes(13, JobState.FINISHED)
        await rig.daemon.stop()

    async def test_what_was_refused_is_tried_again_in_a_cycle_where_the_server_tells_of_work(self) -> None:
        server = FakeServer(work_wait=100)
        server.submit()
        waits: list[int] = []
        wait = FakeCalls.wait_for_work

        async def noted(calls: FakeCalls, session_id: int, names: Any, seconds: int) -> tuple[str, ...]:
            waits.append(seconds)
            return await wait(calls, session_id, names, seconds)

        self.patch(FakeCalls, "wait_for_work", noted)
        rig = self.rig(server, job_check_limits_script="[ -e ../../../room ]")
        rig.daemon.start()
        await server.called("wait_for_work")
        self.assertEqual(waits, [CYCLE])
        (rig.run / "room").touch()
        [(_names, told)] = server.waits.values()
        told.callback(())
        await server.becomes(12, JobState.FINISHED)
        while len(waits) < 2:
            await server.called("wait_for_work")
        self.assertEqual(waits[1:], [LOOK_AGAIN])
        await rig.daemon.stop()
