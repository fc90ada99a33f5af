"""`kill -9` of the daemon while each script of a job runs: every job ends once, whatever was under way."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.integration.grid import RESOURCE, GridCase, Program, until

STEPS = (
    "job_check_limits_script",
    "job_check_running_script",
    "job_check_finished_script",
    "job_prologue_script",
    "job_run_script",
    "job_epilogue_script",
)
ABORT = "job_abort_script"
# Waits at its first run, for the file `go`, or until nobody can want it any more.
WAIT = """#!/bin/sh
if grep -q "<wait> {name} </wait>" LGI_job_specifics && [ ! -e seen ]; then
    touch seen
    for _ in $(seq 200); do [ -e go ] && break; [ -e LGI_job_specifics ] || exit 1; sleep 0.1; done
fi
"""


class KilledTests(GridCase):
    """With the scripts of hello_world, each with a place to wait in front."""

    def setUp(self) -> None:
        self.grid = self.make_grid()
        scripts = self.grid.root / "resources" / RESOURCE / "applications" / "hello_world"
        for name in (*STEPS, ABORT):
            file = scripts / name
            file.write_text(WAIT.format(name=name) + file.read_text())
        run = scripts / "job_run_script"
        run.write_text(
            run.read_text() + '\ngrep -q "<wait> job_abort_script </wait>" LGI_job_specifics && sleep 60\n'
        )
        self.grid.start_server()
        self.grid.start_scheduler()
        self.said: list[str] = []

    def submit(self, step: str) -> int:
        return self.grid.submit("-a", "hello_world", "--input", step, "--specifics", f"<wait> {step} </wait>")

    def killed(self, daemon: Program) -> None:
        """Kill the daemon while the script waits, let that go on, and start another daemon."""
        seen: Path = until(self.seen, "the script waits")
        daemon.stop(signal.SIGKILL)
        self.said.append(daemon.logged())
        seen.with_name("go").touch()

    def seen(self) -> Path | None:
        found = [path for path in self.grid.run.rglob("seen") if not path.with_name("go").exists()]
        return found[0] if found else None

    def record(self, job: int) -> list[str]:
        """What happened to a job."""
        text = self.grid.lgi("--json", "admin", "--config", str(self.grid.config), "log", "--job", str(job))
        return [entry["to_state"] for entry in json.loads(text)]

    def test_each_script(self) -> None:
        for step in STEPS:
            self.said.clear()
            daemon = self.grid.start_daemon()
            job = self.submit(step)
            self.killed(daemon)
            again = self.grid.start_daemon()
            if step == STEPS[0]:
                # It was not accepted before, so it is looked at from the beginning, in another directory.
                until(self.seen, "the script waits again").with_name("go").touch()
            finished = self.grid.wait_for_state(job, "finished", "aborted")
            self.assertEqual((finished["state"], self.record(job)), ("finished", ["queued", "running", "finished"]))
            self.assertTrue(finished["output"].endswith(step), finished["output"])
            until(lambda: not self.grid.job_directories(), "the job directory is gone")
            again.stop()
            said = "".join([*self.said, again.logged()])
            self.assertEqual((said.count("started (process"), said.count("reported finished")), (1, 1), step)
        self.assertEqual(list(self.grid.run.glob("*/*/*")), [])

    def test_abort(self) -> None:
        daemon = self.grid.start_daemon()
        job = self.submit(ABORT)
        until(lambda: "started (process" in daemon.logged(), "the job runs")
        self.grid.user("delete", str(job))
        self.killed(daemon)
        again = self.grid.start_daemon()
        self.grid.wait_for_state(job, "aborted", "finished")
        self.assertEqual(self.record(job), ["queued", "running", "aborting", "aborted"])
        until(lambda: not self.grid.job_directories(), "the job directory is gone")
        self.assertEqual(again.logged().count("reported aborted"), 1)
