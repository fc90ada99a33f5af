"""Many short jobs through one daemon, and what they leave behind."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Cooperator, deferLater

from lgi.client.post import Server, connect
from lgi.client.user import UserClient
from lgi.states import JobState
from lgi.tls import ClientPolicy, load_credentials
from tests.integration.grid import RESOURCE, USER, Grid

RUN = "#!/bin/sh\nsleep 1\ncat LGI_input >LGI_output\n"
TICK = os.sysconf("SC_CLK_TCK")
AT_ONCE = 8


@attrs.frozen(kw_only=True)
class Burst:
    """How it went: `outputs` of all finished jobs by their inputs, times in seconds, `memory` in bytes."""

    outputs: dict[str, bytes]
    seconds: float
    cpu: float
    memory: int


def seconds_of_cpu(pid: int) -> float:
    """What a process has used, and those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICK


def most_memory(pid: int) -> int:
    """The most that a process has had in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("no VmHWM")


def open_files(pid: int) -> int:
    """How many descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def children(pid: int) -> list[str]:
    """What is left of a process's children: the name and state of each."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, name, rest = stat.read_text().replace("(", ")").split(")", 2)
        except OSError:
            continue
        if int(rest.split()[1]) == pid:
            found.append(f"{name} {rest.split()[0]}")
    return found


def user_client(reactor: Any, grid: Grid) -> tuple[UserClient, Any]:
    """The grid's user, and the pool to be closed at the end."""
    credentials = load_credentials(grid.home / "certificate", grid.home / "privatekey")
    http, pool = connect(reactor, ClientPolicy(credentials, grid.home / "ca_chain"))
    server = Server(http=http, reactor=reactor, url=grid.url, project="LGI")
    return UserClient(server=server, user=USER, groups=("theor",)), pool


def shorten(grid: Grid) -> None:
    """Let a job of hello_world take a second."""
    (grid.root / "resources" / RESOURCE / "applications" / "hello_world" / "job_run_script").write_text(RUN)


async def burst(reactor: Any, grid: Grid, daemon: int, number: int) -> Burst:
    """Submit `number` jobs, some at a time, and wait until none of them is queued or running."""
    user, pool = user_client(reactor, grid)
    jobs: dict[int, str] = {}
    begun, cpu = time.monotonic(), seconds_of_cpu(daemon)

    async def submit(text: str) -> None:
        answer = await user.submit(application="hello_world", input=text.encode())
        jobs[answer.job.job_id] = text

    cooperator = Cooperator(scheduler=lambda call: reactor.callLater(0, call))
    work = (Deferred.fromCoroutine(submit(f"job {index}")) for index in range(number))
    await gatherResults([cooperator.coiterate(work) for _ in range(AT_ONCE)])
    while await user.count(state="queued") + await user.count(state="running"):
        await deferLater(reactor, 0.2)
    seconds = time.monotonic() - begun
    outputs = {}
    for job_id, text in jobs.items():
        job = (await user.job(job_id)).job
        if job.state is JobState.FINISHED:
            outputs[text] = job.output or b""
    await pool.closeCachedConnections()
    return Burst(outputs=outputs, seconds=seconds, cpu=seconds_of_cpu(daemon) - cpu, memory=most_memory(daemon))
