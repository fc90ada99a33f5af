"""Jobs on a batch system that says what the test wants it to say."""

from __future__ import annotations

import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from lgi.batch.command import CommandFailed, Commands, Done
from lgi.batch.jobs import Batch
from lgi.batch.record import Record, locked, read_record
from lgi.batch.shared import Shared, shared_directory
from lgi.batch.system import System
from lgi.batch.values import ArrayRange, BatchError, Entry, NotSupported, Request, State, Status


class Told(System):
    """Says what it is told to say."""

    name = "slurm"
    job_pattern = re.compile(r"\d+")
    shell_job = "1"

    def __init__(self) -> None:
        super().__init__(Commands(reactor=Clock(), environment={}))
        self.entries: list[Entry] = []
        self.ends: list[Entry] = []
        self.looks = self.asked = 0
        self.problem: BatchError | None = None
        self.wait: Deferred[None] | None = None
        self.submitted: list[str] = []
        self.refusal: BatchError | None = None

    async def submit(self, request: Request, wrapper: Path, key: str, hold_open: int) -> str:
        self.submitted.append(key)
        if self.refusal is not None:
            raise self.refusal
        return str(len(self.submitted))

    async def queue(self, jobs: Collection[str]) -> list[Entry]:
        self.looks += 1
        if self.wait is not None:
            await self.wait
        if self.problem is not None:
            raise self.problem
        return self.entries

    async def accounting(self, jobs: Collection[str]) -> list[Entry]:
        self.asked += 1
        return self.ends

    async def details(self, job: str) -> str:
        return "details"

    async def cancel(self, jobs: Collection[str]) -> None:
        self.entries = [entry for entry in self.entries if entry.job not in jobs]


def running(job: str = "1", **known: Any) -> Entry:
    return Entry(job=job, status=Status(state=State.RUNNING), **known)


