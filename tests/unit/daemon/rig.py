"""A resource in a temporary directory: scripts, configuration, and a daemon on a clock of its own."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater

from lgi.daemon import spares
from lgi.daemon.config import JOB_SCRIPTS, DaemonConfig, read_config
from lgi.daemon.daemon import Cycles, Daemon
from lgi.daemon.jobdir import RUN_PID
from lgi.daemon.sandbox import Sandbox
from lgi.daemon.seal import load_seal
from lgi.daemon.tasks import Tasks
from tests.unit.daemon.server import PROJECT, RESOURCE, FakeCalls, FakeServer

CYCLE = 5.0
APPLICATION = """
      <application number='1'>
        <application_name> hello_world </application_name>
        <owner_allow> <any> 3 </any> </owner_allow>
        <owner_deny> </owner_deny>
        <job_limit> 4 </job_limit>
        <max_output_size> 4096 </max_output_size>
        <capabilities> nothing special </capabilities>
        <check_system_limits_script> ./scripts/check_system_limits_script </check_system_limits_script>
        {scripts}
      </application>"""
CONFIG = """<LGI>
  <ca_certificate_file> ca.crt </ca_certificate_file>
  <resource>
    <resource_certificate_file> resource.crt </resource_certificate_file>
    <resource_key_file> resource.key </resource_key_file>
    <run_directory> ./run </run_directory>
    <owner_allow> <any> 10 </any> </owner_allow>
    <owner_deny> </owner_deny>
    <job_limit> 20 </job_limit>
    <number_of_projects> 1 </number_of_projects>
    <project number='1'>
      <project_name> LGI </project_name>
      <project_master_server> https://grid.example/LGI </project_master_server>
      <owner_allow> <any> 5 </any> </owner_allow>
      <owner_deny> </owner_deny>
      <job_limit> 10 </job_limit>
      <number_of_applications> 1 </number_of_applications>{application}
    </project>
  </resource>
</LGI>
"""
FINISHED = "[ -s LGI_exit_status ]"


# What a configuration may leave out when the run script's own end says it all.
NONE_BUT_RUN = dict.fromkeys(tag for tag in JOB_SCRIPTS if tag != "job_run_script")


def script_tags(*left_out: str) -> str:
    return "\n        ".join(
        f"<{tag}> </{tag}>" if tag in left_out else f"<{tag}> ./scripts/{tag} </{tag}>" for tag in JOB_SCRIPTS
    )


def write_script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def make_resource(directory: Path, **bodies: str | None) -> Path:
    """A configuration file with all it names; `bodies` replace the scripts' texts, by tag, None leaves one out."""
    scripts = directory / "scripts"
    scripts.mkdir(parents=True)
    default = {
        "job_check_running_script": "exit 1",
        "job_check_finished_script": FINISHED,
        "job_run_script": "echo run >>LGI_output; cat LGI_input >>LGI_output",
        "job_abort_script": 'kill -s KILL -- "-$(cat LGI_job_run_script_pid)" && flock LGI_job.lock true',
    }
    for tag in ("check_system_limits_script", *JOB_SCRIPTS):
        body = bodies.get(tag, default.get(tag, "exit 0"))
        if body is not None:
            write_script(scripts / tag, body)
    for name in ("ca.crt", "resource.crt", "resource.key"):
        (directory / name).write_text(f"the {name}\n")
    (directory / "run").mkdir()
    file = directory / "LGI.cfg"
    left_out = [tag for tag, body in bodies.items() if body is None]
    file.write_text(CONFIG.format(application=APPLICATION.format(scripts=script_tags(*left_out))))
    return file


class Rig:
    """A daemon that can be killed and started again; every server speaks to it through memory.

    Its jobs run as whoever runs the tests, unless `sandboxed`.
    """

    sandboxed = False

    def __init__(self, directory: Path, reactor: Any, *servers: FakeServer, **bodies: str | None) -> None:
        self.file = make_resource(directory, **bodies)
        self.scripts = directory / "scripts"
        self.run = directory / "run"
        self.clock = Clock()
        self.clock.advance(1000)
        self.servers = {server.url: server for server in servers}
        self._reactor = reactor
        self._calls: list[FakeCalls] = []
        self.daemon: Daemon = self.start()

    @property
    def config(self) -> DaemonConfig:
        return read_config(self.file)

    @property
    def tasks(self) -> Tasks:
        return self.daemon.tasks

    def _connect(self, project: str, url: str) -> FakeCalls:
        assert project == PROJECT
        self._calls.append(FakeCalls(self.servers[url]))
        return self._calls[-1]

    def start(self) -> Daemon:
        self.sandbox = Sandbox() if self.sandboxed else None
        self.daemon = Daemon(
            reactor=self._reactor,
            clock=self.clock,
            config=self.config,
            seal=load_seal(self.run),
            resource_name=RESOURCE,
            make_calls=self._connect,
            cycles=Cycles(slow=CYCLE, fast=CYCLE),
            chance=random.Random(1),
            environment={"PATH": os.defpath},
            sandbox=self.sandbox,
        )
        return self.daemon

    async def go(self) -> None:
        """Start the daemon, and wait for what follows at once."""
        self.daemon.start()
        await self.tasks.idle()

    async def turn(self, times: int = 1) -> None:
        """Let cycles pass, and wait for what follows."""
        for _ in range(times):
            self.clock.advance(CYCLE)
            await self.tasks.idle()
            await deferLater(self._reactor, 0)  # so that processes get their turn as well

    def kill(self) -> None:
        """The daemon dies as of kill -9: it says nothing to anybody, and its memory is gone."""
        for calls in self._calls:
            calls.dead = True
        self._calls.clear()
        for loop, _ in self.daemon._loops:
            if loop.running:
                loop.stop()
        self.daemon._work.stop()
        for keeper in self.daemon.holdings.keepers:
            keeper.stop()
        for link in self.daemon._links._links.values():
            for session in link.kept._sessions.values():
                if session.timer is not None and session.timer.active():
                    session.timer.cancel()

    async def restart(self) -> None:
        self.kill()
        self.start()
        await self.go()

    def jobs(self) -> list[Path]:
        return sorted(self.run.glob("*/*/JOB_*"))

    @property
    def job(self) -> Path:
        (path,) = self.jobs()
        return path

    def leftovers(self) -> list[Path]:
        found = (path for path in self.run.glob("*/*/*") if path.name.startswith("."))
        return [path for path in found if spares.DIRECTORY not in path.parts]

    async def clean_up(self) -> None:
        """End the daemon and every process that its jobs run."""
        await self.daemon.stop()
        for path in self.run.glob(f"*/*/*/{RUN_PID}"):
            end_group(int(path.read_text()))


def lives(group: int) -> bool:
    """Whether a process of the group lives, or is about to lead it; the dead who wait to be collected are not."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if group in (int(process_group), int(path.parent.name)) and state not in "ZX":
            return True
    return False


def end_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def reactor_runs() -> None:
    """For setUp of tests that start processes: return when the reactor runs.

    A process that ends before would be collected while trial starts the reactor, which then runs without noticing the
    end of any process in the next test.
    """
    await deferLater(reactor, 0)


class Tap:
    """A named pipe at which a script waits until it is opened."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.wait = f"read line <'{path}'"
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def open(self) -> None:
        os.write(self._descriptor, b"go\n")

    def close(self) -> None:
        os.close(self._descriptor)
