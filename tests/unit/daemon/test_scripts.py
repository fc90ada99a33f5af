"""Scripts as real processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from lgi.daemon import jobdir, runscript
from lgi.daemon.flocks import flocked, is_flocked
from lgi.daemon.jobdir import EXIT_STATUS, RUN_LOCK, RUN_PID, STEP_LOCK, JobDirectory, Tampered
from lgi.daemon.scripts import Scripts, StillRunning, environment
from lgi.daemon.seal import Seal
from lgi.daemon.spawn import Child, spawn
from tests.unit.daemon.rig import Tap, end_group, lives, reactor_runs

SEAL = Seal(key=b"k" * 32)
ROOT = Path(__file__).parents[3]


class ScriptTestCase(TestCase):
    timeout = 20

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await reactor_runs()
        self.clock = Clock()
        self.scripts = Scripts(processes=reactor, clock=self.clock, inherited={"PATH": os.defpath, "SECRET": "x"})
        self.addCleanup(lambda: Deferred.fromCoroutine(self.scripts.stop()))

    def job(self, **scripts: str) -> JobDirectory:
        run = Path(self.mktemp()).absolute()
        run.mkdir()
        contents = {f"LGI_job_{name}_script": f"#!/bin/sh\n{body}\n".encode() for name, body in scripts.items()}
        return jobdir.prepare(run, SEAL, "LGI", "app", contents)

    def tap(self) -> Tap:
        tap = Tap(Path(self.mktemp()).absolute())
        self.addCleanup(tap.close)
        return tap

    def start(self, job: JobDirectory) -> tuple[int, Deferred[int | None]]:
        pid, exited = runscript.start(self.scripts, job)
        self.addCleanup(end_group, pid)
        return pid, exited


class StepTests(ScriptTestCase):
    async def test_status_and_what_it_said(self) -> None:
        outcome = await self.scripts.run(self.job(check_limits="echo yes; exit 0"), "LGI_job_check_limits_script")
        self.assertTrue(outcome.ok)
        outcome = await self.scripts.run(self.job(check_limits="echo no >&2; exit 3"), "LGI_job_check_limits_script")
        self.assertEqual((outcome.ok, outcome.status, outcome.unknown), (False, 3, False))
        self.assertEqual(str(outcome), "exit status 3: no")

    async def test_where_and_with_what_it_runs(self) -> None:
        body = "pwd; cat; env | sort; ps -o pgid=,sid= -p $$ 2>/dev/null || true"
        job = self.job(prologue=body)
        outcome = await self.scripts.run(job, "LGI_job_prologue_script", keep=True)
        said = (job.path / "job_prologue_script.log").read_text()
        self.assertEqual(outcome.said, said.strip())
        self.assertIn(f"{job.path}\n", said)
        self.assertIn(f"LGI_job_directory={job.path}\n", said)
        self.assertIn(f"PATH={Path(sys.executable).parent}:", said)
        self.assertNotIn("SECRET", said)

    async def test_kept_words_are_appended_and_only_the_new_ones_told(self) -> None:
        job = self.job(prologue="echo $(( $(wc -l <job_prologue_script.log) + 1 ))")
        self.assertEqual((await self.scripts.run(job, "LGI_job_prologue_script", keep=True)).said, "1")
        self.assertEqual((await self.scripts.run(job, "LGI_job_prologue_script", keep=True)).said, "2")
        self.assertEqual((job.path / "job_prologue_script.log").read_text(), "1\n2\n")

    async def test_only_the_end_of_a_long_speech_is_told(self) -> None:
        job = self.job(check_limits="head -c 100000 /dev/zero | tr '\\0' x; echo end")
        said = (await self.scripts.run(job, "LGI_job_check_limits_script")).said
        self.assertTrue(said.endswith("xend"))
        self.assertLessEqual(len(said), 4096)

    async def test_one_that_takes_too_long_is_ended(self) -> None:
        tap = self.tap()
        job = self.job(prologue=f"trap '' TERM; {tap.wait}")
        running = Deferred.fromCoroutine(self.scripts.run(job, "LGI_job_prologue_script"))
        self.clock.advance(299)
        self.assertNoResult(running)
        self.clock.advance(1)
        self.clock.advance(10)
        outcome = await running
        self.assertEqual((outcome.status, outcome.unknown, outcome.timed_out), (None, True, True))
        self.assertIn("too long", str(outcome))

    async def test_killed_is_no_answer(self) -> None:
        outcome = await self.scripts.run(self.job(check_running="kill -s KILL $$"), "LGI_job_check_running_script")
        self.assertTrue(outcome.unknown)
        outcome = await self.scripts.run(self.job(check_running="no-such-program"), "LGI_job_check_running_script")
        self.assertTrue(outcome.unknown)

    async def test_what_was_changed_is_not_run(self) -> None:
        job = self.job(prologue="touch evil")
        path = job.path / "LGI_job_prologue_script"
        path.write_bytes(path.read_bytes() + b"\n")
        with self.assertRaises(Tampered):
            await self.scripts.run(job, "LGI_job_prologue_script")
        self.assertFalse((job.path / "evil").exists())

    async def test_not_beside_one_that_a_former_daemon_left(self) -> None:
        job = self.job(prologue="exit 0")
        with flocked(job.path / STEP_LOCK), self.assertRaises(StillRunning):
            await self.scripts.run(job, "LGI_job_prologue_script")
        self.assertTrue((await self.scripts.run(job, "LGI_job_prologue_script")).ok)

    async def test_the_lock_is_the_scripts_alone(self) -> None:
        # What the daemon held open, a script of another job would hold for a moment after its fork.
        tap = self.tap()
        job = self.job(prologue=tap.wait, run="exit 0")
        running = Deferred.fromCoroutine(self.scripts.run(job, "LGI_job_prologue_script"))
        _, exited = self.start(job)
        held = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
        self.assertNotIn(str(job.path / STEP_LOCK), held)
        self.assertNotIn(str(job.path / RUN_LOCK), held)
        self.assertTrue(is_flocked(job.path / STEP_LOCK))
        tap.open()
        self.assertTrue((await running).ok)
        self.assertFalse(is_flocked(job.path / STEP_LOCK))
        await exited

    async def test_none_is_started_while_the_daemon_stops(self) -> None:
        job = self.job(prologue="exit 0")
        await self.scripts.stop()
        with self.assertRaises(StillRunning):
            await self.scripts.run(job, "LGI_job_prologue_script")

    async def test_what_it_leaves_in_the_background_blocks_nothing(self) -> None:
        job = self.job(prologue="sleep 60 >/dev/null 2>&1 & echo $!")
        outcome = await self.scripts.run(job, "LGI_job_prologue_script")
        self.addCleanup(os.kill, int(outcome.said), signal.SIGKILL)
        self.assertFalse(is_flocked(job.path / STEP_LOCK))

    def test_environment_without_a_job(self) -> None:
        self.assertEqual(set(environment(None, {})), {"PATH", "HOME", "LANG"})


class RunScriptTests(ScriptTestCase):
    async def test_number_lock_and_status(self) -> None:
        tap = self.tap()
        job = self.job(run=f"{tap.wait}; echo said; echo out >LGI_output; exit 3")
        pid, exited = self.start(job)
        self.assertEqual(job.text(RUN_PID), str(pid))
        self.assertTrue(runscript.is_running(job))
        self.assertIsNone(job.exit_status())
        tap.open()
        self.assertEqual(await exited, 0)
        self.assertEqual(job.exit_status(), 3)
        self.assertFalse(runscript.is_running(job))
        self.assertEqual((job.path / "job_run_script.log").read_text(), "said\n")
        self.assertEqual(os.stat(job.path / EXIT_STATUS).st_mode & 0o777, 0o600)

    async def test_it_leads_a_session_of_its_own(self) -> None:
        tap = self.tap()
        pid, exited = self.start(self.job(run=tap.wait))
        tap.open()
        self.assertNotEqual(os.getsid(0), pid)
        await exited

    async def test_never_twice(self) -> None:
        tap = self.tap()
        job = self.job(run=f"echo run >>runs; {tap.wait}")
        _, exited = self.start(job)
        self.assertRaises(StillRunning, runscript.start, self.scripts, job)
        tap.open()
        await exited
        self.assertEqual((job.path / "runs").read_text(), "run\n")

    async def test_a_second_run_forgets_the_first_status(self) -> None:
        tap = self.tap()
        job = self.job(run=f"[ -e again ] || exit 0; {tap.wait}")
        await self.start(job)[1]
        self.assertEqual(job.exit_status(), 0)
        (job.path / "again").touch()
        _, exited = self.start(job)
        self.assertIsNone(job.exit_status())
        tap.open()
        await exited

    async def test_running_as_long_as_anything_it_started(self) -> None:
        tap = self.tap()
        job = self.job(run=f"({tap.wait}) >/dev/null 2>&1 &")
        _, exited = self.start(job)
        await exited
        self.assertTrue(runscript.is_running(job))
        released = Deferred[None]()
        watcher = ProcessProtocol()
        watcher.processExited = lambda reason: released.callback(None)  # type: ignore[method-assign]
        flock = ["flock", str(job.path / RUN_LOCK), "true"]
        reactor.spawnProcess(watcher, "flock", flock, env=None)
        tap.open()
        await released
        self.assertFalse(runscript.is_running(job))

    async def test_nothing_runs_when_the_number_cannot_be_written(self) -> None:
        job = self.job(run="touch ran")
        children: list[Child] = []

        class Full(JobDirectory):
            def write(self, name: str, content: bytes) -> None:
                raise OSError(28, "No space left on device")

        def noting(*arguments: Any) -> Child:
            children.append(spawn(*arguments))
            return children[-1]

        self.patch(runscript, "spawn", noting)
        self.assertRaises(OSError, runscript.start, self.scripts, Full(path=job.path, seal=SEAL))
        self.assertEqual(await children[0].exited, 125)
        self.assertFalse((job.path / "ran").exists())
        self.assertFalse(runscript.is_running(job))

    async def test_what_was_changed_is_not_run(self) -> None:
        job = self.job(run="exit 0")
        path = job.path / "LGI_job_run_script"
        path.write_bytes(path.read_bytes() + b"touch evil\n")
        self.assertRaises(Tampered, runscript.start, self.scripts, job)
        self.assertFalse(job.has(RUN_PID))


class _Outliver(ProcessProtocol):
    def __init__(self) -> None:
        self.said: Deferred[int] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self.errors = b""

    def outReceived(self, data: bytes) -> None:
        self.said.callback(int(data))

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        if not self.said.called:
            self.said.errback(RuntimeError(self.errors.decode()))
        self.ended.callback(None)


class KilledDaemonTests(ScriptTestCase):
    async def killed_daemon(self, job: JobDirectory, when: str) -> int:
        """Start a run script from another process, and kill that one; returns the script's process number."""
        helper = _Outliver()
        process = reactor.spawnProcess(
            helper,
            sys.executable,
            [sys.executable, "-m", "tests.unit.daemon.outliver", str(job.path), SEAL.key.hex(), when],
            env={"PATH": os.environ["PATH"]},
            path=str(ROOT),
        )
        pid = await helper.said
        self.addCleanup(end_group, pid)
        os.kill(process.pid, signal.SIGKILL)
        await helper.ended
        return pid

    async def test_the_run_script_outlives_the_daemon(self) -> None:
        tap = self.tap()
        job = self.job(run=f"echo run >>runs; {tap.wait}; exit 5")
        pid = await self.killed_daemon(job, "go")
        self.assertEqual(job.text(RUN_PID), str(pid))
        self.assertTrue(runscript.is_running(job))
        self.assertRaises(StillRunning, runscript.start, self.scripts, job)
        ended: Deferred[None] = Deferred()
        self.assertIsNotNone(runscript.watch(reactor, pid, lambda: ended.callback(None)))
        tap.open()
        await ended
        self.assertEqual(job.exit_status(), 5)
        self.assertFalse(runscript.is_running(job))
        self.assertEqual((job.path / "runs").read_text(), "run\n")

    async def test_killed_before_the_number_is_on_disk(self) -> None:
        job = self.job(run="touch ran")
        pid = await self.killed_daemon(job, "before-pid")
        ended: Deferred[None] = Deferred()
        if runscript.watch(reactor, pid, lambda: ended.callback(None)) is not None:
            await ended
        self.assertFalse(lives(pid))
        self.assertFalse((job.path / "ran").exists())
        self.assertFalse(runscript.is_running(job))
        self.assertFalse(job.has(RUN_PID))


class WatchTests(ScriptTestCase):
    def test_a_process_that_is_gone(self) -> None:
        self.assertIsNone(runscript.watch(reactor, 2**22 - 1, lambda: None))

    async def test_looking_no_longer(self) -> None:
        watch = runscript.watch(reactor, os.getpid(), lambda: None)
        assert watch is not None
        watch.stop()
        watch.stop()
        self.assertEqual(reactor.getReaders().count(watch), 0)
