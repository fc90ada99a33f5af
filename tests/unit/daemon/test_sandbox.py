"""Jobs under uids of their own: what they cannot do to each other, to the daemon and to the machine."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lgi.daemon import jobdir, runscript, sandbox
from lgi.daemon.config import read_config
from lgi.daemon.jobdir import EXIT_STATUS, INPUT, OUTPUT, JobDirectory, Tampered
from lgi.daemon.jobfiles import job_files
from lgi.daemon.sandbox import NoUid, Sandbox, SandboxError, confined, examine_sandbox, living, open_sandbox
from lgi.daemon.scripts import Scripts
from lgi.daemon.seal import KEY_FILE, load_seal
from lgi.states import JobState
from tests.unit.daemon.rig import Rig, lives, make_resource, reactor_runs
from tests.unit.daemon.server import URL, FakeServer

NOT_ROOT = "only root can give a job another uid" if os.geteuid() != 0 else None
ENVIRONMENT = {"PATH": os.defpath}


def enterable_directory(case: TestCase | SynchronousTestCase) -> Path:
    """A temporary directory that every uid can enter."""
    path = Path(tempfile.mkdtemp(prefix="lgi-sandbox-"))
    path.chmod(0o711)
    case.addCleanup(shutil.rmtree, path, ignore_errors=True)
    return path


class SandboxedJobs(TestCase):
    """Job directories with a sandbox, whose scripts run as real processes."""

    skip = NOT_ROOT
    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await reactor_runs()
        self.directory = enterable_directory(self)
        self.file = make_resource(self.directory)
        self.run_directory = self.directory / "run"
        self.run_directory.chmod(0o711)
        self.seal = load_seal(self.run_directory)
        self.sandbox = Sandbox()
        self.scripts = Scripts(processes=reactor, clock=Clock(), inherited=ENVIRONMENT, sandboxed=True)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.scripts.stop()))

    def job(self, **bodies: str) -> JobDirectory:
        config = read_config(self.file)
        application = config.projects[0].applications[0]
        contents = job_files(config, application, URL, URL, FakeServer().submit(input=None))
        contents |= {f"LGI_job_{name}_script": f"#!/bin/sh\n{body}\n".encode() for name, body in bodies.items()}
        uid = self.sandbox.take(None)
        job = jobdir.prepare(self.run_directory, self.seal, "LGI", "hello_world", contents, uid=uid).publish()
        self.addCleanup(jobdir.discard, job.path)
        job.write(INPUT, b"the input")
        job.write("LGI_state", b"running")
        return job

    async def said(self, job: JobDirectory, name: str = "prologue") -> str:
        outcome = await self.scripts.run(job, f"LGI_job_{name}_script")
        return outcome.said

    async def ran(self, job: JobDirectory) -> int | None:
        _, exited = runscript.start(self.scripts, job)
        await exited
        return job.exit_status()

    async def succeeded(self, job: JobDirectory, attempts: dict[str, str]) -> list[str]:
        """Which of these commands succeed under the job's uid, each in a shell of its own."""
        done = []
        for name, command in attempts.items():
            words = ["setsid", *confined(job.uid or 0, ["sh", "-c", command])]
            tried = subprocess.run(words, cwd=job.path, env=ENVIRONMENT, capture_output=True, check=False)
            if tried.returncode == 0:
                done.append(name)
        return done


