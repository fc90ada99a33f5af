"""`lgi batch` as scripts call it: the program itself, on local processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lgi.batch.system import NAMES

HELLO_WORLD = Path(__file__).parents[3] / "etc" / "applications" / "hello_world"
LGI = Path(sys.executable).with_name("lgi")
SECONDS = 30.0


class BatchTests(SynchronousTestCase):
    timeout = 120

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / "cache").mkdir(mode=0o700)
        self.environment = {"PATH": os.environ["PATH"], "LGI_BATCH_CACHE": str(self.folder / "cache")}
        self.addCleanup(self.end)

    def lgi(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(LGI), "batch", *words],
            cwd=self.folder,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def end(self) -> None:
        if (self.folder / "record").exists():
            self.lgi("cancel", "--record", "record")

    def submit(self, text: str) -> str:
        done = self.lgi("submit", "--system", "local", "--record", "record", "-", given=f"#!/bin/sh\n{text}\n")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.strip()

    def ask(self, *words: str) -> tuple[int, str]:
        done = self.lgi("status", "--record", "record", "--max-age", "0", *words)
        return done.returncode, done.stdout.strip()

    def over(self) -> None:
        late = time.monotonic() + SECONDS
        while self.ask("--is-finished")[0] == 1:
            self.assertLess(time.monotonic(), late)

    def test_life_of_a_job(self) -> None:
        self.assertEqual(self.ask(), (0, "unsubmitted"))
        self.assertEqual((self.ask("--is-running")[0], self.ask("--is-finished")[0]), (1, 1))
        number = self.submit("until [ -e go ]; do sleep 0.05; done; exit 3")
        self.assertEqual(self.ask(), (0, "running"))
        self.assertEqual(
            (self.ask("--is-running")[0], self.ask("--is-finished")[0], self.ask("--exit-code")[0]), (0, 1, 1)
        )
        self.assertEqual(self.submit("until [ -e go ]; do sleep 0.05; done; exit 3"), number)
        self.assertEqual((self.folder / "record").read_text().split("\n")[0], number)
        (self.folder / "go").touch()
        self.over()
        self.assertEqual(self.ask(), (0, "failed"))
        self.assertEqual((self.ask("--is-running")[0], self.ask("--exit-code")), (1, (0, "3")))

    def test_hold_resume_details_and_cancel(self) -> None:
        number = self.submit("exec sleep 300")
        self.assertEqual(self.lgi("hold", "--record", "record").returncode, 0)
        self.assertEqual(self.ask(), (0, "suspended"))
        self.assertEqual(self.lgi("resume", "--record", "record").returncode, 0)
        self.assertEqual(self.ask(), (0, "running"))
        self.assertIn("sleep 300", self.lgi("details", "--system", "local", number).stdout)
        self.assertEqual(self.lgi("cancel", "--record", "record", "--wait", "20").returncode, 0)
        self.assertEqual(self.ask(), (0, "cancelled"))
        self.assertEqual(self.lgi("cancel", "--record", "record", "--wait", "20").returncode, 0)
        done = self.lgi("hold", "--record", "record")
        self.assertEqual((done.returncode, "not in the queue" in done.stderr), (1, True))

    def test_table_and_json_for_many(self) -> None:
        number = self.submit("exec sleep 300")
        done = self.lgi("status", "--record", "record", "--record", "other")
        self.assertEqual(
            [line.split()[:2] for line in done.stdout.splitlines()[1:]],
            [[number, "running"], ["other", "unsubmitted"]],
        )
        found = json.loads(self.lgi("status", "--json", "--system", "local", "1-1", "--record", "record").stdout)
        self.assertEqual([one["state"] for one in found], ["unknown", "running"])

    def test_nothing_can_be_said_is_126(self) -> None:
        (self.folder / "record").write_text("no record\n")
        for question in ("--is-running", "--is-finished", "--exit-code"):
            done = self.lgi("status", "--record", "record", question)
            self.assertEqual(done.returncode, 126)
            self.assertIn("is no record of a submission", done.stderr)
        (self.folder / "record").unlink()
        self.assertEqual(self.lgi("status", "--system", "local", "1-1", "--is-running").returncode, 126)
        self.environment["PATH"] = "/nowhere"
        done = self.lgi("status", "--system", "slurm", "7", "--is-running")
        self.assertEqual((done.returncode, "squeue is not installed" in done.stderr), (126, True))

    def test_batch_system_that_is_not_there_now_is_75(self) -> None:
        done = self.lgi("submit", "--system", "slurm", "--record", "record", "-", given="#!/bin/sh\n")
        if "is not installed" not in done.stderr:  # there is a Slurm here, but none that answers
            self.assertIn("sbatch", done.stderr)
        self.assertEqual(done.returncode, 75, done.stderr)
        self.assertEqual(self.lgi("cancel", "--record", "none", "--wait", "5").returncode, 0)

    def test_mistakes(self) -> None:
        for words in (
            ("status",),
            ("status", "7"),
            ("submit", "x"),
            ("submit", "--system", "x", "x"),
            ("submit", "--system", "local", "-"),
            ("submit", "--system", "local", "--memory", "much", "x"),
            ("submit", "--system", "local", "--time", "1:2", "x"),
            ("status", "--is-running", "--system", "local", "1-1", "2-2"),
        ):
            self.assertEqual(self.lgi(*words).returncode, 2, words)
        done = self.lgi("submit", "--system", "local", "no-such-script")
        self.assertEqual((done.returncode, "not an executable file" in done.stderr), (1, True))


class JobScriptTests(SynchronousTestCase):
    """The scripts of etc/applications/hello_world for batch systems, in a job directory."""

    timeout = 120

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / "cache").mkdir(mode=0o700)
        self.environment = {
            "PATH": f"{LGI.parent}:{os.environ['PATH']}",
            "LGI_BATCH_CACHE": str(self.folder / "cache"),
        }
        self.addCleanup(self.status, "job_abort_script")
        for script in [*(HELLO_WORLD / "batch").iterdir(), HELLO_WORLD / "local" / "job_run_script"]:
            shutil.copy(script, self.folder / f"LGI_{script.name}")
        (self.folder / "LGI_input").write_text("three words\n")

    def status(self, script: str) -> int:
        command = [f"./LGI_{script}"]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, check=False, timeout=60
        )
        return done.returncode

    def finished(self) -> None:
        late = time.monotonic() + SECONDS
        while self.status("job_check_finished_script"):
            self.assertLess(time.monotonic(), late)

    def test_life_of_a_job(self) -> None:
        self.assertEqual(self.status("job_check_running_script"), 1)
        self.assertEqual(self.status("job_check_finished_script"), 1)
        self.assertEqual(self.status("job_run_script"), 0)
        self.finished()
        self.assertEqual(self.status("job_check_running_script"), 1)
        self.assertEqual(self.status("job_epilogue_script"), 0)
        self.assertEqual((self.folder / "LGI_exit_status").read_text(), "0")
        self.assertEqual((self.folder / "LGI_output").read_text().splitlines()[-1], "three words")

    def test_job_that_fails_says_so(self) -> None:
        (self.folder / "LGI_input").unlink()
        self.assertEqual(self.status("job_run_script"), 0)
        self.finished()
        self.assertEqual(self.status("job_epilogue_script"), 0)
        self.assertEqual((self.folder / "LGI_exit_status").read_text(), "1")
        self.assertEqual((self.folder / "LGI_output").read_text().splitlines()[-1], "failed")

    def test_abort(self) -> None:
        self.assertEqual(self.status("job_abort_script"), 0)
        script = self.folder / "LGI_job_run_script"
        script.write_text(script.read_text().replace("exec >LGI_output 2>&1", "exec sleep 300"))
        self.assertEqual(self.status("job_run_script"), 0)
        self.assertEqual(self.status("job_check_running_script"), 0)
        self.assertEqual(self.status("job_check_finished_script"), 1)
        self.assertEqual(self.status("job_abort_script"), 0)
        self.assertEqual(self.status("job_check_finished_script"), 0)

    def test_one_for_each_batch_system(self) -> None:
        for system in NAMES:
            script = HELLO_WORLD / system / "job_run_script"
            self.assertTrue(os.access(script, os.X_OK))
            self.assertIn(f"--system {system} --record batch -", script.read_text())
