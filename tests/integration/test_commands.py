"""The commands of users on a project with two servers, one of which goes down and comes back."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.integration.grid import PROGRAMS, GridCase, free_port, until
from tests.integration.test_servers import ProjectServer

# As many steps as the input says; who takes more than one leaves a file.
RUN = """#!/bin/sh
exec >LGI_output 2>&1
steps=$(cat LGI_input)
for step in $(seq "$steps"); do
    echo "step $step"
    sleep 0.2
done
[ "$steps" = 1 ] && exit
echo "all of $steps" > job.log
lgi files put . job.log > /dev/null
"""
STEPS = ["step 1", "step 2", "step 3", "step 4"]


class CommandTests(GridCase):
    """A master and a slave, and a daemon that works for both."""

    def setUp(self) -> None:
        self.grid = self.make_grid()
        self.master = ProjectServer(self.grid, self.grid.root, self.grid.port)
        root, port = self.grid.root.parent / "slave", free_port()
        self.grid.lgi(
            *("init", str(root), "--slave-of", str(self.grid.root), "--host", "localhost"),
            *("--port", str(port), "--server-name", "slave@localhost"),
        )
        self.slave = ProjectServer(self.grid, root, port)
        script = self.grid.cfg.parent / "applications" / "hello_world" / "job_run_script"
        script.write_text(RUN)
        for server in (self.master, self.slave):
            server.start()
        until(lambda: len(self.servers()) == 2, "the master knows the slave")
        until(lambda: self.slave.version() == self.master.version(), "the slave knows the resource")

    def user(self, *arguments: str, status: int = 0) -> str:
        return self.grid.user(*arguments, status=status)

    def value(self, *arguments: str) -> Any:
        return json.loads(self.user("--json", *arguments))

    def servers(self) -> list[str]:
        return [one["name"] for one in self.value("servers")]

    def submit(self, steps: int, *more: str) -> str:
        return self.user("submit", "-a", "hello_world", "-q", "--input", str(steps), *more).strip()

    def submit_several(self, count: int) -> list[str]:
        """Jobs of one step, each with an input of its own."""
        folder = Path("inputs")
        folder.mkdir(exist_ok=True)
        inputs = [folder / str(number) for number in range(count)]
        for file in inputs:
            file.write_text("1")
        return self.user("submit", "-a", "hello_world", "-q", "--each", *map(str, inputs)).split()

    def state(self, job: str) -> str:
        return str(self.value("status", job)["state"])

    def test_two_servers_as_one(self) -> None:
        names = self.servers()
        self.assertEqual(names, [f"localhost:{self.grid.port}", self.slave.url.split("/")[2]])
        self.assertEqual([one["role"] for one in self.value("servers")], ["master", "slave"])
        # Each job is on one of them, which its reference names.
        made = self.submit_several(16)
        self.assertEqual({job.partition("@")[2] for job in made}, set(names))
        listed = self.user("list", "-q", "--sort", "id").split()
        self.assertEqual(sorted(listed), sorted(made))
        self.assertEqual(self.user("list", "--count", "--state", "queued"), "16\n")
        # A key makes one job, whichever server it falls to.
        keyed = {self.submit(1, "--key", "only-once") for _ in range(2)}
        self.assertEqual(len(keyed), 1)
        # A queued one that is cancelled stays.
        [first] = keyed
        self.assertIn("aborted", self.user("cancel", first))
        self.assertIn("was over already", self.user("cancel", first))
        self.assertEqual(self.user("list", "-q", "--state", "aborted").split(), [first])
        # One on each server is enough to run.
        kept = [next(job for job in made if job.endswith(name)) for name in names]
        self.assertEqual(self.user("delete", *set(made) - set(kept)).count("deleted"), 14)
        self.grid.start_daemon()
        self.user("wait", *kept, "--timeout", "60")
        self.assertEqual({job["exit_status"] for job in self.value("list", "--state", "finished")}, {0})
        self.assertEqual(self.user("delete", *kept).count("deleted"), 2)
        self.assertEqual(self.user("list", "-q").split(), [first])

        self.one_is_followed()
        self.results_come()
        self.one_server_is_killed()

    def one_is_followed(self) -> None:
        """What it writes is seen while it runs; cancelled, it ends."""
        job = self.submit(4)
        followed = self.user("logs", "-f", job)
        # On a busy machine the end of the one may come after the beginning of the other.
        lines: dict[str, list[str]] = {}
        for line in filter(None, followed.splitlines()):
            if line.startswith("==> "):
                current = lines.setdefault(line, [])
            else:
                current.append(line)
        self.assertEqual(lines, {"==> LGI_output <==": list(STEPS), "==> job.log <==": ["all of 4"]})
        endless = self.submit(100_000)
        following = subprocess.Popen(
            [str(PROGRAMS / "lgi"), "--config", str(self.grid.home), "logs", "-f", endless],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(following.wait)
        self.addCleanup(following.kill)
        assert following.stdout is not None
        self.addCleanup(following.stdout.close)
        self.assertEqual(following.stdout.readline(), "==> LGI_output <==\n")
        self.assertEqual(following.stdout.readline(), "step 1\n")
        waiting = subprocess.Popen(
            [str(PROGRAMS / "lgi"), "--config", str(self.grid.home), "wait", endless],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(waiting.kill)
        assert waiting.stdout is not None
        self.assertIn("running", waiting.stdout.readline())
        waiting.send_signal(signal.SIGINT)
        _out, err = waiting.communicate(timeout=20)
        self.assertEqual(
            (waiting.returncode, err), (130, f"lgi: the job goes on; follow it again with: lgi wait {endless}\n")
        )
        self.assertIn("aborting", self.user("cancel", "--wait", endless))
        self.assertEqual(self.state(endless), "aborted")
        following.wait(timeout=20)
        self.assertEqual(following.returncode, 0)

    def results_come(self) -> None:
        """A directory goes with a job, and comes back with what it has made."""
        Path("run1/out").mkdir(parents=True)
        Path("run1/out/x.csv").write_text("1,2\n")
        self.user("submit", "-a", "hello_world", "--input", "2", "run1", "--get", "results")
        self.assertEqual(Path("results/run1/out/x.csv").read_text(), "1,2\n")
        self.assertEqual(Path("results/job.log").read_text(), "all of 2\n")

    def one_server_is_killed(self) -> None:
        """The other goes on."""
        master, slave = (server.url.split("/")[2] for server in (self.master, self.slave))
        alone = self.user("--server", self.slave.url, "submit", "-qa", "hello_world", "--input", "1")
        on_slave = f"{alone.strip()}@{slave}"
        self.slave.kill()
        self.assertEqual({job.partition("@")[2] for job in self.submit_several(4)}, {master})
        complaint = self.user("list", status=1)
        self.assertIn(f"cannot be reached: {self.slave.url}: connection refused", complaint)
        self.slave.start()
        self.assertEqual(self.value("status", on_slave)["reference"], on_slave)
