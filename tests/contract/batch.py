"""The contract of batch systems: the same tests for each of them, on the real one or on one that plays it."""

from __future__ import annotations

import json
import os
import pwd
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from lgi.batch.command import Commands
from lgi.batch.jobs import Batch
from lgi.batch.record import Record, read_record
from lgi.batch.shared import Shared
from lgi.batch.system import open_system
from lgi.batch.values import ArrayRange, BatchError, Request, State, Status

SECONDS = 45.0
FAKE = Path(__file__).with_name("batch_fake.py")
COMMANDS = {
    "slurm": "sbatch squeue scancel scontrol sacct",
    "torque": "qsub qstat qdel qhold qrls qsig tracejob",
    "gridengine": "qsub qstat qdel qhold qrls qmod qacct",
    "lsf": "bsub bjobs bkill bstop bresume bacct",
    "loadleveler": "llsubmit llq llcancel llhold llsummary",
}


class BatchCase(TestCase):
    """What tests with a batch system need."""

    timeout = 120
    system: ClassVar[str]

    def environment(self) -> Mapping[str, str]:
        """The environment that leads to the batch system."""
        raise NotImplementedError

    def setUp(self) -> None:
        """Make the folder of the jobs."""
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.batch = self.make()
        self.addCleanup(self.end_all)

    def make(self, **settings: Any) -> Batch:
        """The jobs, as another process would see them; each look is a new one unless `max_age` says otherwise."""
        commands = Commands(reactor=self.reactor, environment=self.environment(), limit=20.0)
        self.opened = open_system(self.system, commands)
        cache = self.folder / "cache"
        cache.mkdir(0o700, exist_ok=True)
        shared = Shared(system=self.opened, directory=cache, reactor=self.reactor)
        return Batch(system=self.opened, shared=shared, **{"max_age": 0.0, **settings})

    async def end_all(self) -> None:
        """Leave no job behind."""
        found = [read_record(path.with_suffix("")) for path in self.folder.glob("*.wrapper")]
        jobs = [record.job for record in found if record is not None and record.job]
        if jobs:
            await self.opened.cancel(jobs)

    def request(self, text: str, name: str = "job", **wanted: Any) -> Request:
        """A request for a shell script, which is not written again: a job may be about to run it.

        A script that is open for writing cannot be run, and one that is empty at that moment ends well at once.
        """
        script = self.folder / f"{name}.sh"
        content = f"#!/bin/sh\n{text}\n"
        if not script.exists() or script.read_text() != content:
            new = script.with_suffix(".new")
            new.write_text(content)
            new.chmod(0o755)
            new.rename(script)
        return Request(
            script=script, directory=self.folder, output=Path("/dev/null"), error=Path("/dev/null"), **wanted
        )

    async def submit(self, text: str, name: str = "job", **wanted: Any) -> Record:
        """Submit a shell script."""
        return await self.batch.submit(self.request(text, name, **wanted), self.folder / name)

    async def status(self, job: Record) -> Status:
        """Its status now."""
        known = await self.batch.known(job.path)
        assert known is not None
        return (await self.batch.status([known]))[job.job]

    async def until(self, job: Record, right: Callable[[Status], bool]) -> Status:
        """Its status as soon as it is right."""
        late = time.monotonic() + SECONDS
        while not right(status := await self.status(job)):
            self.assertLess(time.monotonic(), late, f"still {status}")
            await deferLater(self.reactor, 0.1, lambda: None)
        return status

    async def over(self, job: Record) -> Status:
        """Its status when it is over."""
        return await self.until(job, lambda status: status.state.over)

    async def state(self, job: Record, state: State) -> None:
        """Wait for a state."""
        await self.until(job, lambda status: status.state is state)

    async def file(self, name: str) -> str:
        """What a job writes to a file, as soon as it has."""
        late = time.monotonic() + SECONDS
        while not (path := self.folder / name).exists() or not path.read_text().endswith("\n"):
            self.assertLess(time.monotonic(), late, f"there is no {name}")
            await deferLater(self.reactor, 0.05, lambda: None)
        return path.read_text()

    def able(self, *names: str) -> None:
        """Skip the test where the batch system lacks something."""
        lacking = {
            "local": {"held at first", "arrays", "refusals"},
            "loadleveler": {"arrays", "suspension"},
        }.get(self.system, set())
        if found := lacking & set(names):
            raise SkipTest(f"{self.system} has no {', '.join(found)}")


SLEEP = "echo $$ >pid; exec sleep 300"


