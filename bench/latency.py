"""Seconds from `lgi submit` to finished for hello_world on an idle grid, beside the same scripts run by hand.

    python -m bench.latency [--jobs 20]

Real processes on this machine: server, scheduler and daemon under twistd, SQLite, TLS with client certificates. A
job's time is that of the whole command `lgi submit --wait`, from its start to its end, so the start of the program, a
connection and the polling of the job's state are in it. The ceiling is what the job's scripts take one after the
other when they are started by hand in a directory like the job's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.grid import EXAMPLES, Grid

SCRIPTS = (
    "check_system_limits_script",
    "job_check_limits_script",
    "job_check_running_script",
    "job_check_finished_script",
    "job_prologue_script",
    "job_run_script",
    "job_check_finished_script",
    "job_epilogue_script",
)


def timed(action: Callable[[], object], times: int) -> list[float]:
    """How many seconds each of `times` calls took."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return seconds


def row(name: str, seconds: list[float]) -> str:
    """A line of the table."""
    ordered = sorted(seconds)
    return (
        f"| {name} | {statistics.median(ordered):.2f} | {ordered[0]:.2f} | "
        f"{ordered[int(0.95 * (len(ordered) - 1))]:.2f} | {ordered[-1]:.2f} |"
    )


def by_hand() -> None:
    """Run the scripts of hello_world one after the other."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "LGI_input").write_text("hello")
        for script in SCRIPTS:
            if script == "job_check_finished_script":
                (directory / "LGI_exit_status").write_text("0\n")
            subprocess.run([EXAMPLES / "hello_world" / script], cwd=directory, capture_output=True, check=False)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20, help="how many jobs, one after the other")
    jobs = parser.parse_args().jobs
    print("| what | median s | lowest | 95th percentile | highest |")
    print("|---|---|---|---|---|")
    print(row("ceiling: the eight scripts by hand", timed(by_hand, jobs)), flush=True)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        grid = Grid(Path(name) / "grid")
        try:
            grid.start_server()
            grid.start_scheduler()
            for cycle, title in (("0.5", "daemon asking every 0.5 s"), ("5", "daemon asking every 5 s (default)")):
                daemon = grid.start("lgi-daemon", grid.cfg, f"--slow-cycle={cycle}", f"--fast-cycle={cycle}")
                daemon.wait_for("works in")
                seconds = timed(lambda: grid.user("submit", "-a", "hello_world", "--input", "x", "--wait"), jobs)
                print(row(f"`lgi submit --wait`, {title}", seconds), flush=True)
                daemon.stop()
            print(row("`lgi status`, for comparison", timed(lambda: grid.user("status"), jobs)), flush=True)
        finally:
            grid.stop()


if __name__ == "__main__":
    main()
