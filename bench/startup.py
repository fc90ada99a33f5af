"""Seconds from a submission to running, and to the start of the run script, with an idle daemon on this machine.

    python -m bench.startup [--jobs 200] [--polled 20]

Real processes: server, scheduler and daemon under twistd, SQLite, TLS with client certificates. Jobs go one after the
other, over one kept connection. The time begins when the submission is sent. A job is running when the daemon has the
server's answer that it is, and writes so into the job's directory; its start is the first command of its run script.
The daemon is told of work, and beside it, in the same run, the same server does not offer that and the daemon asks
every 5 seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from lgi.client.post import Server, connect
from lgi.client.user import UserClient
from lgi.states import JobState
from lgi.tls import ClientPolicy, load_credentials
from tests.integration.grid import RESOURCE, USER, Grid

RUN = "#!/bin/sh\n{ date +%s.%N; stat -c %.9Y LGI_state; } >LGI_output\n"
# The machine is left to the job until it has long started; then its state is asked for.
QUIET_SECONDS, LOOK_SECONDS = 0.25, 0.02


async def measure(reactor: object, grid: Grid, jobs: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds from submission to running, to start, and to finished as the user sees it, of each job."""
    credentials = load_credentials(grid.home / "certificate", grid.home / "privatekey")
    http, pool = connect(reactor, ClientPolicy(credentials, grid.home / "ca_chain"))
    user = UserClient(
        server=Server(http=http, reactor=reactor, url=grid.url, project="LGI"), user=USER, groups=("theor",)
    )
    running, started, finished = [], [], []
    for _ in range(jobs):
        begun = time.time()
        job = (await user.submit(application="hello_world")).job
        await deferLater(reactor, QUIET_SECONDS)  # type: ignore[arg-type]
        while job.state is not JobState.FINISHED:
            await deferLater(reactor, LOOK_SECONDS)  # type: ignore[arg-type]
            job = (await user.job(job.job_id)).job
        finished.append(time.time() - begun)
        start, run = map(float, (job.output or b"").split())
        started.append(start - begun)
        running.append(run - begun)
        # Not in step with the daemon's cycles.
        await deferLater(reactor, random.uniform(0, 0.2))  # type: ignore[arg-type]  # noqa: S311
    await pool.closeCachedConnections()
    return running, started, finished


def row(name: str, seconds: list[float]) -> str:
    """A line of the table."""
    ordered = sorted(seconds)
    values = (statistics.median(ordered), ordered[0], ordered[int(0.95 * (len(ordered) - 1))], ordered[-1])
    return f"| {name} | {len(ordered)} | " + " | ".join(f"{1000 * value:.0f}" for value in values) + " |"


async def run(reactor: object, told: int, polled: int) -> None:
    """Print the table."""
    print("| what | jobs | median ms | lowest | 95th percentile | highest |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        os.chdir(name)
        grid = Grid(Path(name) / "grid")
        script = grid.root / "resources" / RESOURCE / "applications" / "hello_world" / "job_run_script"
        script.write_text(RUN)
        try:
            for title, jobs, limits in (
                ("told", told, ""),
                ("asking every 5 s", polled, "[limits]\nwork_wait = 0\n"),
            ):
                with grid.config.open("a") as file:
                    file.write(f"\n{limits}")
                server, scheduler = grid.start_server(), grid.start_scheduler()
                daemon = grid.start("lgi-daemon", grid.cfg)
                daemon.wait_for("works in")
                await deferLater(reactor, 1)  # type: ignore[arg-type]
                running, started, finished = await measure(reactor, grid, jobs)
                print(row(f"submit to running, daemon {title}", running), flush=True)
                print(row(f"submit to start, daemon {title}", started), flush=True)
                print(row(f"submit to finished, daemon {title}", finished), flush=True)
                for program in (daemon, scheduler, server):
                    program.stop()
        finally:
            grid.stop()


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="how many jobs with a daemon that is told")
    parser.add_argument("--polled", type=int, default=20, help="how many with one that asks")
    wanted = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(run(reactor, wanted.jobs, wanted.polled)))


if __name__ == "__main__":
    main()