class BatchContract(BatchCase):
    """What can be relied upon, whichever batch system it is."""

    async def test_job_that_ends_well(self) -> None:
        job = await self.submit("echo done >proof")
        status = await self.over(job)
        self.assertEqual((status.state, status.exit_code, status.signal), (State.FINISHED, 0, None))
        self.assertEqual((self.folder / "proof").read_text(), "done\n")

    async def test_job_that_exits_with_3(self) -> None:
        status = await self.over(await self.submit("exit 3"))
        self.assertEqual((status.state, status.exit_code), (State.FAILED, 3))

    async def test_running_job_is_running(self) -> None:
        job = await self.submit("until [ -e go ]; do sleep 0.1; done")
        await self.state(job, State.RUNNING)
        number = job.job.split("-")[0] if self.system == "local" else max(re.findall(r"\d+", job.job), key=len)
        self.assertIn(number, await self.batch.details(job.job))
        (self.folder / "go").touch()
        self.assertEqual((await self.over(job)).state, State.FINISHED)

    async def test_names_and_folders_with_spaces_and_quotes(self) -> None:
        if self.system == "loadleveler":
            raise SkipTest("a job command file has no way to quote")
        self.folder = self.folder / 'it\'s a % "folder"'
        self.folder.mkdir()
        self.batch = self.make()
        job = await self.submit("echo done >proof", "a job's $name")
        self.assertEqual((await self.over(job)).state, State.FINISHED)
        self.assertEqual((self.folder / "proof").read_text(), "done\n")

    async def test_submitting_again_is_the_same_job(self) -> None:
        job = await self.submit("echo run >>runs")
        self.assertEqual((await self.submit("echo run >>runs")).job, job.job)
        status = await self.over(job)
        self.assertEqual((status.state, status.exit_code), (State.FINISHED, 0))
        self.assertEqual((await self.submit("echo run >>runs")).job, job.job)
        self.assertEqual((self.folder / "runs").read_text(), "run\n")

    async def test_killed_between_submission_and_its_record(self) -> None:
        job = await self.submit("echo run >>runs; until [ -e go ]; do sleep 0.1; done")
        # What is on disk when the submitter dies before it has heard the number.
        attrs.evolve(job, job="").write()
        known = await self.batch.known(job.path)
        self.assertEqual(known and known.job, job.job)
        attrs.evolve(job, job="").write()
        again = await self.make().submit(
            self.request("echo run >>runs; until [ -e go ]; do sleep 0.1; done"), job.path
        )
        self.assertEqual(again.job, job.job)
        (self.folder / "go").touch()
        await self.over(job)
        attrs.evolve(job, job="").write()
        again = await self.submit("echo run >>runs; until [ -e go ]; do sleep 0.1; done")
        self.assertEqual(again.job, job.job)
        self.assertEqual((self.folder / "runs").read_text(), "run\n")

    async def test_held_job_starts_when_it_is_resumed(self) -> None:
        self.able("held at first")
        job = await self.submit("echo run >>runs", hold=True)
        await self.state(job, State.HELD)
        self.assertFalse((self.folder / "runs").exists())
        await self.batch.resume(job.job)
        self.assertEqual((await self.over(job)).state, State.FINISHED)

    async def test_held_job_that_was_killed_between_submission_and_its_record(self) -> None:
        self.able("held at first")
        job = await self.submit("true", hold=True)
        attrs.evolve(job, job="").write()
        self.assertEqual((await self.submit("true", hold=True)).job, job.job)

    async def test_running_job_is_suspended_and_goes_on(self) -> None:
        self.able("suspension")
        job = await self.submit("echo on >started; until [ -e go ]; do sleep 0.1; done")
        await self.file("started")
        await self.state(job, State.RUNNING)
        await self.batch.hold(job.job)
        await self.state(job, State.SUSPENDED)
        await self.batch.resume(job.job)
        (self.folder / "go").touch()
        self.assertEqual((await self.over(job)).state, State.FINISHED)

    async def test_running_job_is_cancelled(self) -> None:
        job = await self.submit(SLEEP)
        pid = int(await self.file("pid"))
        await self.batch.cancel([job])
        self.assertEqual((await self.over(job)).state, State.CANCELLED)
        await self.gone(pid)
        await self.batch.cancel([job])
        self.assertEqual((await self.status(job)).state, State.CANCELLED)

    async def test_held_job_is_cancelled(self) -> None:
        self.able("held at first")
        job = await self.submit("echo run >>runs", hold=True)
        await self.batch.cancel([job])
        self.assertEqual((await self.over(job)).state, State.CANCELLED)
        self.assertFalse((self.folder / "runs").exists())

    async def test_job_that_is_over_is_not_cancelled_afterwards(self) -> None:
        job = await self.submit("exit 4")
        await self.over(job)
        await self.batch.cancel([job])
        status = await self.status(job)
        self.assertEqual((status.state, status.exit_code), (State.FAILED, 4))

    async def test_cancel_of_a_job_that_is_gone(self) -> None:
        job = await self.submit("exit 0")
        await self.over(job)
        await self.opened.cancel([job.job])  # no complaint

    async def test_array(self) -> None:
        self.able("arrays")
        text = "exec sh tasks"
        (self.folder / "tasks").write_text(
            "task=${SLURM_ARRAY_TASK_ID:-${PBS_ARRAYID:-${SGE_TASK_ID:-$LSB_JOBINDEX}}}\n"
            "echo $task >task.$task; [ $task != 2 ] || exit 5\n"
        )
        job = await self.submit(text, array=ArrayRange(first=1, last=3))
        status = await self.over(job)
        self.assertEqual((status.state, status.exit_code), (State.FAILED, 5))
        tasks = (await self.batch.tasks([job]))[job.job]
        self.assertEqual({task: one.exit_code for task, one in tasks.items()}, {1: 0, 2: 5, 3: 0})
        self.assertEqual(len(list(self.folder.glob("task.*"))), 3)

    async def test_held_array_is_cancelled(self) -> None:
        self.able("arrays")
        job = await self.submit("true", array=ArrayRange(first=1, last=3), hold=True)
        await self.state(job, State.HELD)
        await self.batch.cancel([job])
        self.assertEqual((await self.over(job)).state, State.CANCELLED)

    async def test_refusal_is_remembered_and_can_be_tried_again(self) -> None:
        self.able("refusals")
        try:
            await self.submit("echo run >>runs", queue="nope")
        except BatchError as problem:
            self.assertIn("nope" if self.system != "loadleveler" else "not been submitted", str(problem))
        else:
            self.fail("not refused")
        known = await self.batch.known(self.folder / "job")
        assert known is not None
        [status] = (await self.batch.status([known])).values()
        self.assertEqual(status.state, State.FAILED)
        self.assertIn("refused", status.reason)
        self.assertEqual((await self.over(await self.submit("echo run >>runs"))).state, State.FINISHED)

    async def test_several_in_one_call(self) -> None:
        jobs = [await self.submit("until [ -e go ]; do sleep 0.1; done", f"job{number}") for number in range(3)]
        found = await self.batch.status(jobs)
        self.assertEqual(set(found), {job.job for job in jobs})
        for status in found.values():
            self.assertTrue(status.state.active)
        (self.folder / "go").touch()
        for job in jobs:
            self.assertEqual((await self.over(job)).state, State.FINISHED)

    async def test_number_that_never_was(self) -> None:
        number = {"local": "4194304-1", "loadleveler": "fake.9999999", "pbs": "9999999.fake"}.get(
            self.system, "9999999"
        )
        [status] = (await self.batch.status([number])).values()
        self.assertEqual(status.state, State.UNKNOWN)
        for bad in ("", "-x", "1;2", "1 2", "$(x)", "../1"):
            try:
                await self.batch.status([bad])
            except BatchError as problem:
                self.assertIn("not the number of a job", str(problem))
            else:
                self.fail(bad)

    async def gone(self, pid: int) -> None:
        """Wait for the end of a process."""
        late = time.monotonic() + SECONDS
        while True:
            try:
                if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX":
                    return
            except FileNotFoundError:
                return
            self.assertLess(time.monotonic(), late, f"process {pid} lives")
            await deferLater(self.reactor, 0.05, lambda: None)