class RightsTests(SandboxedJobs):
    async def test_a_process_of_a_job_has_no_rights_but_its_uids(self) -> None:
        body = "cat /proc/self/status; echo Umask:$(umask) Core:$(ulimit -c) Home:$HOME:$TMPDIR"
        job = self.job(prologue=body, run=f"{{ {body}; }} >>LGI_output")
        said = [await self.said(job)]
        self.assertEqual(await self.ran(job), 0)
        said.append(job.output(10000).decode())
        for text in said:
            lines = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            self.assertEqual(lines["Uid"].split(), [str(job.uid)] * 4)
            self.assertEqual(lines["Gid"].split(), [str(job.uid)] * 4)
            self.assertEqual(lines["Groups"].split(), [])
            for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                self.assertEqual(int(lines[kind], 16), 0, kind)
            self.assertEqual(lines["NoNewPrivs"], "1")
            self.assertIn(f"Umask:0077 Core:0 Home:{job.path}:{job.path}", text)

    async def test_a_program_with_the_setuid_bit_gives_nothing(self) -> None:
        program = self.directory / "id"
        shutil.copy(shutil.which("id") or "", program)
        program.chmod(0o4755)
        control = subprocess.run(
            ["setpriv", "--reuid=2100000000", "--clear-groups", str(program), "-u"], capture_output=True, check=True
        )
        self.assertEqual(control.stdout, b"0\n", "the file system does not heed the setuid bit, this shows nothing")
        job = self.job(prologue=f"'{program}' -u")
        self.assertEqual(await self.said(job), str(job.uid))

    async def test_all_scripts_and_the_check_of_limits(self) -> None:
        names = ("check_limits", "check_running", "check_finished", "prologue", "epilogue", "abort")
        job = self.job(**dict.fromkeys(names, "id -u"))
        for name in names:
            self.assertEqual(await self.said(job, name), str(job.uid), name)

    async def test_what_a_job_needs_works(self) -> None:
        body = (
            "set -e; cat LGI_key_file LGI_input >LGI_output; echo more >>LGI_output; mkdir own; echo x >own/file;"
            "echo said >/dev/stderr; flock -n LGI_step.lock true && exit 3; mktemp; exit 7"
        )
        job = self.job(run=body, check_running="echo said >/dev/stderr", epilogue="echo said >/dev/stderr")
        self.assertEqual(await self.said(job, "check_running"), "said")
        self.assertTrue((await self.scripts.run(job, "LGI_job_epilogue_script", keep=True)).ok)
        self.assertEqual(await self.ran(job), 7)
        self.assertEqual(job.output(100), b"the resource.key\nthe inputmore\n")
        self.assertIn("said", (job.path / "job_run_script.log").read_text())
        self.assertTrue(runscript.is_running(job) is False)
        job.verify()


