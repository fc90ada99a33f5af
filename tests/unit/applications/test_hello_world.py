"""The scripts of etc/applications/hello_world, run for real on real processes."""

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

HERE = Path(__file__).parents[3] / "etc" / "applications" / "hello_world"
# The folders beside them are for batch systems.
SCRIPTS = [path for path in HERE.iterdir() if path.is_file()]
# The group leader, as the wrapper of the daemon is one; its child has the same standard output, so that the
# end of that output proves the end of both.
PARENT = """{trap} sh -c '{trap} echo child; while :; do sleep 60 & wait $!; done' &
echo parent; while :; do wait; done"""


class HelloWorldTests(SynchronousTestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        root = Path(temporary.name)
        self.job, self.elsewhere = root / "job", root / "elsewhere"
        for directory in (self.job, self.elsewhere):
            directory.mkdir()
        for script in SCRIPTS:
            shutil.copy(script, self.job / f"LGI_{script.name}")
        (self.job / "LGI_input").write_bytes(b"three words\nand \xff bytes")

    def status(self, script: str) -> int:
        done = subprocess.run(
            [f"./LGI_{script}"],
            cwd=self.job,
            env={"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        return done.returncode

    def start(self, directory: Path, trap: str = "") -> subprocess.Popen[str]:
        """Start parent and child in a group of their own in a directory, and say so in the pid file of the job."""
        process = subprocess.Popen(
            ["sh", "-c", PARENT.format(trap=trap)],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.addCleanup(self.end, process)
        assert process.stdout is not None
        self.assertEqual({process.stdout.readline(), process.stdout.readline()}, {"parent\n", "child\n"})
        (self.job / "LGI_job_run_script_pid").write_text(f"{process.pid}\n")
        return process

    def end(self, process: subprocess.Popen[str]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)

    def test_scripts_are_executable_and_allow_a_job(self) -> None:
        self.assertEqual(len(SCRIPTS), 8)
        for script in (
            "check_system_limits_script",
            "job_check_limits_script",
            "job_prologue_script",
            "job_epilogue_script",
        ):
            self.assertEqual(self.status(script), 0, script)

    def test_greeting(self) -> None:
        self.assertEqual(self.status("job_run_script"), 0)
        greeting = f"Hello from {platform.node()}! The input of this job is:\n".encode()
        self.assertEqual((self.job / "LGI_output").read_bytes(), greeting + b"three words\nand \xff bytes")

    def test_failed_run_leaves_the_reason(self) -> None:
        (self.job / "LGI_input").unlink()
        self.assertNotEqual(self.status("job_run_script"), 0)
        self.assertIn("LGI_input: No such file", (self.job / "LGI_output").read_text())

    def test_job_that_was_never_started(self) -> None:
        for content in (None, "", "1", "0", "-1", "x", "12 13"):
            if content is not None:
                (self.job / "LGI_job_run_script_pid").write_text(content)
            self.assertNotEqual(self.status("job_check_running_script"), 0, content)
            self.assertNotEqual(self.status("job_check_finished_script"), 0, content)
            self.assertEqual(self.status("job_abort_script"), 0, content)

    def test_finished_is_what_has_an_exit_status(self) -> None:
        process = self.start(self.job)
        self.assertNotEqual(self.status("job_check_finished_script"), 0)
        self.end(process)
        (self.job / "LGI_exit_status").write_text("0")
        self.assertNotEqual(self.status("job_check_running_script"), 0)
        self.assertEqual(self.status("job_check_finished_script"), 0)

    def test_abort_ends_the_whole_group(self) -> None:
        process = self.start(self.job)
        self.assertEqual(self.status("job_check_running_script"), 0)
        self.assertEqual(self.status("job_abort_script"), 0)
        assert process.stdout is not None
        self.assertEqual(process.stdout.read(), "")  # comes when the last of them has ended
        # the parent is not collected yet: dead is not running
        self.assertNotEqual(self.status("job_check_running_script"), 0)
        self.assertEqual(process.wait(10), -signal.SIGTERM)
        self.assertEqual(self.status("job_abort_script"), 0)

    def test_abort_kills_what_ignores_term(self) -> None:
        script = self.job / "LGI_job_abort_script"
        text = script.read_text()
        self.assertIn("\ngrace=10 ", text)
        script.write_text(text.replace("\ngrace=10 ", "\ngrace=1 "))
        process = self.start(self.job, trap='trap "" TERM;')
        self.assertEqual(self.status("job_abort_script"), 0)
        assert process.stdout is not None
        self.assertEqual(process.stdout.read(), "")
        self.assertEqual(process.wait(10), -signal.SIGKILL)

    def test_group_without_its_leader_still_runs_and_can_be_aborted(self) -> None:
        process = self.start(self.job)
        process.kill()
        process.wait(10)
        self.assertEqual(self.status("job_check_running_script"), 0)
        self.assertEqual(self.status("job_abort_script"), 0)
        assert process.stdout is not None
        self.assertEqual(process.stdout.read(), "")
        self.assertNotEqual(self.status("job_check_running_script"), 0)

    def test_process_of_somebody_else_with_the_same_number(self) -> None:
        stranger = subprocess.Popen(
            ["cat"],
            cwd=self.elsewhere,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self.addCleanup(self.end, stranger)
        (self.job / "LGI_job_run_script_pid").write_text(f"{stranger.pid}")
        self.assertNotEqual(self.status("job_check_running_script"), 0)
        self.assertEqual(self.status("job_abort_script"), 0)
        assert stranger.stdin is not None and stranger.stdout is not None
        stranger.stdin.write("alive\n")
        self.assertEqual(stranger.stdout.readline(), "alive\n")
