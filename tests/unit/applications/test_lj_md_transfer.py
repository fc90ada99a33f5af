"""Prologue and epilogue of etc/applications/lj_md, with a directory in the place of the job's repository."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

HERE = Path(__file__).parents[3] / "etc" / "applications" / "lj_md"
# What the scripts use of the command line: statuses, file names as whole words, and nothing done on a failure.
LGI = """#!/bin/sh
case $* in
"batch status --record batch --exit-code") echo 143; exit ;;
"batch status --record batch --reason") echo cancelled; exit ;;
esac
[ "$1 $3" = "files ." ] || exit 64
[ -d "$REPOSITORY" ] || { echo "no connection" >&2; exit 1; }
action=$2
shift 3
case $action in
ls) cd "$REPOSITORY" && for name in *; do [ ! -e "$name" ] || echo "$name $(stat -c %s "$name") bytes"; done ;;
get) for name; do [ ! -e "$REPOSITORY/.broken" ] && cp "$REPOSITORY/$name" . || exit 1; done ;;
put) for name; do cp "$name" "$REPOSITORY" || exit 1; done ;;
esac
"""


class TransferTests(SynchronousTestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        root = Path(temporary.name)
        self.job, self.repository, self.programs = (root / name for name in ("job", "repository", "bin"))
        for directory in (self.job, self.repository, self.programs):
            directory.mkdir()
        (self.programs / "lgi").write_text(LGI)
        (self.programs / "lgi").chmod(0o755)
        shutil.copy(HERE / "lj_md.py", self.job / "LGI_job_run_script")
        for name in ("prologue", "epilogue"):
            shutil.copy(HERE / f"job_{name}_script", self.job / f"LGI_job_{name}_script")
        (self.job / "LGI_input").write_text("structure = mine.xyz\nsteps = 3\n")

    def status(self, script: str) -> int:
        path = f"{self.programs}:{Path(sys.executable).parent}:/usr/bin:/bin"
        done = subprocess.run(
            [f"./LGI_job_{script}_script"],
            cwd=self.job,
            env={"PATH": path, "REPOSITORY": str(self.repository)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return done.returncode

    def test_structure_comes_results_go(self) -> None:
        shutil.copy(HERE / "argon38.xyz", self.repository / "mine.xyz")
        (self.job / "prologue_message").write_text("of an earlier attempt")
        self.assertEqual([self.status("prologue"), self.status("run"), self.status("epilogue")], [0, 0, 0])
        for name in ("energies.csv", "trajectory.xyz", "final.xyz"):
            self.assertEqual((self.repository / name).read_bytes(), (self.job / name).read_bytes())

    def test_missing_structure_is_the_error_of_the_run(self) -> None:
        (self.repository / "not-mine.xyz").write_text("")
        (self.job / "mine.xyz").write_bytes((HERE / "argon38.xyz").read_bytes())  # of an earlier attempt
        self.assertEqual(self.status("prologue"), 0)
        reason = "mine.xyz: is not in the repository of this job; upload it with the job, or correct 'structure'"
        self.assertIn(reason, (self.job / "LGI_output").read_text())
        self.assertEqual(self.status("run"), 2)
        self.assertIn(reason, (self.job / "LGI_output").read_text())
        self.assertEqual(self.status("epilogue"), 0)
        self.assertEqual([path.name for path in self.repository.iterdir()], ["not-mine.xyz"])

    def test_mistakes_in_the_input_are_left_to_the_run(self) -> None:
        (self.job / "LGI_input").write_text("steps = none\n")
        self.assertEqual([self.status("prologue"), self.status("run")], [0, 2])
        self.assertIn("LGI_input line 1: steps = none", (self.job / "LGI_output").read_text())

    def test_unreachable_repository_is_tried_again(self) -> None:
        self.repository.rmdir()
        self.assertNotEqual(self.status("prologue"), 0)
        self.assertFalse((self.job / "prologue_message").exists())
        (self.job / "energies.csv").write_text("step\n")
        self.assertNotEqual(self.status("epilogue"), 0)

    def test_interrupted_download_is_tried_again(self) -> None:
        shutil.copy(HERE / "argon38.xyz", self.repository / "mine.xyz")
        (self.repository / ".broken").touch()
        self.assertNotEqual(self.status("prologue"), 0)
        (self.repository / ".broken").unlink()
        self.assertEqual(self.status("prologue"), 0)

    def test_results_that_exist_are_uploaded(self) -> None:
        (self.job / "energies.csv").write_text("step\n")
        self.assertEqual(self.status("epilogue"), 0)
        self.assertEqual([path.name for path in self.repository.iterdir()], ["energies.csv"])

    def test_after_a_batch_job_the_results_are_uploaded_and_its_end_is_told(self) -> None:
        shutil.copy(HERE / "batch" / "job_epilogue_script", self.job / "LGI_job_epilogue_script")
        (self.job / "energies.csv").write_text("step\n")
        (self.job / "LGI_output").write_text("running\n")
        (self.job / "LGI_exit_status").write_text("0")
        self.repository.rename(self.repository.with_name("away"))
        self.assertNotEqual(self.status("epilogue"), 0)
        self.assertEqual((self.job / "LGI_output").read_text(), "running\n")
        self.repository.with_name("away").rename(self.repository)
        self.assertEqual(self.status("epilogue"), 0)
        self.assertEqual([path.name for path in self.repository.iterdir()], ["energies.csv"])
        self.assertEqual((self.job / "LGI_exit_status").read_text(), "143")
        self.assertEqual((self.job / "LGI_output").read_text(), "running\ncancelled\n")
