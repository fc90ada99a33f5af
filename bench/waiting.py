"""What resources that wait for work cost the server, and how soon they hear of a job.

    python -m bench.waiting [--clients 1000] [--daemons 200] [--submissions 500]

A private MariaDB, and a server with two processes over TLS with client certificates. First `--clients` sessions of 16
resources wait, each on a connection of its own: what the server's processes take in memory, all together, and of a
core while nothing happens. Then `--daemons` of them stay, and jobs are submitted one by one, for one resource and for
any in turn: the time from before the submission is sent until one whom the job is for has read the answer to its
waiting call. It takes the job, ends it and waits again before the next one is submitted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import ssl
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import attrs

from bench.full_queue import RESOURCES, Queue
from tests.integration.grid import USER, Grid

PROCESSES = 2
APPLICATION = "hello_world"
WAIT_SECONDS = 240
AT_ONCE = 16
SETTLE_SECONDS = 3.0
TICKS = os.sysconf("SC_CLK_TCK")


class Caller:
    """A connection to the server, on which calls go one after the other."""

    def __init__(self, grid: Grid, context: ssl.SSLContext) -> None:
        self._port = grid.port
        self._context = context
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(
            "localhost", self._port, ssl=self._context, limit=1 << 14
        )

    async def call(self, path: str, **fields: object) -> str:
        """The answer to a call; raises AssertionError where it is an error."""
        body = urlencode({"project": "LGI", **fields}).encode()
        head = f"POST /LGI/{path}.php HTTP/1.1\r\nHost: localhost:{self._port}\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" + body)
        answered = await self._reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", answered)
        assert found is not None, answered
        text = (await self._reader.readexactly(int(found[1]))).decode()
        assert answered.startswith(b"HTTP/1.1 200") and "<error>" not in text, text
        return text

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with suppress(OSError, ssl.SSLError):
            await self._writer.wait_closed()


def value(tag: str, answer: str) -> str:
    """What stands in the first such tag; empty where there is none."""
    found = re.search(rf"<{tag}>\s*(.*?)\s*</{tag}>", answer, re.DOTALL)
    return "" if found is None else found[1]


@attrs.define
class Told:
    """What daemons have heard since the last submission."""

    first: asyncio.Future[float]
    taken: asyncio.Future[float]
    daemons: int = 0


class Daemon(Caller):
    """A session of a resource that waits, and takes what it is told of when jobs are submitted."""

    def __init__(self, grid: Grid, context: ssl.SSLContext, resource: str) -> None:
        super().__init__(grid, context)
        self.resource = resource
        self.told: Told | None = None
        self.session = ""
        self.task: asyncio.Task[None] | None = None

    async def begin(self, gate: asyncio.Semaphore) -> None:
        """Sign up, look, and wait from now on."""
        async with gate:
            await self.open()
            self.session = value("session_id", await self.call("resources/resource_signup_resource"))
            assert await self._wait() == APPLICATION
        self.task = asyncio.create_task(self._live())

    async def _wait(self) -> str:
        answer = await self.call(
            "resources/resource_request_work",
            session_id=self.session,
            wait=WAIT_SECONDS,
            applications=APPLICATION,
        )
        return value("work_for", answer)

    async def _live(self) -> None:
        while True:
            told_for = await self._wait()
            now, told = time.perf_counter(), self.told
            if not told_for:
                continue
            assert told is not None, "told of work that there is none of"
            told.daemons += 1
            if not told.first.done():
                told.first.set_result(now)
            await self._take(told)

    async def _take(self, told: Told) -> None:
        answer = await self.call(
            "resources/resource_request_work", session_id=self.session, application=APPLICATION, limit=1
        )
        job = value("job_id", answer)
        if not job:
            return
        now = time.perf_counter()
        mine = {"session_id": self.session, "job_id": job}
        await self.call("resources/resource_update_job", state="running", **mine)
        await self.call("resources/resource_update_job", state="finished", **mine)
        await self.call("resources/resource_unlock_job", **mine)
        told.taken.set_result(now)

    async def end(self) -> None:
        """Hang up, without a word."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.close()


