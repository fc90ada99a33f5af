"""A real grid for tests: a project made by `lgi init`, its services as processes of twistd, the program `lgi`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import SkipTest, TestCase

from tests.integration import warm
from tests.integration.reach import programs_for_jobs

PROGRAMS = Path(sys.executable).parent
EXAMPLES = Path(__file__).resolve().parents[2] / "etc" / "applications"
USER, RESOURCE = "mark@localhost", "resource1@localhost"
PATIENCE_SECONDS = 90.0


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(true: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait for a condition on something outside this process, which cannot wake us; returns its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = true()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} seconds: {what}")


class Program:
    """A service under twistd."""

    def __init__(
        self,
        name: str,
        config: Path,
        log: Path,
        *options: str,
        programs: Path = PROGRAMS,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._offset = log.stat().st_size if log.exists() else 0
        twistd = programs / "twistd"
        arguments = ["-n", "--pidfile=", f"--logfile={log}", name, "--config", str(config), *options]
        self.process: warm.Process | subprocess.Popen[bytes]
        if environment is None and programs in (PROGRAMS, programs_for_jobs() if os.geteuid() == 0 else None):
            self.process = warm.Process(twistd, arguments, folder=log.parent)
        else:
            self.process = subprocess.Popen(
                [str(twistd), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env=environment,
            )

    def logged(self) -> str:
        """What it has logged since it was started."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[self._offset :].decode(errors="replace")

    def wait_for(self, text: str) -> None:
        """Wait until it has logged `text`."""

        def found() -> bool:
            if self.process.poll() is not None and text not in self.logged():
                raise AssertionError(
                    f"{self.name} has ended with {self.process.returncode}:\n{self.logged()[-3000:]}"
                )
            return text in self.logged()

        until(found, f"{self.name} logs {text!r}; it logged:\n{self.logged()[-3000:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it and return its status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise AssertionError(f"{self.name} did not stop:\n{self.logged()[-3000:]}") from None
        return self.process.wait()

    def ended(self) -> tuple[int, str]:
        """Its status and everything it said, once it has ended by itself."""
        out, _ = self.process.communicate(timeout=60)
        return self.process.wait(), out.decode(errors="replace") + self.logged()


class Grid:
    """A project in a directory."""

    def __init__(self, root: Path, *, database: str = "") -> None:
        self.root = root
        self.port = free_port()
        more = ["--database", database] if database else []
        self.lgi("init", str(root), "--host", "localhost", "--port", str(self.port), *more)
        self.ca("issue", "resource", RESOURCE, "--applications", "hello_world,lj_md")
        self.ca("issue", "user", USER, "--groups", "theor")
        self.url = f"https://localhost:{self.port}/LGI"
        self.config = root / "etc" / "lgi-server.toml"
        self.cfg = root / "resources" / RESOURCE / "LGI.cfg"
        self.home = root / "users" / USER
        self.programs: list[Program] = []
        self.run = self.cfg.parent / "run"
        self._away: Path | None = None
        if os.geteuid() == 0:
            self._open_run_directory()

    def _open_run_directory(self) -> None:
        """Have the run directory where the uids of jobs can go; tests are in directories that are root's alone."""
        self._away = Path(tempfile.mkdtemp(prefix="lgi-grid-"))
        self._away.chmod(0o711)
        self.run = self._away / "run"
        self.run.mkdir()
        text = self.cfg.read_text()
        moved = re.sub(r"(<run_directory>).*?(</run_directory>)", rf"\g<1> {self.run} \g<2>", text)
        assert moved != text
        self.cfg.write_text(moved)

    def lgi(self, *arguments: str, status: int = 0) -> str:
        """Run the program `lgi` and return its standard output; its exit status must be `status`."""
        result = warm.run(PROGRAMS / "lgi", arguments, 120)
        if result.returncode != status:
            raise AssertionError(f"lgi {arguments} ended with {result.returncode}: {result.stdout}{result.stderr}")
        return str(result.stdout if status == 0 else result.stderr)

    def ca(self, *arguments: str) -> str:
        """Run `lgi ca` on this project."""
        return self.lgi("ca", "--dir", str(self.root), *arguments)

    def user(self, *arguments: str, status: int = 0) -> str:
        """Run `lgi` as the user."""
        return self.lgi("--config", str(self.home), *arguments, status=status)

    def submit(self, *arguments: str) -> int:
        """Submit a job."""
        return int(json.loads(self.user("submit", "--json", *arguments))["job_id"])

    def job(self, job_id: int) -> dict[str, Any]:
        """A job as `lgi status --json` gives it."""
        job: dict[str, Any] = json.loads(self.user("status", "--json", str(job_id)))
        return job

    def wait_for_state(self, job_id: int, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of the states."""

        def reached() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in states else None

        found: dict[str, Any] = until(reached, f"job {job_id} is {states}")
        return found

    def start(self, name: str, config: Path, *options: str, environment: Mapping[str, str] | None = None) -> Program:
        """Start a service; the daemon, as root, with a Python that its jobs can run too."""
        programs = PROGRAMS
        if name == "lgi-daemon" and os.geteuid() == 0 and "--no-sandbox" not in options:
            found = programs_for_jobs()
            if found is None:
                raise SkipTest(f"jobs in a sandbox cannot run {sys.executable}, nor another Python of this version")
            programs = found
        log = self.root / "log" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        program = Program(name, config, log, *options, programs=programs, environment=environment)
        self.programs.append(program)
        return program

    def start_server(self) -> Program:
        """Start the project server and wait until it listens."""
        program = self.start("lgi-server", self.config)
        program.wait_for("listens on port")
        return program

    def start_scheduler(self) -> Program:
        """Start the scheduler."""
        return self.start("lgi-scheduler", self.config)

    def start_daemon(self, *options: str, environment: Mapping[str, str] | None = None) -> Program:
        """Start the resource daemon, with our environment or another."""
        cycles = ("--slow-cycle=0.5", "--fast-cycle=0.5")
        program = self.start("lgi-daemon", self.cfg, *cycles, *options, environment=environment)
        program.wait_for("works in")
        return program

    def keep_only_the_run_script(self, run_script: str, config: Path | None = None) -> None:
        """Have the application of a daemon's configuration start this as a job, and leave out all other scripts."""
        config = config or self.cfg
        script = config.with_name("run_script")
        script.write_text(run_script)
        script.chmod(0o755)
        text = re.sub(r"<(\w+_script)>.*?</\1>", r"<\1> </\1>", config.read_text())
        config.write_text(re.sub(r"<job_run_script> ", "<job_run_script> run_script ", text))

    def start_all(self) -> None:
        """Start everything."""
        self.start_server()
        self.start_scheduler()
        self.start_daemon()

    def stop(self) -> None:
        """End everything that was started, jobs included."""
        problems = []
        # Daemons first: they sign off, and have patience with a server that is gone.
        others_last = list(reversed(self.programs))
        others_last.sort(key=lambda program: program.name != "lgi-daemon")
        for program in others_last:
            try:
                program.stop()
            except AssertionError as problem:
                problems.append(str(problem))
        for pid_file in self.run.glob("*/*/JOB_*/LGI_job_run_script_pid"):
            pid = int(pid_file.read_text())
            try:
                if os.readlink(f"/proc/{pid}/cwd") == str(pid_file.parent):
                    os.killpg(pid, signal.SIGKILL)
            except OSError:
                continue
        if self._away is not None:
            shutil.rmtree(self._away, ignore_errors=True)
        if problems:
            raise AssertionError("\n".join(problems))

    def job_directories(self) -> list[Path]:
        """The directories of jobs that the daemon holds."""
        return sorted(self.run.glob("*/*/JOB_*"))


class GridCase(TestCase):
    """A test with a grid of its own, stopped at its end."""

    def make_grid(self, **more: str) -> Grid:
        """A new project; nothing runs yet."""
        grid = Grid(Path.cwd() / "grid", **more)
        self.addCleanup(grid.stop)
        return grid
