"""No-op jobs a second from submission to finished, durable: here, with Slurm, and with Celery, in one run.

    python -m bench.endtoend [--jobs 2000] [--daemons 2] [--no-slurm] [--no-celery]

Real processes on this machine: a private MariaDB, a server of two processes, its scheduler, and the daemons, each
with an application of tens of jobs at once whose configuration names a run script and no other. Jobs are submitted by
our own client over kept connections, some at a time. The time goes from the first submission to the last job that the
server has as finished. Before and after it, how many requests a second the ceiling of `bench.calls` has at 8
connections: what the machine is worth just then. The others do the same on the same machine, one after the other; see
`bench.others`.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Cooperator, deferLater, react

from bench.measurement import BARE
from bench.others import Rate, celery, slurm
from bench.scenarios import REFERENCE, Timing, ceiling, take_sample
from lgi.client.post import Server, connect
from lgi.client.user import UserClient
from lgi.tls import ClientPolicy, load_credentials
from tests.integration.grid import USER, Grid, Program
from tests.mariadb import PrivateMariaDB

APPLICATION, LIMIT, AT_ONCE, PROCESSES = "noop", 64, 16, 2
CEILING_SECONDS = 4.0
DATABASE_OPTIONS = ("--innodb-buffer-pool-size=256M", "--innodb-log-file-size=96M", "--max-connections=200")
RUN = "#!/bin/sh\ntrue\n"
TICK = os.sysconf("SC_CLK_TCK")
PROMISE = (
    "a submission is answered when the job is on disk; a job is claimed once, its end is on disk before the daemon "
    "forgets it, and no crash of any part loses it or runs it twice at a time"
)


@attrs.frozen(kw_only=True)
class Figures:
    """Of one run: jobs a second, and milliseconds of processor time for a job, by who used them."""

    rate: float
    cpu: dict[str, float]


def alone(pid: int) -> float:
    """Seconds of processor time of a process."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / TICK


