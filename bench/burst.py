"""One-second jobs through one daemon: how many a second, and what that costs the daemon.

    python -m bench.burst [--jobs 200]

Real processes: server, scheduler and daemon under twistd, SQLite, TLS with client certificates, job_limit 50. The
ceiling is the same run script started by hand, 50 at a time, in the same run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react

from tests.integration.burst import RUN, burst, seconds_of_cpu, shorten
from tests.integration.grid import Grid

LIMIT = 50


def by_hand(number: int) -> float:
    """Seconds for so many run scripts."""
    with tempfile.TemporaryDirectory() as name:
        script = Path(name) / "run"
        script.write_text(RUN)
        script.chmod(0o755)
        (Path(name) / "LGI_input").write_text("x")
        begun = time.monotonic()
        for first in range(0, number, LIMIT):
            count = min(LIMIT, number - first)
            running = [subprocess.Popen([script], cwd=name, stdout=subprocess.DEVNULL) for _ in range(count)]
            for process in running:
                process.wait()
        return time.monotonic() - begun


async def run(reactor: object, number: int) -> None:
    """Print the table."""
    seconds = by_hand(number)
    print("| what | jobs | seconds | jobs a second | daemon's CPU s, scripts included | most memory MiB |")
    print("|---|---|---|---|---|---|")
    print(
        f"| ceiling: {LIMIT} run scripts at a time by hand | {number} | {seconds:.1f} | {number / seconds:.1f} | | |"
    )
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        os.chdir(name)
        grid = Grid(Path(name) / "grid")
        try:
            shorten(grid)
            server = grid.start_server()
            grid.start_scheduler()
            daemon = grid.start("lgi-daemon", grid.cfg)
            daemon.wait_for("works in")
            await deferLater(reactor, 1)  # type: ignore[arg-type]
            before = seconds_of_cpu(server.process.pid)
            result = await burst(reactor, grid, daemon.process.pid, number)
            assert len(result.outputs) == number
            rate = number / result.seconds
            memory = result.memory / (1 << 20)
            print(
                f"| one daemon | {number} | {result.seconds:.1f} | {rate:.1f} | {result.cpu:.1f} | {memory:.0f} |",
                flush=True,
            )
            print(f"\nThe server used {seconds_of_cpu(server.process.pid) - before:.1f} s of CPU.")
        finally:
            grid.stop()


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200, help="how many jobs")
    wanted = parser.parse_args()
    react(lambda reactor: Deferred.fromCoroutine(run(reactor, wanted.jobs)))


if __name__ == "__main__":
    main()