class Case(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(mode=0o700)
        self.script = self.folder / "script"
        self.script.write_text("#!/bin/sh\n")
        self.script.chmod(0o700)
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.told = Told()
        self.batch = self.make()

    def make(self, **settings: Any) -> Batch:
        shared = Shared(system=self.told, directory=self.folder, reactor=self.clock, now=self.clock.seconds)
        return Batch(system=self.told, shared=shared, **settings)

    async def state(self, job: str | Record = "1") -> State:
        [status] = (await self.batch.status([job])).values()
        return status.state

    async def submit(self, **wanted: Any) -> Record:
        request = Request(script=self.script, directory=self.folder, **wanted)
        return await self.batch.submit(request, self.folder / "record")

    async def refused(self, what: Any) -> str:
        try:
            await what
        except BatchError as problem:
            return str(problem)
        raise AssertionError("not refused")


class AbsenceTests(Case):
    async def test_missing_job_is_unknown_and_after_the_grace_lost(self) -> None:
        self.told.entries = [running()]
        self.assertEqual(await self.state(), State.RUNNING)
        self.told.entries = []
        for seconds, state in ((11.0, State.UNKNOWN), (299.0, State.UNKNOWN), (12.0, State.LOST)):
            self.clock.advance(seconds)
            self.assertEqual(await self.state(), state)

    async def test_grace_begins_anew_when_it_was_seen_again(self) -> None:
        self.assertEqual(await self.state(), State.UNKNOWN)
        self.clock.advance(200.0)
        self.told.entries = [running()]
        self.assertEqual(await self.state(), State.RUNNING)
        self.told.entries = []
        self.clock.advance(200.0)
        self.assertEqual(await self.state(), State.UNKNOWN)
        self.clock.advance(299.0)
        self.assertEqual(await self.state(), State.UNKNOWN)
        self.clock.advance(11.0)
        self.assertEqual(await self.state(), State.LOST)

    async def test_batch_system_that_fails_makes_no_job_missing(self) -> None:
        self.assertEqual(await self.state(), State.UNKNOWN)
        self.clock.advance(400.0)
        self.told.problem = BatchError("down")
        self.assertEqual(await self.refused(self.state()), "down")
        self.told.problem, self.told.entries = None, [running()]
        self.clock.advance(11.0)
        self.assertEqual(await self.state(), State.RUNNING)

    async def test_accounting_tells_of_the_end(self) -> None:
        self.told.ends = [Entry(job="1", status=Status(state=State.FAILED, exit_code=3))]
        self.assertEqual(await self.state(), State.FAILED)

    async def test_accounting_that_says_running_is_behind(self) -> None:
        self.told.ends = [running()]
        self.assertEqual(await self.state(), State.UNKNOWN)

    async def test_what_was_over_in_the_queue_stays_so(self) -> None:
        self.told.entries = [Entry(job="1", status=Status(state=State.CANCELLED))]
        self.assertEqual(await self.state(), State.CANCELLED)
        self.told.entries = []
        self.clock.advance(1000.0)
        self.assertEqual(await self.state(), State.CANCELLED)
        self.told.entries = [running()]  # somebody had it run again
        self.clock.advance(11.0)
        self.assertEqual(await self.state(), State.RUNNING)
        self.told.entries = []
        self.clock.advance(11.0)
        self.assertEqual(await self.state(), State.UNKNOWN)

    async def test_requeued_job_has_an_old_exit_file(self) -> None:
        job = await self.submit()
        self.told.entries = [running(job.job)]
        self.assertEqual(await self.state(job), State.RUNNING)
        (self.folder / "record.exit").write_text("0 - -\n")
        self.assertEqual(await self.state(job), State.FINISHED)
        waiting = attrs.evolve(self.told.entries[0], status=Status(state=State.PENDING))
        self.told.entries = [waiting]
        self.clock.advance(11.0)
        self.assertEqual(await self.state(job), State.PENDING)

    async def test_old_answer_does_not_contradict_a_new_exit_file(self) -> None:
        job = await self.submit()
        self.told.entries = [Entry(job=job.job, status=Status(state=State.PENDING))]
        self.assertEqual(await self.state(job), State.PENDING)
        self.clock.advance(5.0)
        # It has run and ended since; the answer is young enough for others, but not for this.
        (self.folder / "record.exit").write_text("0 - -\n")
        self.told.entries = []
        self.assertEqual(await self.state(job), State.FINISHED)

    async def test_exit_file_that_is_none(self) -> None:
        job = await self.submit()
        for text in ("", "0", "x 0 -\n", "0 - -\nmore"):
            (self.folder / "record.exit").write_text(text)
            self.assertIn("is no exit file", await self.refused(self.state(job)))


class SharedTests(Case):
    async def test_one_look_for_all(self) -> None:
        self.told.entries = [running("1"), running("2")]
        await self.batch.status(["1", "2"])
        await self.make().status(["2"])
        self.assertEqual(self.told.looks, 1)
        self.clock.advance(11.0)
        await self.make().status(["2"])
        self.assertEqual(self.told.looks, 2)

    async def test_others_wait_for_the_one_that_asks(self) -> None:
        self.told.entries = [running()]
        self.told.wait = Deferred()
        waiting = [Deferred.fromCoroutine(self.make().status(["1"])) for _ in range(5)]
        self.clock.pump([0.1] * 10)
        self.assertEqual(self.told.looks, 1)
        self.told.wait.callback(None)
        self.clock.pump([0.1] * 10)
        for one in waiting:
            self.assertEqual((await one)["1"].state, State.RUNNING)
        self.assertEqual(self.told.looks, 1)

    async def test_failure_is_shared_too(self) -> None:
        self.told.problem = BatchError("down")
        for _ in range(5):
            self.assertEqual(await self.refused(self.state()), "down")
        self.assertEqual(self.told.looks, 1)

    async def test_accounting_is_not_asked_each_time(self) -> None:
        for _ in range(5):
            await self.state()
        self.assertEqual(self.told.asked, 1)

    async def test_submission_is_seen_at_once(self) -> None:
        await self.state()
        job = await self.submit()
        self.told.entries = [running(job.job)]
        self.assertEqual(await self.state(job), State.RUNNING)

    async def test_clock_that_went_back(self) -> None:
        self.told.entries = [running()]
        await self.state()
        self.clock.rightNow -= 900.0
        self.told.entries = []
        self.assertEqual(await self.state(), State.UNKNOWN)
        self.assertEqual(self.told.looks, 2)

    async def test_torn_file(self) -> None:
        await self.state()
        [file] = self.folder.glob("slurm-*.json")
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        file.write_text("{")
        self.assertEqual(await self.state(), State.UNKNOWN)

    def test_directory_that_others_can_write_to(self) -> None:
        self.assertEqual(shared_directory({"LGI_BATCH_CACHE": str(self.folder)}), self.folder)
        self.folder.chmod(0o777)
        for path in (self.folder, self.script):
            self.assertRaises(BatchError, shared_directory, {"LGI_BATCH_CACHE": str(path)})


class SubmitTests(Case):
    async def test_record(self) -> None:
        job = await self.submit(array=ArrayRange.parse("1-7:3%2"))
        self.assertEqual(read_record(job.path), job)
        self.assertEqual(job.path.read_text().split("\n")[0], "1")
        self.assertEqual(job.tasks, [1, 4, 7])
        self.assertEqual(stat.S_IMODE((self.folder / "record.wrapper").stat().st_mode), 0o700)

    async def test_record_of_another_submission(self) -> None:
        await self.submit()
        self.assertIn("of another submission", await self.refused(self.submit(array=ArrayRange.parse("1-2"))))

    async def test_two_at_a_time(self) -> None:
        with locked(self.folder / "record"):
            self.assertIn("is under way", await self.refused(self.submit()))
            (self.folder / "record").write_text("\nsystem slurm\nkey lgi0123456789ab\nscript /x\n")
            self.assertIn("is under way", await self.refused(self.batch.known(self.folder / "record")))

    async def test_taken_although_it_said_no(self) -> None:
        self.told.refusal = CommandFailed("no", Done(command="x", status=1, out="", err="warning"))

        async def queue(jobs: Collection[str]) -> list[Entry]:
            return [running("77", key=self.told.submitted[0])]

        self.patch(self.told, "queue", queue)
        self.assertEqual((await self.submit()).job, "77")

    async def test_refused(self) -> None:
        for problem in (
            CommandFailed("no such queue", Done(command="x", status=1, out="", err="")),
            NotSupported("no arrays"),
        ):
            self.told.refusal = problem
            await self.refused(self.submit())
            known = await self.batch.known(self.folder / "record")
            self.assertEqual(known and known.refused, str(problem))
            assert known is not None
            self.assertEqual(await self.state(known), State.FAILED)
        self.told.refusal = None
        self.assertEqual((await self.submit()).refused, "")

    async def test_not_now(self) -> None:
        for problem in (
            CommandFailed("Unable to contact the controller", Done(command="x", status=1, out="", err="")),
            CommandFailed("did not answer within 60 seconds"),
        ):
            self.told.refusal = problem
            await self.refused(self.submit())
            self.assertIsNone(await self.batch.known(self.folder / "record"))

    async def test_script_that_cannot_be_run(self) -> None:
        self.script.chmod(0o600)
        self.assertIn("not an executable file", await self.refused(self.submit()))
        self.assertFalse((self.folder / "record").exists())

    def test_values_that_no_batch_system_takes(self) -> None:
        for wanted in ({"queue": "-x"}, {"name": "a\nb"}, {"cpus": 0}, {"directory": Path("here")}):
            values: dict[str, Any] = {"script": self.script, "directory": self.folder, **wanted}
            self.assertRaises(BatchError, Request, **values)
        for text in ("", "1", "5-1", "1-2-3", "0-9999999", "1-5:0x", "a-b"):
            self.assertRaises(BatchError, ArrayRange.parse, text)

    def test_records_that_are_none(self) -> None:
        good = "1\nsystem slurm\nkey lgi0123456789ab\nscript /x\n"
        path = self.folder / "record"
        for text in (
            "",
            "1\n",
            good[:-1],
            good + "more\n",
            good + "key lgi0123456789ab\n",
            good.replace("slurm", "x"),
        ):
            path.write_text(text)
            self.assertRaises(BatchError, read_record, path)
        path.write_text(good)
        self.assertEqual(
            read_record(path), Record(path=path, system="slurm", key="lgi0123456789ab", script=Path("/x"), job="1")
        )