def context_of(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """What one end shows, and whom it trusts."""
    context = ssl.create_default_context(cafile=str(ca))
    context.load_cert_chain(certificate, key)
    return context


def server_processes(front: int) -> list[int]:
    """The front and its processes."""
    return [front, *map(int, Path(f"/proc/{front}/task/{front}/children").read_text().split())]


def memory(pids: Iterable[int]) -> Mapping[str, int]:
    """Bytes of all these processes together: `Pss`, with what they share counted once, and `Rss`."""
    sums = {"Pss": 0, "Rss": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in sums:
                sums[name] += 1024 * int(rest.split()[0])
    return sums


def processor_seconds(pids: Iterable[int]) -> float:
    """Seconds of processor time that these processes have used."""
    used = 0
    for pid in pids:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used += int(words[11]) + int(words[12])
    return used / TICKS


def said(bytes_: Mapping[str, int]) -> str:
    """Memory for people."""
    return f"PSS {bytes_['Pss'] / 2**20:.0f} MiB, RSS {bytes_['Rss'] / 2**20:.0f} MiB"


async def at_rest(pids: list[int], clients: int, before: Mapping[str, int], seconds: float) -> None:
    """Print what the server takes while all wait."""
    await asyncio.sleep(SETTLE_SECONDS)
    after = memory(pids)
    each = (after["Pss"] - before["Pss"]) / clients / 1024
    print(f"{clients} waiting: {said(after)}, {each:.1f} KiB of PSS for each", flush=True)
    begun, used = time.perf_counter(), processor_seconds(pids)
    await asyncio.sleep(seconds)
    share = (processor_seconds(pids) - used) / (time.perf_counter() - begun)
    print(f"at rest: {100 * share:.2f} % of a core over {seconds:.0f} s", flush=True)


def row(name: str, times: list[float], told: list[int]) -> str:
    """A line of the table of times."""
    ordered = sorted(times)
    of = [statistics.median(ordered), *(ordered[int(share * (len(ordered) - 1))] for share in (0.9, 0.99, 1.0))]
    return (
        f"| {name} | {len(ordered)} | " + " | ".join(f"{1000 * one:.1f}" for one in of) + f" | "
        f"{statistics.mean(told):.2f} |"
    )


async def latency(grid: Grid, user: Caller, daemons: list[Daemon], submissions: int, pids: list[int]) -> None:
    """Print how soon a daemon hears of a job, and has it."""
    loop = asyncio.get_running_loop()
    resources = sorted({daemon.resource for daemon in daemons})
    kinds: dict[str, tuple[list[float], list[float], list[int]]] = {
        "for one resource": ([], [], []),
        "for any": ([], [], []),
    }
    answered: list[float] = []
    used = processor_seconds(pids)
    for number in range(submissions):
        kind = ("for one resource", "for any")[number % 2]
        target = "any" if number % 2 else resources[number // 2 % len(resources)]
        told = Told(loop.create_future(), loop.create_future())
        for daemon in daemons:
            daemon.told = told if target in ("any", daemon.resource) else None
        begun = time.perf_counter()
        await user.call(
            "interfaces/interface_submit_job",
            user=USER,
            groups="theor",
            application=APPLICATION,
            target_resources=target,
            input="",
        )
        answered.append(time.perf_counter() - begun)
        await asyncio.wait_for(asyncio.gather(told.first, told.taken), 30)
        # Who was told and got nothing waits again, too.
        await asyncio.sleep(0.02)
        first, taken, daemons_told = kinds[kind]
        first.append(told.first.result() - begun)
        taken.append(told.taken.result() - begun)
        daemons_told.append(told.daemons)
    used = processor_seconds(pids) - used
    print(f"{len(daemons)} daemons wait, {submissions} jobs one by one, times in ms:")
    print("| job | jobs | median | 90th percentile | 99th | highest | daemons told of each |")
    print("|---|---|---|---|---|---|---|")
    for kind, (first, taken, daemons_told) in kinds.items():
        print(row(f"{kind}, heard of", first, daemons_told))
        print(row(f"{kind}, taken", taken, daemons_told))
    print(row("the submitter's own answer", answered, [0]))
    print(f"server: {1000 * used / submissions:.1f} ms of processor time for each job, to its end", flush=True)


async def measure(grid: Grid, front: int, clients: int, daemons: int, submissions: int, seconds: float) -> None:
    """All of it, in the order in which it is printed."""
    ca = grid.root / "ca" / "ca.crt"
    names = [f"resource{number}@localhost" for number in range(1, RESOURCES + 1)]
    contexts = {}
    for name in names:
        home = grid.root / "resources" / name
        contexts[name] = context_of(ca, home / "resource.crt", home / "resource.key")
    user = Caller(grid, context_of(ca, grid.home / "certificate", grid.home / "privatekey"))
    await user.open()
    pids = server_processes(front)
    gate = asyncio.Semaphore(AT_ONCE)
    waiting = [
        Daemon(grid, contexts[names[number % len(names)]], names[number % len(names)]) for number in range(clients)
    ]
    before = memory(pids)
    print(f"nobody waits: {said(before)} in {len(pids)} processes", flush=True)
    begun = time.perf_counter()
    await asyncio.gather(*(daemon.begin(gate) for daemon in waiting))
    print(f"{clients} connections with a session each in {time.perf_counter() - begun:.1f} s", flush=True)
    await at_rest(pids, clients, before, seconds)
    for daemon in waiting[daemons:]:
        await daemon.end()
    waiting = waiting[:daemons]
    await asyncio.sleep(SETTLE_SECONDS)
    await latency(grid, user, waiting, submissions, pids)
    for caller in waiting:
        await caller.end()
    await user.close()


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000, help="sessions that wait while the server rests")
    parser.add_argument("--daemons", type=int, default=200, help="those of them that wait while jobs are submitted")
    parser.add_argument("--submissions", type=int, default=500, help="jobs")
    parser.add_argument("--rest", type=float, default=20, help="seconds of rest that are measured")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chdir(name)
        queue = Queue(Path(name), PROCESSES)
        try:
            pid = queue.grid.start_server().process.pid
            asyncio.run(measure(queue.grid, pid, wanted.clients, wanted.daemons, wanted.submissions, wanted.rest))
        finally:
            queue.stop()


if __name__ == "__main__":
    main()