class SeparationTests(SandboxedJobs):
    async def running(self) -> tuple[JobDirectory, int]:
        job = self.job(run="echo secret >own; exec sleep 60")
        pid, _ = runscript.start(self.scripts, job)
        self.addCleanup(sandbox.end_processes, job.uid or 0)
        while not (job.path / "own").exists():
            await Deferred.fromCoroutine(reactor_runs())
        return job, pid

    def attempts(self, job: JobDirectory, pid: int) -> dict[str, str]:
        """What only the job itself may do."""
        return {
            "list": f"ls '{job.path}'",
            "enter": f"cd '{job.path}'",
            "read its file": f"cat '{job.path}/own'",
            "read a file of the daemon's": f"cat '{job.path}/LGI_key_file'",
            "write": f"touch '{job.path}/new'",
            "change the output": f"echo x >>'{job.path}/LGI_output'",
            "remove": f"rm '{job.path}/own'",
            "lock": f"flock -sw0 '{job.path}/LGI_job_id' true",
            "look at the environment": f"cat /proc/{pid}/environ",
            "look at the memory, as a debugger": f"dd if=/proc/{pid}/mem bs=1 count=0 && ls -l /proc/{pid}/exe",
            "enter by the process": f"ls /proc/{pid}/cwd/",
            "take its files by the process": f"cat /proc/{pid}/fd/1",
            "lower": f"renice -n 19 -p {pid}",
            "signal": f"kill -s CONT {pid}",
            "kill": f"kill -s KILL {pid}",
        }

    async def test_one_job_cannot_touch_another(self) -> None:
        one, pid = await self.running()
        other = self.job()
        self.assertNotEqual(one.uid, other.uid)
        attempts = self.attempts(one, pid)
        self.assertEqual(await self.succeeded(other, attempts), [])
        self.assertTrue(runscript.is_running(one))
        self.assertEqual(await self.succeeded(one, attempts), list(attempts), "they are possible for itself")

    async def test_the_daemons_own(self) -> None:
        job = self.job()
        (self.run_directory / ".lgi-daemon.lock").touch(0o600)
        before = {path: path.stat().st_ino for path in self.run_directory.iterdir()}
        attempts = {
            "read the seal's key": f"cat '{self.run_directory / KEY_FILE}'",
            "lock": f"flock -sn '{self.run_directory / '.lgi-daemon.lock'}' true",
            "list the run directory": f"ls '{self.run_directory}'",
            "list the jobs": "ls ..",
            "make a job": "mkdir ../JOB_" + "A" * 32,
            "rename itself": "mv . ../x || mv ../$(basename $PWD) ../x",
            "open itself": "chmod 777 .",
            "remove the sticky bit": "chmod -t .",
            "signal the daemon": f"kill -s CONT {os.getpid()}",
            "look at the daemon": f"cat /proc/{os.getpid()}/environ",
        }
        self.assertEqual(await self.succeeded(job, attempts), [])
        self.assertEqual({path: path.stat().st_ino for path in self.run_directory.iterdir()}, before)

    async def test_sealed_files_stay_as_they_are(self) -> None:
        job = self.job()
        runscript_log = job.path / "job_run_script.log"
        names = [path.name for path in job.path.iterdir() if path.name != OUTPUT]
        self.assertGreater(len(names), 50)
        for name in names:
            attempts = {
                "change": f"echo x >>{name}",
                "remove": f"rm -f {name}",
                "rename": f"mv -f {name} x",
                "replace": f"touch y && mv -f y {name}",
                "link over": f"ln -sf /etc/passwd {name}",
                "mode": f"chmod 777 {name}",
            }
            done = await self.succeeded(job, attempts)
            self.assertEqual(done, ["change"] if name.endswith(".log") else [], name)
        job.verify()
        self.assertEqual(stat.S_IMODE(runscript_log.stat().st_mode), 0o660)
        self.assertEqual(
            await self.succeeded(job, {"remove its own": "rm LGI_output && echo new >LGI_output"}), ["remove its own"]
        )
        self.assertEqual(job.output(10), b"new\n")

    async def test_nothing_is_in_the_way_of_a_change(self) -> None:
        job = self.job(prologue="mkdir .LGI_state.new .LGI_state.hash.new; ln -s /etc .LGI_owners.new")
        await self.said(job)
        job.write("LGI_state", b"aborting")
        job.verify()
        self.assertIs(job.state, JobState.ABORTING)


class PlantedTests(SandboxedJobs):
    """What a job puts where the daemon, which is root, reads and writes."""

    def setUpSecret(self) -> Path:
        secret = self.directory / "secret"
        secret.write_text("7")
        secret.chmod(0o600)
        return secret

    async def test_links_in_the_place_of_what_is_read(self) -> None:
        secret = self.setUpSecret()
        job = self.job(run=f"rm LGI_output; ln -s '{secret}' LGI_output; ln -sf '{secret}' .LGI_exit_status.new")
        self.assertIsNone(await self.ran(job))
        (job.path / EXIT_STATUS).unlink(missing_ok=True)
        (job.path / EXIT_STATUS).symlink_to(secret)
        self.assertEqual((job.output(100), job.exit_status(), job.report(100, job.exit_status())), (b"", None, b""))
        for name in (OUTPUT, EXIT_STATUS):
            (job.path / name).unlink()
            os.link(secret, job.path / name)  # where Linux lets users do this
        self.assertEqual((job.output(100), job.exit_status(), job.report(100, job.exit_status())), (b"", None, b""))
        self.assertEqual(secret.read_text(), "7")
        for name in (OUTPUT, EXIT_STATUS):
            (job.path / name).unlink()
            os.mkfifo(job.path / name)
            os.chown(job.path / name, job.uid or 0, job.uid or 0)
        self.assertEqual((job.output(100), job.exit_status(), job.report(100, job.exit_status())), (b"", None, b""))

    async def test_the_exit_status_is_a_byte(self) -> None:
        job = self.job(run="exit 0")
        await self.ran(job)
        for text, status in (("255", 255), ("256", None), ("9" * 15, None), ("-1", None), ("\u0662", None)):
            (job.path / EXIT_STATUS).write_text(text)
            self.assertEqual(job.exit_status(), status)

    async def test_removing_follows_no_links_and_is_not_stopped_by_depth(self) -> None:
        secret = self.setUpSecret()
        deep = "i=0; while [ $i -lt 1900 ]; do mkdir d && cd d || exit 9; i=$((i+1)); done"
        job = self.job(run=f"ln -s '{self.directory}' out; mkdir shut; touch shut/x; chmod 0 shut; {deep}")
        self.assertEqual(await self.ran(job), 0)
        self.assertTrue(jobdir.discard(job.retire()))
        self.assertFalse(job.path.exists())
        self.assertTrue(secret.exists())