class FakeCase(BatchContract):
    """On commands that play the batch system."""

    kind: ClassVar[str]

    def environment(self) -> Mapping[str, str]:
        """A PATH with the commands in front."""
        if not hasattr(self, "fake"):
            self.fake = Path(self.mktemp()).absolute()
            (self.fake / "bin").mkdir(parents=True)
            for name in COMMANDS[self.kind].split():
                file = self.fake / "bin" / name
                file.write_text(f"#!{sys.executable} -ESs\n{FAKE.read_text()}")
                file.chmod(0o755)
        return {
            "PATH": f"{self.fake / 'bin'}:/usr/bin:/bin",
            "FAKE_BATCH": str(self.fake),
            "FAKE_KIND": self.kind,
            "FAKE_USER": pwd.getpwuid(os.geteuid()).pw_name,
        }

    def calls(self, name: str) -> list[list[str]]:
        """How a command was called."""
        return [
            call for line in (self.fake / "calls").read_text().splitlines() if (call := json.loads(line))[0] == name
        ]

    async def test_killed_behind_our_back(self) -> None:
        job = await self.submit(SLEEP)
        pid = int(await self.file("pid"))
        await self.state(job, State.RUNNING)
        os.killpg(os.getpgid(pid), 9)
        self.batch = self.make(grace=0.5)
        await self.until(job, lambda status: status.state is State.LOST)

    async def test_batch_system_that_is_down(self) -> None:
        (self.fake / "down").write_text("error: Unable to contact the controller: Connection refused")
        try:
            await self.submit("echo run >>runs")
        except BatchError as problem:
            self.assertIn("Unable to contact", str(problem))
        else:
            self.fail("not down")
        (self.fake / "down").unlink()
        self.assertIsNone(await self.make().known(self.folder / "job"))
        self.assertEqual((await self.over(await self.submit("echo run >>runs"))).state, State.FINISHED)
