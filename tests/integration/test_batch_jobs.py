"""Jobs of the daemon in a real batch system: finished, deleted, ended behind our back, and everything restarted."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from unittest import SkipTest, TestCase

from tests.integration import gridengine, slurm
from tests.integration.grid import EXAMPLES, Grid, Program, until

BATCH = ("job_check_running_script", "job_check_finished_script", "job_abort_script")
TERMINATED = 143
# The job leaves a line for each of its runs, and waits for a file if its input says so; never for ever.
BEGIN = "exec >LGI_output 2>&1\n"
MARKED = (
    BEGIN
    + """read -r job <LGI_job_id || [ "$job" ] || exit 3
echo run >>'{marks}'/"ran.$job"
grep -q wait LGI_input && for _ in $(seq 900); do
    [ -e '{marks}'/"go.$job" ] && break
    [ -e LGI_job_id ] || exit 4
    sleep 0.1
done
"""
)


class BatchJobs(TestCase):
    """One project for all tests of a batch system, whose jobs all go through it."""

    system: ClassVar[str]
    environment: ClassVar[Mapping[str, str]]
    grid: ClassVar[Grid]
    marks: ClassVar[Path]
    daemon: ClassVar[Program]
    ends: ClassVar[dict[int, list[str]]]

    @classmethod
    def cluster(cls) -> Any:
        """The batch system, which runs."""
        raise NotImplementedError

    @classmethod
    def commands(cls, cluster: Any, folder: Path) -> Mapping[str, str]:
        """The environment in which the daemon and its scripts find the batch system; `folder` is ours."""
        environment: Mapping[str, str] = cluster.environment
        return environment

    @classmethod
    def setUpClass(cls) -> None:
        """Make the project, with the applications configured as docs/batch-systems.md says."""
        cluster = cls.cluster()
        cls.ends = {}
        folder = tempfile.TemporaryDirectory(prefix="lgi-batch-jobs-")
        cls.addClassCleanup(folder.cleanup)
        cache = Path(folder.name) / "cache"
        cache.mkdir(0o700)
        cls.environment = {
            **cls.commands(cluster, Path(folder.name)),
            "PATH": f"{EXAMPLES / 'lj_md'}:{os.environ['PATH']}",
            "LGI_BATCH_CACHE": str(cache),
        }
        cls.grid = grid = Grid(Path(folder.name) / "grid")
        cls.addClassCleanup(grid.stop)
        cls.marks = grid.root / "marks"
        cls.marks.mkdir()
        hello = grid.cfg.parent / "applications" / "hello_world"
        for check in BATCH[:2]:
            # What no exit file tells would take up to 10 seconds, and 10 more where the accounting is slow.
            script = hello / "batch" / check
            text = script.read_text()
            assert text.count("--record batch") == 1
            script.write_text(text.replace("--record batch", "--record batch --max-age 2"))
        run = hello / cls.system / "job_run_script"
        text = run.read_text()
        assert text.count(BEGIN) == 1
        run.write_text(text.replace(BEGIN, MARKED.format(marks=cls.marks)))
        grid.cfg.write_text(cls.through_batch(grid.cfg.read_text()))
        grid.start_server()
        grid.start_scheduler()
        cls.start_daemon()

    @classmethod
    def through_batch(cls, config: str) -> str:
        """An LGI.cfg whose applications use the scripts for the batch system."""
        changes = {
            "hello_world/job_run_script": f"hello_world/{cls.system}/job_run_script",
            "hello_world/job_epilogue_script": "hello_world/batch/job_epilogue_script",
            "lj_md/lj_md.py": f"lj_md/{cls.system}/job_run_script",
            "lj_md/job_epilogue_script": "lj_md/batch/job_epilogue_script",
            **{f"hello_world/{name}": f"hello_world/batch/{name}" for name in BATCH},
        }
        for old, new in changes.items():
            assert old in config, old
            config = config.replace(old, new)
        return config

    @classmethod
    def start_daemon(cls) -> None:
        """Start the daemon: as root without a sandbox, whose uids without a name batch systems refuse."""
        cls.daemon = cls.grid.start_daemon("--no-sandbox", "--fast-cycle=1", environment=cls.environment)

    @classmethod
    def tearDownClass(cls) -> None:
        """Each job of all tests has come to its end once, by what the server has written down."""
        text = cls.grid.lgi("--json", "admin", "--config", str(cls.grid.config), "log")
        record: dict[int, list[str]] = {job: [] for job in cls.ends}
        for entry in json.loads(text):
            record.setdefault(entry["job_id"], []).append(entry["to_state"])
        for job, states in cls.ends.items():
            assert record[job] == states, f"job {job}: {record[job]}, not {states}"

    def hello(self, text: str) -> int:
        """Submit a greeting; with the word `wait` it takes until `go`."""
        return self.grid.submit("-a", "hello_world", "--input", text)

    def argon(self, steps: str) -> int:
        """Submit molecular dynamics."""
        text = f"structure = argon38.xyz\n{steps}\n"
        return self.grid.submit("-a", "lj_md", "--input", text, str(EXAMPLES / "lj_md/argon38.xyz"))

    def go(self, job: int) -> None:
        """Let a greeting that waits end."""
        (self.marks / f"go.{job}").touch()

    def started(self, job: int) -> None:
        """Wait until a greeting runs."""
        until(
            (self.marks / f"ran.{job}").exists, f"job {job} runs; the daemon logged:\n{self.daemon.logged()[-3000:]}"
        )

    def directory(self, job: int) -> Path:
        """The directory of a job that the daemon holds."""
        [found] = [path for path in self.grid.job_directories() if (path / "LGI_job_id").read_text() == str(job)]
        return found

    def number(self, job: int) -> str:
        """Its number in the batch system."""
        return (self.directory(job) / "batch").read_text().split("\n")[0]

    def reported(self, job: int) -> list[str]:
        """How the daemons have reported a job."""
        return re.findall(rf"job {job} of project .*: reported (\w+)", self.daemon.log.read_text())

    def ended(self, job: int, *states: str) -> dict[str, Any]:
        """Wait for the end of a job, and see that it came there once, by these states; returns the job."""
        # The log costs nothing; a command of ours takes processors that the jobs need.
        until(lambda: self.reported(job), f"job {job} is reported; logged:\n{self.daemon.logged()[-3000:]}")
        self.assertEqual(self.reported(job), [states[-1]])
        self.ends[job] = ["queued", "running", *states]
        found = self.grid.job(job)
        self.assertEqual(found["state"], states[-1])
        if found["application"] == "hello_world":
            self.assertEqual((self.marks / f"ran.{job}").read_text(), "run\n")
        return found

    def finished(self, job: int, status: int = 0) -> str:
        """Wait until a job is finished with an exit status; returns its output."""
        found = self.ended(job, "finished")
        self.assertIn(f"<exit_status> {status} </exit_status>", found["job_specifics"], found["output"])
        return str(found["output"])

    def cancelled(self, number: str) -> None:
        """See that the batch system has ended a job of its own."""
        raise NotImplementedError

    def end(self, number: str) -> None:
        """End a job of the batch system behind our back."""
        raise NotImplementedError


class Contract(BatchJobs):
    """What goes with every batch system."""

    def test_both_applications_finish_and_their_files_arrive(self) -> None:
        hello, argon = self.hello("hi there"), self.argon("steps = 100")
        mistake = self.argon("steps = many")
        self.assertIn("hi there", self.finished(hello))
        output = self.finished(argon)
        results = self.grid.root / "results"
        self.grid.user("files", "get", str(argon), "--to", str(results))
        for name in ("energies.csv", "trajectory.xyz", "final.xyz"):
            digest = hashlib.sha256((results / name).read_bytes()).hexdigest()
            self.assertIn(f"sha256 {digest} {name}", output)
        self.assertIn("steps = many: must be a whole number", self.finished(mistake, 2))

    def test_deleted_and_ended_behind_our_back(self) -> None:
        greeting, other, argon = self.hello("wait"), self.hello("wait"), self.argon("steps = 5000000")
        for job in (greeting, other):
            self.started(job)
        until(lambda: list(self.grid.run.glob("*/*/*/energies.csv")), "the argon job runs")
        numbers = [self.number(job) for job in (greeting, argon)]
        self.end(self.number(other))
        for job in (argon, greeting):
            self.grid.user("delete", str(job))
        for job in (greeting, argon):
            self.ended(job, "aborting", "aborted")
        for number in numbers:
            self.cancelled(number)
        self.assertRegex(self.finished(other, self.status), self.reason)

    status: ClassVar[int] = TERMINATED
    reason: ClassVar[str]

    def test_daemon_killed(self) -> None:
        ends, goes_on = self.hello("wait"), self.hello("wait")
        for job in (ends, goes_on):
            self.started(job)
        exit_file = self.directory(ends) / "batch.exit"
        self.daemon.stop(signal.SIGKILL)
        self.go(ends)
        until(exit_file.exists, "the job ends while there is no daemon")
        type(self).start_daemon()
        self.finished(ends)
        self.go(goes_on)
        self.finished(goes_on)


class SlurmJobs(Contract):
    """Slurm, the controller restarted too."""

    system = "slurm"
    reason = "(?m)^cancelled: CANCELLED"

    @classmethod
    def cluster(cls) -> slurm.PrivateSlurm:
        return slurm.cluster()

    @classmethod
    def commands(cls, cluster: Any, folder: Path) -> Mapping[str, str]:
        """Slurm's commands give up sooner when there is no controller."""
        text = (cluster.folder / "slurm.conf").read_text()
        assert "MessageTimeout=10\n" in text
        (folder / "slurm.conf").write_text(text.replace("MessageTimeout=10\n", "MessageTimeout=3\n"))
        return {**cluster.environment, "SLURM_CONF": str(folder / "slurm.conf")}

    def completed(self, number: str) -> list[str]:
        """What Slurm has written down about ends of a job, once it has."""

        def found() -> list[str]:
            lines = (self.cluster().folder / "jobcomp").read_text().splitlines()
            return [line for line in lines if line.startswith(f"JobId={number} ")]

        lines: list[str] = until(found, f"job {number} of Slurm is over")
        return lines

    def cancelled(self, number: str) -> None:
        [line] = self.completed(number)
        self.assertIn(" JobState=CANCELLED ", line)

    def end(self, number: str) -> None:
        self.cluster().ask("scancel", number)

    def test_controller_restarted(self) -> None:
        cluster = self.cluster()
        ends, goes_on = self.hello("wait"), self.hello("wait")
        for job in (ends, goes_on):
            self.started(job)
        numbers = [self.number(job) for job in (ends, goes_on)]
        exit_file = self.directory(ends) / "batch.exit"
        cluster.stop_controller()
        try:
            late = self.hello("late")
            self.go(ends)
            until(exit_file.exists, "the job ends while there is no controller")
            said = rf"job {goes_on} of .* tried again later: .*exit status 126"
            until(lambda: re.search(said, self.daemon.logged()), "the daemon meets the controller's absence")
            self.assertEqual(self.grid.job(goes_on)["state"], "running")
        finally:
            cluster.start_controller()
        self.finished(ends)
        self.go(goes_on)
        self.finished(goes_on)
        self.finished(late)
        for number in numbers:
            self.assertEqual(len(self.completed(number)), 1)


class GridEngineJobs(Contract):
    """Grid Engine, which root alone can start."""

    system = "gridengine"
    status = 137
    reason = "(?m)^failed"

    @classmethod
    def cluster(cls) -> gridengine.PrivateGridEngine:
        if os.geteuid() != 0:
            raise SkipTest("Grid Engine's execution daemon must be root's")
        return gridengine.cluster()

    def cancelled(self, number: str) -> None:
        told = until(
            lambda: (text := self.cluster().ask("qacct", "-j", number)).startswith("=") and text,
            f"job {number} is in the accounting",
        )
        self.assertRegex(told, r"(?m)^exit_status +(137|143) ")
        self.assertNotIn(f" {number} ", self.cluster().ask("qstat", "-u", "*"))

    def end(self, number: str) -> None:
        self.cluster().ask("qdel", number)


del BatchJobs, Contract