class KilledTests(SandboxedJobs):
    async def test_everything_of_a_uid_is_killed_and_nothing_else(self) -> None:
        forking = (
            "setsid sleep 60 >/dev/null 2>&1 99>&- & (trap '' TERM; while :; do sleep 0.01 & wait; done) 99>&- &"
        )
        job, other = self.job(run=f'bash -c "{forking}"'), self.job(run="exec sleep 60")
        runscript.start(self.scripts, other)
        self.addCleanup(sandbox.end_processes, other.uid or 0)
        await self.ran(job)
        uid = job.uid or 0
        self.assertGreaterEqual(len(living((uid,))[uid]), 2)
        sandbox.end_processes(uid)
        self.assertEqual(living((uid,)), {})
        self.assertTrue(runscript.is_running(other))

    async def test_a_directory_is_not_removed_before_its_processes(self) -> None:
        job = self.job(run="bash -c 'sleep 60 >/dev/null 2>&1 99>&- &'")
        await self.ran(job)
        self.assertIn(job.uid, living())
        self.assertTrue(jobdir.discard(job.retire()))
        self.assertNotIn(job.uid, living())


class UidTests(SynchronousTestCase):
    skip = NOT_ROOT

    def test_never_one_twice(self) -> None:
        uids = Sandbox()
        taken = [uids.take(None) for _ in range(20)]
        self.assertEqual(len(set(taken)), 20)
        self.assertTrue(all(sandbox.FIRST_UID <= uid <= sandbox.LAST_UID for uid in taken))
        self.patch(sandbox, "LAST_UID", sandbox.FIRST_UID + 1)
        few = Sandbox()
        found = Sandbox()
        found.hold(sandbox.FIRST_UID)
        self.assertEqual(found.take(None), sandbox.FIRST_UID + 1)
        self.assertEqual(few.take(None, {sandbox.FIRST_UID}), sandbox.FIRST_UID + 1)
        self.assertRaises(NoUid, few.take, None, {sandbox.FIRST_UID})
        few.release(sandbox.FIRST_UID + 1)
        self.assertEqual(few.take(None, {sandbox.FIRST_UID}), sandbox.FIRST_UID + 1)

    def test_a_configured_one(self) -> None:
        uids = Sandbox()
        self.assertEqual(uids.take(50001), 50001)
        self.assertIn("50001", str(self.assertRaises(NoUid, uids.take, 50001)))
        uids.release(50001)
        self.assertEqual(uids.take(50001), 50001)

    def test_not_one_that_processes_have(self) -> None:
        with subprocess.Popen(confined(50002, ["sleep", "60"])) as process:
            self.addCleanup(process.wait)
            while 50002 not in living():
                pass
            self.assertIn("no job's", str(self.assertRaises(NoUid, Sandbox().take, 50002)))
            self.patch(sandbox, "FIRST_UID", 50002)
            self.patch(sandbox, "LAST_UID", 50002)
            self.assertRaises(NoUid, Sandbox().take, None)
            process.kill()

    def test_not_one_of_users_or_their_containers(self) -> None:
        self.patch(sandbox, "_has_name", lambda uid: uid == sandbox.FIRST_UID)
        self.patch(sandbox, "LAST_UID", sandbox.FIRST_UID + 2)
        self.patch(sandbox, "_subordinate", lambda: [range(sandbox.FIRST_UID + 1, sandbox.FIRST_UID + 2)])
        self.assertEqual({Sandbox().take(None) for _ in range(20)}, {sandbox.FIRST_UID + 2})


