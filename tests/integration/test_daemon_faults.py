"""The resource daemon as a process, while its disk is full, its clock is set, and its certificate expires."""

from __future__ import annotations

import errno
import itertools
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lgi.admin.layout import Layout
from lgi.admin.members import Office
from lgi.ca import CertificateAuthority
from lgi.config import load_config
from tests.integration.grid import PROGRAMS, RESOURCE, Grid, GridCase, Program, until
from tests.integration.reach import programs_for_jobs

SIZE = 2 << 20
HOUR = 3600
SOON = 20.0  # seconds, many cycles of the daemons here
LIFE = timedelta(seconds=8)
RUN = "#!/bin/sh\nsh ./LGI_input >LGI_output 2>&1\n"
# Runs until there is a file `go` in the run directory.
WAITS = "echo begun; while [ ! -e ../../../go ]; do sleep 0.1; done; echo ended"
# A twistd for which the time of day is what a file says it is off by.
SET = """#!{python}
import time
from pathlib import Path
right = time.time
off = Path({off!r})
time.time = lambda: right() + int(off.read_text())
from twisted.scripts.twistd import run
run()
"""


class DaemonCase(GridCase):
    """With jobs whose input is the shell's."""

    def begin(self) -> Grid:
        self.grid = grid = self.make_grid()
        (grid.cfg.parent / "applications" / "hello_world" / "job_run_script").write_text(RUN)
        grid.start_server()
        return grid

    def submit(self, text: str) -> int:
        return self.grid.submit("-a", "hello_world", "--input", text)

    def running(self) -> tuple[int, Path]:
        """A job that runs until `go`, and its directory."""
        job = self.submit(WAITS)
        [directory] = until(self.grid.job_directories, "a job directory")
        until(lambda: (directory / "LGI_output").exists() and (directory / "LGI_output").read_text(), "it runs")
        return job, directory

    def go(self) -> None:
        (self.grid.run / "go").touch()

    def finished(self, job: int, output: str, status: int = 0) -> None:
        found = self.grid.wait_for_state(job, "finished", "aborted")
        self.assertEqual((found["state"], found["output"], found["exit_status"]), ("finished", output, status))


class FullDiskTests(DaemonCase):
    """A small file system is the run directory."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root may mount a small file system to fill")
        run = self.begin().run
        # That of the examples asks for no work where little room is left.
        limits = self.grid.cfg.parent / "applications" / "hello_world" / "check_system_limits_script"
        limits.write_text("#!/bin/sh\nexit 0\n")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=711", "tmpfs", str(run)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            self.skipTest(f"no file system can be mounted here: {done.stderr.decode(errors='replace').strip()}")
        self.addCleanup(subprocess.run, ["umount", "--lazy", str(run)], check=True)
        self.filler = run / ".filler"

    def fill(self) -> None:
        with self.filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError as problem:
                assert problem.errno == errno.ENOSPC

    def test_filled_by_others_and_by_a_job(self) -> None:
        """What runs is finished and reported, once, nothing new is begun, also by a daemon that starts meanwhile."""
        daemon = self.grid.start_daemon()
        first, directory = self.running()
        self.fill()
        second = self.submit("echo second")
        daemon.wait_for("No space left")
        self.assertEqual(self.grid.job(second)["state"], "queued")
        self.assertEqual(list(directory.parent.iterdir()), [directory])
        daemon.stop(signal.SIGKILL)
        again = self.grid.start_daemon()
        again.wait_for("is still running")
        again.wait_for("No space left")
        self.go()
        self.finished(first, "begun\nended\n")
        self.filler.unlink()
        self.finished(second, "second\n")
        self.finished(self.submit("cat /dev/zero >junk; sleep 1; exit 3"), "", 3)
        self.finished(self.submit("echo next"), "next\n")
        until(lambda: not list(self.grid.run.glob("*/*/*")), "nothing is left")
        said = daemon.logged()  # to which the second one has added its own
        self.assertEqual((said.count("started (process"), said.count("reported finished")), (4, 4))
        self.assertEqual(again.stop(), -signal.SIGTERM)
        self.assertNotIn("Traceback", said)


class ClockTests(DaemonCase):
    def test_an_hour_forth_and_back(self) -> None:
        """Work is taken, and aborts are noticed, as if nothing had been."""
        grid = self.begin()
        programs = programs_for_jobs() if os.geteuid() == 0 else PROGRAMS
        if programs is None:
            self.skipTest(f"jobs in a sandbox cannot run {sys.executable}, nor another Python of this version")
        folder = grid.root / "clock"
        folder.mkdir()
        off = folder / "off"
        off.write_text("0")
        twistd = folder / "twistd"
        twistd.write_text(SET.format(python=programs / "python", off=str(off)))
        twistd.chmod(0o755)
        log = grid.root / "log" / "daemon.log"
        daemon = Program("lgi-daemon", grid.cfg, log, "--slow-cycle=1", "--fast-cycle=1", programs=folder)
        grid.programs.append(daemon)
        daemon.wait_for("works in")
        waits, _ = self.running()
        for seconds in (HOUR, -HOUR, 0):
            off.with_name("new").write_text(str(seconds))
            off.with_name("new").replace(off)
            job = self.submit("echo done")
            until(lambda job=job: grid.job(job)["state"] == "finished", f"a job, {seconds} s off", SOON)  # type: ignore[misc]
        off.write_text(str(-HOUR))
        grid.user("delete", str(waits))
        until(lambda: grid.job(waits)["state"] == "aborted", "the abort", SOON)
        times = [datetime.fromisoformat(text) for text in re.findall(r"(?m)^([0-9T:-]{19})[+-]", daemon.logged())]
        steps = [(after - before).total_seconds() for before, after in itertools.pairwise(times)]
        self.assertTrue(max(steps) > HOUR / 2 and min(steps) < -HOUR, "the clock was not set at all")


class CertificateTests(DaemonCase):
    def test_expires_while_a_job_runs(self) -> None:
        """The job is kept, goes on and ends, and is reported once there is a new certificate."""
        grid = self.begin()
        past = timedelta(days=1) - LIFE
        layout = Layout(grid.root)
        authority = CertificateAuthority.open(layout.authority, clock=lambda: datetime.now(UTC) - past)
        office = Office(layout=layout, config=load_config(grid.config), authority=authority)
        office.issue_resource(RESOURCE, projects=(), applications=(), days=1, renew=True)
        daemon = grid.start_daemon()
        job, directory = self.running()
        daemon.wait_for("has expired at")
        self.go()
        until((directory / "LGI_exit_status").exists, "it ends all the same")
        until(lambda: "expired" in daemon.logged().partition("has expired at")[2], "the server refuses the daemon")
        waiting = self.submit("echo another")
        self.assertEqual((grid.job(job)["state"], grid.job(waiting)["state"]), ("running", "queued"))
        grid.ca("issue", "resource", RESOURCE, "--renew")
        daemon.process.send_signal(signal.SIGHUP)
        self.finished(job, "begun\nended\n")
        self.finished(waiting, "another\n")
        until(lambda: not grid.job_directories(), "the directories are gone")
        said = daemon.logged()
        self.assertEqual((said.count("started (process"), said.count("reported finished")), (2, 2))
        self.assertNotIn("Traceback", said)