def tree(pid: int) -> float:
    """The same of a process, of its children that have ended, and of those that live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICK + sum(tree(int(child)) for child in children)


class Field:
    """The services, and as many resources as wanted."""

    def __init__(self, folder: Path, daemons: int) -> None:
        (folder / "mariadb").mkdir()
        self.mariadb = PrivateMariaDB(folder / "mariadb", *DATABASE_OPTIONS)
        self.mariadb.install()
        self.mariadb.start()
        self.url = self.mariadb.create_database()
        self.grid = Grid(folder / "grid", database=self.url)
        text = self.grid.config.read_text()
        self.grid.config.write_text(
            re.sub(r"(?m)^\[server\]\n", f"[server]\nprocesses = {PROCESSES}\n", text, count=1)
        )
        self.server = self.grid.start_server()
        self.scheduler = self.grid.start_scheduler()
        self.daemons = [self._daemon(number) for number in range(1, daemons + 1)]
        for daemon in self.daemons:
            daemon.wait_for("works in")

    def _daemon(self, number: int) -> Program:
        name = f"noop{number}@localhost"
        self.grid.ca("issue", "resource", name, "--applications", "hello_world")
        folder = self.grid.root / "resources" / name
        config = (folder / "LGI.cfg").read_text()
        config = config.replace("<application_name> hello_world", f"<application_name> {APPLICATION}")
        config = re.sub(r"(<(?:any|job_limit)>) 50 ", rf"\g<1> {LIMIT} ", config)
        (folder / "LGI.cfg").write_text(config)
        self.grid.keep_only_the_run_script(RUN, folder / "LGI.cfg")
        log = self.grid.root / "log" / f"daemon{number}.log"
        program = Program("lgi-daemon", folder / "LGI.cfg", log, "--no-sandbox")
        self.grid.programs.append(program)
        return program

    def ceiling(self) -> float:
        """Requests a second of a bare resource with as many processes as the server."""
        with ceiling(self.grid, REFERENCE, PROCESSES) as base:
            return take_sample(self.grid, base, BARE, 8, Timing(seconds=CEILING_SECONDS)).rate

    def used(self) -> dict[str, float]:
        """Seconds of processor time until now."""
        assert self.mariadb._process is not None
        times = os.times()
        daemons = sum(alone(daemon.process.pid) for daemon in self.daemons)
        return {
            "server": tree(self.server.process.pid),
            "database": tree(self.mariadb._process.pid),
            "scheduler": tree(self.scheduler.process.pid),
            "daemons": daemons,
            "jobs": sum(tree(daemon.process.pid) for daemon in self.daemons) - daemons,
            "client": times.user + times.system,
        }

    def stop(self) -> None:
        """End all of it."""
        self.grid.stop()
        self.mariadb.stop()


async def submitted(reactor: Any, field: Field, jobs: int) -> Figures:
    """Submit jobs and wait until all are finished."""
    grid = field.grid
    credentials = load_credentials(grid.home / "certificate", grid.home / "privatekey")
    http, pool = connect(reactor, ClientPolicy(credentials, grid.home / "ca_chain"))
    server = Server(http=http, reactor=reactor, url=grid.url, project="LGI")
    user = UserClient(server=server, user=USER, groups=("theor",))

    async def submit() -> None:
        await user.submit(application=APPLICATION)

    done = await user.count(state="finished", application=APPLICATION)
    before, begun = field.used(), time.monotonic()
    cooperator = Cooperator(scheduler=lambda call: reactor.callLater(0, call))
    work = (Deferred.fromCoroutine(submit()) for _ in range(jobs))
    await gatherResults([cooperator.coiterate(work) for _ in range(AT_ONCE)])
    print(f"# {jobs} submitted after {time.monotonic() - begun:.1f} s", flush=True)
    while (now := await user.count(state="finished", application=APPLICATION) - done) < jobs:
        await deferLater(reactor, min(0.5, 0.05 + 0.005 * (jobs - now)))
    seconds = time.monotonic() - begun
    after = field.used()
    await pool.closeCachedConnections()
    return Figures(
        rate=jobs / seconds, cpu={name: 1000 * (after[name] - used) / jobs for name, used in before.items()}
    )


async def run(reactor: Any, jobs: int, daemons: int, warm_up: int, others: bool, queue: bool) -> None:
    """Print the table."""
    rows: list[Rate] = []
    with tempfile.TemporaryDirectory(prefix="lgi-endtoend-") as name:
        Path(name).chmod(0o755)
        os.chdir(name)
        field = Field(Path(name), daemons)
        try:
            await submitted(reactor, field, warm_up)
            machine = [field.ceiling()]
            figures = await submitted(reactor, field, jobs)
            machine.append(field.ceiling())
        finally:
            field.stop()
        rows.append(
            Rate(
                name=f"LGI, {daemons} daemons, {PROCESSES} server processes",
                jobs=jobs,
                rate=figures.rate,
                promise=PROMISE,
            )
        )
        used = ", ".join(f"{who} {milliseconds:.2f}" for who, milliseconds in figures.cpu.items())
        print("# the ceiling before and after, requests a second: {:.0f}, {:.0f}".format(*machine), flush=True)
        print(f"# ms of processor time for a job: {used}", flush=True)
        if others:
            rows.append(slurm(jobs))
        if queue:
            rows += celery(Path(name), jobs)
    print("| what | jobs | jobs a second | what it guarantees |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.jobs} | {row.rate:.0f} | {row.promise} |", flush=True)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000, help="how many jobs")
    parser.add_argument("--daemons", type=int, default=2, help="how many resources")
    parser.add_argument("--warm-up", type=int, default=100, help="how many jobs before the time begins")
    parser.add_argument("--no-slurm", action="store_true", help="not beside Slurm")
    parser.add_argument("--no-celery", action="store_true", help="not beside Celery")
    wanted = parser.parse_args()
    react(
        lambda reactor: Deferred.fromCoroutine(
            run(reactor, wanted.jobs, wanted.daemons, wanted.warm_up, not wanted.no_slurm, not wanted.no_celery)
        )
    )


if __name__ == "__main__":
    main()