class StartTests(SynchronousTestCase):
    skip = NOT_ROOT

    def setUp(self) -> None:
        self.directory = enterable_directory(self)
        self.run_directory = self.directory / "run"
        self.run_directory.mkdir(0o700)
        # Python itself may be where jobs cannot go, which is a test of its own.
        self.patch(sys, "executable", "/bin/sh")

    def refusal(self) -> str:
        return str(self.assertRaises(SandboxError, open_sandbox, self.run_directory, ENVIRONMENT))

    def test_the_run_directory_is_opened_for_passage(self) -> None:
        load_seal(self.run_directory)
        self.assertEqual(open_sandbox(self.run_directory, ENVIRONMENT).held, frozenset())
        self.assertEqual(stat.S_IMODE(self.run_directory.stat().st_mode), 0o711)

    def test_a_way_that_is_shut(self) -> None:
        self.directory.chmod(0o700)
        said = self.refusal()
        self.assertIn(f"cannot enter {self.directory},", said)
        self.assertIn("--no-sandbox", said)

    def test_python_out_of_reach(self) -> None:
        shut = self.directory / "shut"
        shut.mkdir(0o700)
        (shut / "python").symlink_to("/bin/sh")
        (self.directory / "python").symlink_to(shut / "python")
        self.patch(sys, "executable", str(shut / "python"))
        self.assertIn(f"{shut}, so that jobs could not run `lgi`", self.refusal())

    def test_all_that_is_out_of_reach_is_named_at_once(self) -> None:
        """But not what is below such a place, nor a link that leads there."""
        self.directory.chmod(0o700)
        elsewhere = Path(tempfile.mkdtemp(prefix="lgi-shut-"))
        self.addCleanup(shutil.rmtree, elsewhere)
        (elsewhere / "bin").mkdir(0o700)
        (elsewhere / "bin" / "python").symlink_to("/bin/sh")
        self.patch(sys, "executable", str(elsewhere / "bin" / "python"))
        problem = self.assertRaises(SandboxError, examine_sandbox, self.run_directory, ENVIRONMENT)
        found = re.findall("cannot enter (.*?), so that jobs could not (.*?):", "\n".join(problem.reasons))
        # Where the tests are in a directory of root's own, so is this package.
        self.assertEqual(found[:2], [(str(self.directory), "work there"), (str(elsewhere), "run `lgi`")])

    def test_what_is_not_roots(self) -> None:
        load_seal(self.run_directory)
        for path, uid, mode in (
            (self.run_directory, 1000, 0o700),
            (self.run_directory, 0, 0o770),
            (self.run_directory / KEY_FILE, 0, 0o640),
        ):
            os.chown(path, uid, 0)
            path.chmod(mode)
            self.assertIn(f"{path} belongs to uid {uid} and has mode {mode:04o}", self.refusal())
            os.chown(path, 0, 0)
            path.chmod(0o700)

    def test_programs_that_are_missing(self) -> None:
        said = str(self.assertRaises(SandboxError, open_sandbox, self.run, {"PATH": str(self.directory)}))
        self.assertIn("setpriv", said)

    def test_a_container_without_the_uids(self) -> None:
        self.assertTrue(sandbox._mapped("         0          0 4294967295\n"))
        self.assertFalse(sandbox._mapped("         0     100000      65536\n"))
        self.patch(sandbox, "_mapped", lambda text: False)
        self.assertIn("--no-sandbox", self.refusal())

    def test_who_has_none(self) -> None:
        def begun(wanted: bool) -> Sandbox | None:
            return sandbox.sandbox_for(self.run_directory, ENVIRONMENT, wanted=wanted, configured={50001})

        self.assertIsInstance(begun(True), Sandbox)
        self.assertIsNone(begun(False))
        self.patch(os, "geteuid", lambda: 1000)
        self.assertIsNone(begun(True))


class SandboxedRig(Rig):
    sandboxed = True


