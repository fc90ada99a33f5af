"""The library of batch systems on a real Slurm, and what only a real one does."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping

from twisted.internet.defer import Deferred, gatherResults

from lgi.batch.command import Commands
from lgi.batch.jobs import Batch
from lgi.batch.shared import Shared
from lgi.batch.slurm import Slurm
from lgi.batch.values import ArrayRange, BatchError, Entry, State, Status
from tests.contract import batch
from tests.contract.batch import SLEEP
from tests.integration import slurm


class SlurmTests(batch.BatchContract):
    """The contract, and more."""

    system = "slurm"

    def environment(self) -> Mapping[str, str]:
        return slurm.cluster().environment

    def do(self, *command: str) -> None:
        """Run a command of Slurm, as an administrator would."""
        subprocess.run(command, env=self.environment(), check=True, stdout=subprocess.DEVNULL)

    async def test_scancel_behind_our_back(self) -> None:
        job = await self.submit(SLEEP)
        pid = int(await self.file("pid"))
        self.do("scancel", job.job)
        self.assertEqual((await self.over(job)).state, State.CANCELLED)
        await self.gone(pid)

    async def test_what_was_seen_is_remembered_when_slurm_forgets_it(self) -> None:
        job = await self.submit(SLEEP)
        await self.file("pid")
        self.do("scancel", job.job)
        await self.over(job)
        late = time.monotonic() + batch.SECONDS
        while any(entry.job == job.job for entry in await self.opened.queue([])):  # MinJobAge
            self.assertLess(time.monotonic(), late)
        self.assertEqual((await self.status(job)).state, State.CANCELLED)

    async def test_end_is_known_although_slurm_has_forgotten_the_job(self) -> None:
        job = await self.submit("exit 3")
        late = time.monotonic() + batch.SECONDS
        while not (self.folder / "job.exit").exists() or await self.opened.queue([]):
            self.assertLess(time.monotonic(), late)
        status = await self.status(job)
        self.assertEqual((status.state, status.exit_code), (State.FAILED, 3))

    async def test_killed_by_a_signal(self) -> None:
        job = await self.submit("kill -9 $$")
        status = await self.over(job)
        self.assertEqual((status.state, status.exit_code, status.signal), (State.FAILED, 137, 9))

    async def test_controller_is_restarted_while_jobs_wait_and_run(self) -> None:
        cluster = slurm.cluster()
        running = await self.submit("echo on >started; until [ -e go ]; do sleep 0.1; done; exit 7", "running")
        held = await self.submit("echo ran >held.ran", "held", hold=True)
        ends = await self.submit("echo on >ends.started; until [ -e end ]; do sleep 0.1; done", "ends")
        await self.file("started")
        await self.file("ends.started")
        cluster.stop_controller()
        try:
            (self.folder / "end").touch()
            self.batch = self.make()
            self.opened.commands.limit = 3.0
            with self.assertRaises(BatchError):  # neither finished nor anything else
                await self.batch.status([running, held, ends])
        finally:
            cluster.start_controller()
        self.batch = self.make()
        self.assertEqual((await self.over(ends)).state, State.FINISHED)
        await self.state(running, State.RUNNING)
        await self.state(held, State.HELD)
        (self.folder / "go").touch()
        status = await self.over(running)
        self.assertEqual((status.state, status.exit_code), (State.FAILED, 7))
        await self.batch.resume(held.job)
        self.assertEqual((await self.over(held)).state, State.FINISHED)

    async def test_requeued_job_is_not_over_and_runs_to_its_end(self) -> None:
        job = await self.submit("echo run >>runs; [ -e go ] && exit 0; " + SLEEP)
        await self.file("pid")
        await self.state(job, State.RUNNING)
        (self.folder / "go").touch()
        self.do("scontrol", "requeue", job.job)
        await self.state(job, State.PENDING)
        # Slurm would wait for two minutes, and at once it fails to start the job.
        self.do("scontrol", "update", f"jobid={job.job}", "starttime=now+2")
        states: set[State] = set()

        def over(status: Status) -> bool:
            states.add(status.state)
            return status.state.over

        status = await self.until(job, over)
        self.assertEqual((status.state, status.exit_code), (State.FINISHED, 0))
        self.assertLessEqual(states, {State.PENDING, State.RUNNING, State.HELD, State.FINISHED})
        self.assertEqual((self.folder / "runs").read_text(), "run\nrun\n")

    async def test_task_of_an_array_is_cancelled(self) -> None:
        # The one that is cancelled would not go by itself: it is told to end after `cancel` has returned.
        waiting = '[ "$SLURM_ARRAY_TASK_ID" = 2 ] && exec sleep 300; until [ -e go ]; do sleep 0.1; done'
        job = await self.submit(waiting, array=ArrayRange(first=1, last=3))
        await self.state(job, State.RUNNING)
        await self.batch.cancel([f"{job.job}_2"])
        (self.folder / "go").touch()
        await self.over(job)
        tasks = (await self.batch.tasks([job]))[job.job]
        found = {task: one.state for task, one in tasks.items()}
        self.assertEqual(found, {1: State.FINISHED, 2: State.CANCELLED, 3: State.FINISHED})

    async def test_reservation(self) -> None:
        start = int(time.time()) + 3000
        name = await self.opened.reserve(nodes=1, start=start, seconds=60)
        try:
            [found] = [one for one in await self.opened.reservations() if one.name == name]
            self.assertEqual((found.state, found.start, found.end), ("waiting", start, start + 60))
            job = await self.submit("true", reservation=name)
            await self.state(job, State.PENDING)
            await self.batch.cancel([job])
            self.assertEqual((await self.over(job)).state, State.CANCELLED)
        finally:
            await self.opened.release(name)
        self.assertNotIn(name, [one.name for one in await self.opened.reservations()])

    async def test_one_call_of_squeue_for_many_jobs_and_processes(self) -> None:
        jobs = [await self.submit("until [ -e go ]; do sleep 0.1; done", f"job{number}") for number in range(10)]
        calls = []

        class Counted(Slurm):
            async def queue(self, jobs: object) -> list[Entry]:
                calls.append(jobs)
                return await super().queue(())

        counted = Counted(Commands(reactor=self.reactor, environment=self.environment()))
        shares = [
            Shared(system=counted, directory=self.folder / "cache", reactor=self.reactor) for _ in range(len(jobs))
        ]
        many = [Batch(system=counted, shared=shared, max_age=30.0) for shared in shares]
        await shares[0].forget()
        found = await gatherResults(
            [Deferred.fromCoroutine(one.status([job])) for one, job in zip(many, jobs, strict=True)]
        )
        self.assertEqual(len(found), len(jobs))
        self.assertEqual(len(calls), 1)
        (self.folder / "go").touch()
        for job in jobs:
            await self.over(job)
