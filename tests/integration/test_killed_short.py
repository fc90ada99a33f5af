"""`kill -9` of a daemon that runs many jobs by their run script alone, at any moment: each of them runs once."""

from __future__ import annotations

import json
import os
import random
import signal
import time

from lgi.daemon.intake import DIRECTORY
from tests.integration.grid import Grid, GridCase, until

RUN = "#!/bin/sh\ncat LGI_input >>LGI_output\nsleep 0.3\necho ' done' >>LGI_output\n"
JOBS = 6
KILLS = 5


class KilledShortTests(GridCase):
    """Nothing asks any script whether the job runs or has finished, and directories are used again."""

    def record(self, grid: Grid, job: int) -> list[str]:
        """What happened to a job."""
        text = grid.lgi("--json", "admin", "--config", str(grid.config), "log", "--job", str(job))
        return [entry["to_state"] for entry in json.loads(text)]

    def check(self, *options: str) -> None:
        grid = self.make_grid()
        grid.keep_only_the_run_script(RUN)
        grid.start_server()
        grid.start_scheduler()
        chance = random.Random(7)
        jobs: dict[int, str] = {}
        # LGI_TEST_KILLS=50 is for changes to what is written when.
        for turn in range(int(os.environ.get("LGI_TEST_KILLS", KILLS))):
            for number in range(JOBS):
                text = f"{turn}.{number}"
                jobs[grid.submit("-a", "hello_world", "--input", text)] = text
            daemon = grid.start_daemon(*options)
            time.sleep(chance.uniform(0, 0.9))
            self.assertEqual(daemon.stop(signal.SIGKILL), -signal.SIGKILL)
        last = grid.start_daemon(*options)
        for job, text in jobs.items():
            ended = grid.wait_for_state(job, "finished", "aborted")
            self.assertEqual((ended["state"], ended["output"].strip()), ("finished", f"{text} done"))
            self.assertEqual(self.record(grid, job), ["queued", "running", "finished"])
        until(lambda: not grid.job_directories(), "all job directories are gone")
        until(lambda: not list((grid.run / DIRECTORY).iterdir()), "no job is noted any more")
        last.stop()

    def test_as_who_runs_the_daemon(self) -> None:
        self.check("--no-sandbox")

    def test_in_a_sandbox(self) -> None:
        if os.geteuid() != 0:
            self.skipTest("only root can give each job a uid of its own")
        self.check()