class DaemonTests(TestCase):
    """The real daemon with jobs in sandboxes."""

    skip = NOT_ROOT
    timeout = 60

    async def setUp(self) -> None:  # type: ignore[override]  # trial waits for it
        await reactor_runs()
        self.directory = enterable_directory(self)

    def rig(self, server: FakeServer, **bodies: str) -> Rig:
        return self.rig_of(SandboxedRig, server, **bodies)

    def rig_of(self, kind: type[Rig], server: FakeServer, **bodies: str) -> Rig:
        rig = kind(self.directory / "resource", reactor, server, **bodies)
        self.addCleanup(lambda: Deferred.fromCoroutine(rig.clean_up()))
        return rig

    def name_uid(self, rig: Rig, uid: int) -> None:
        text = rig.file.read_text()
        rig.file.write_text(
            text.replace("<capabilities>", f"<job_sandbox_uid> {uid} </job_sandbox_uid> <capabilities>")
        )
        rig.start()

    def uid_of(self, rig: Rig) -> int:
        return int((rig.job / "LGI_job_sandbox_uid").read_text())

    async def appears(self, path: Path) -> None:
        while not path.exists():
            await reactor_runs()

    async def finish(self, rig: Rig, server: FakeServer, state: JobState = JobState.FINISHED) -> None:
        await server.becomes(12, state)
        await rig.tasks.idle()
        self.assertEqual(rig.jobs() + rig.leftovers(), [])
        assert rig.sandbox is not None
        self.assertEqual(rig.sandbox.held, frozenset())

    async def test_from_queue_to_finished_and_what_it_left_running(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(
            server,
            job_run_script="id -u >LGI_output; bash -c 'sleep 600 >/dev/null 2>&1 99>&- & echo $! >>LGI_output'",
        )
        await rig.go()
        await self.finish(rig, server)
        uid, pid = (int(word) for word in (server.jobs[12].output or b"").split())
        self.assertTrue(sandbox.FIRST_UID <= uid <= sandbox.LAST_UID)
        self.assertNotIn(uid, living())
        self.assertFalse(lives(pid))

    async def test_two_jobs_have_two_uids(self) -> None:
        server = FakeServer()
        server.submit(12)
        server.submit(13, owners=("other",))
        rig = self.rig(server, job_run_script="exec sleep 600")
        await rig.go()
        uids = {path.stat().st_gid for path in rig.jobs()}
        self.assertEqual(len(uids), 2)
        assert rig.sandbox is not None
        self.assertEqual(rig.sandbox.held, uids)

    async def test_a_new_daemon_goes_on_with_the_same_uid(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(
            server, job_run_script="while [ ! -e go ]; do sleep 0.02; done", job_epilogue_script="id -u >LGI_output"
        )
        await rig.go()
        uid = self.uid_of(rig)
        await rig.restart()
        assert rig.sandbox is not None
        self.assertEqual(rig.sandbox.held, {uid})
        self.assertEqual(self.uid_of(rig), uid)
        (rig.job / "go").touch()
        await self.finish(rig, server)
        self.assertEqual(server.jobs[12].output, f"{uid}\n".encode())

    async def test_one_job_at_a_time_has_the_configured_uid(self) -> None:
        server = FakeServer()
        server.submit(12)
        server.submit(13, owners=("other",))
        rig = self.rig(server, job_run_script="while [ ! -e go ]; do sleep 0.02; done; id -u >LGI_output")
        self.name_uid(rig, 50003)
        await rig.go()
        await rig.turn(2)
        first = rig.job
        self.assertEqual(self.uid_of(rig), 50003)
        (first / "go").touch()
        number = int((first / "LGI_job_id").read_text())
        await server.becomes(number, JobState.FINISHED)
        await rig.tasks.idle()
        await rig.turn()
        self.assertNotEqual(rig.job, first)
        self.assertEqual(self.uid_of(rig), 50003)
        self.assertEqual(server.jobs[number].output, b"50003\n")

    async def test_a_job_that_hides_and_will_not_be_aborted(self) -> None:
        # It lets go of its lock, and kills the script that looks for it.
        hostile = """exec bash -c 'exec 99>&- >/dev/null 2>&1; touch here; while :; do for p in /proc/[0-9]*; do
            [ -O $p ] && [ ${p#/proc/} != $$ ] && kill -9 ${p#/proc/}; done; done'"""
        await self.will_not_be_aborted(hostile, job_check_running_script="sleep 1; exit 1")

    async def test_a_job_that_will_not_be_aborted(self) -> None:
        # It kills whatever script of its own uid is run to end it.
        hostile = (
            "touch here; while :; do for p in /proc/[0-9]*; do "
            "[ -O $p ] && [ ${p#/proc/} != $$ ] && kill -9 ${p#/proc/}; done; done 2>/dev/null"
        )
        await self.will_not_be_aborted(hostile, job_abort_script="sleep 1; exit 0")

    async def will_not_be_aborted(self, hostile: str, **scripts: str) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server, job_run_script=hostile, **scripts)
        await rig.go()
        uid = self.uid_of(rig)
        await self.appears(rig.job / "here")
        server.change(12, state=JobState.ABORTING)
        while server.jobs[12].state is not JobState.ABORTED:
            await rig.turn()
        await self.finish(rig, server, JobState.ABORTED)
        self.assertNotIn(uid, living())

    async def test_a_directory_without_a_sandbox_is_never_run_as_root(self) -> None:
        server = FakeServer()
        server.submit()
        seen = self.directory / "seen"
        rig = self.rig_of(
            Rig,
            server,
            job_run_script="exec sleep 600",
            job_check_running_script=f"id -u >>{seen}; exit 0",
        )
        await rig.go()
        rig.sandboxed = True
        seen.unlink(missing_ok=True)
        await rig.restart()
        await rig.turn(3)
        self.assertEqual(rig.daemon.holdings.keepers, [])
        self.assertEqual(len(rig.daemon.holdings.taken), 1, "it keeps its place")
        self.assertFalse(seen.exists())
        self.assertEqual(server.jobs[12].state, JobState.RUNNING)

    async def test_a_directory_with_a_sandbox_keeps_it(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(
            server, job_run_script="while [ ! -e go ]; do sleep 0.02; done", job_epilogue_script="id -u >LGI_output"
        )
        await rig.go()
        uid = self.uid_of(rig)
        rig.sandboxed = False
        await rig.restart()
        (rig.job / "go").touch()
        await server.becomes(12, JobState.FINISHED)
        await rig.tasks.idle()
        self.assertEqual(server.jobs[12].output, f"{uid}\n".encode())
        self.assertEqual(rig.jobs() + rig.leftovers(), [])

    async def test_a_directory_that_has_lost_its_owner_is_refused(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server, job_run_script="exec sleep 600")
        await rig.go()
        uid, job = self.uid_of(rig), rig.job
        self.addCleanup(sandbox.end_processes, uid)
        for group, mode in ((uid, 0o700), (0, 0o1770), (uid + 1 if uid < sandbox.LAST_UID else uid - 1, 0o1770)):
            rig.kill()
            os.chown(job, 0, group)
            job.chmod(mode)
            rig.start()
            await rig.go()
            self.assertEqual(rig.daemon.holdings.keepers, [], (group, mode))
            os.chown(job, 0, uid)
            job.chmod(0o1770)

    async def test_not_taken_when_the_disk_is_full_leaves_no_uid_behind(self) -> None:
        server = FakeServer()
        server.submit()
        rig = self.rig(server)

        def full(*arguments: object, **named: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(jobdir, "write_new", full)
        await rig.go()
        assert rig.sandbox is not None
        self.assertEqual((rig.jobs() + rig.leftovers(), rig.sandbox.held), ([], frozenset()))


class NotRootTests(SynchronousTestCase):
    def test_only_root_runs_a_sandboxed_job(self) -> None:
        self.patch(os, "geteuid", lambda: 1000)
        scripts = Scripts(processes=None, clock=None, inherited={})
        job = JobDirectory(path=Path("/nowhere"), seal=None, uid=5)  # type: ignore[arg-type]
        self.assertIn("only root", str(self.assertRaises(Tampered, scripts.command, job, "true")))

    def test_a_sandbox_runs_nothing_without_one(self) -> None:
        scripts = Scripts(processes=None, clock=None, inherited={}, sandboxed=True)
        job = JobDirectory(path=Path("/nowhere"), seal=None)  # type: ignore[arg-type]
        self.assertIn("--no-sandbox", str(self.assertRaises(Tampered, scripts.command, job, "true")))
