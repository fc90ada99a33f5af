"""Requests a second of each call, with queues of a thousand to a million jobs, beside a ceiling and the old server.

    python -m bench.calls [--jobs 1000,10000,100000,1000000] [--connections 1,8,32] [--write docs/performance.md]

Real processes: a private MariaDB that has on disk what it has committed, and a server of several processes with TLS
and client certificates. The ceiling is a bare resource of Twisted behind the same certificates, with as many
processes and answers as long, measured right after each run of the server. The queue is put back into its first
state before each run, which begins when the disk is calm. Where a single answer is an error, or something ends that
should run, there are no figures.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench import figures
from bench.apart import apart
from bench.full_queue import RESOURCES, Queue
from bench.measurement import Measurement, Wanted
from bench.scenarios import SCENARIOS, BenchFailed, Scenario, Timing
from bench.section import conditions, section

USUAL = {"jobs": (1000, 10_000, 100_000, 1_000_000), "connections": (1, 8, 32), "rounds": 3, "seconds": 4.0}
QUICK = {"jobs": (1000, 10_000), "connections": (8,), "rounds": 1, "seconds": 1.0}


def measure(wanted: Wanted, document: Path | None) -> None:
    """Measure, print the figures and put them into the document."""
    console, load = Console(), os.getloadavg()[0]
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with ExitStack() as opened:
        # Not under TMPDIR, which may be too long for the path of a socket.
        folder = Path(tempfile.mkdtemp(prefix="lgi-bench-", dir="/tmp"))
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        progress = opened.enter_context(Progress(*columns, console=console, disable=not console.is_terminal))
        queue = Queue(folder, wanted.processes, min(RESOURCES, max(wanted.connections)))
        opened.callback(queue.stop)
        measurement = Measurement(queue, wanted, progress, opened)
        measurement.say(f"MariaDB and project in {folder}")
        measurement.run()
        points, said = measurement.points, conditions(queue, wanted, load)
    lines = section(points, said, wanted, sys.argv[1:], document.with_suffix(".svg").name if document else "")
    if document is None:
        print("\n".join(["", *lines]))
        return
    plot = figures.write_section(document, lines, figures.plot(points, figures.old_figures()))
    print(f"{document} and {plot} were written")


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    if min(numbers) < 1:
        raise ValueError
    return numbers


def _names(text: str) -> tuple[Scenario, ...]:
    known = {scenario.name: scenario for scenario in SCENARIOS}
    try:
        return tuple(known[name] for name in dict.fromkeys(text.split(",")))
    except KeyError as problem:
        raise argparse.ArgumentTypeError(f"{problem} is none of {', '.join(known)}") from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=_numbers, help="how many are in the queue (1000,10000,100000,1000000)")
    parser.add_argument("--connections", type=_numbers, help="how many call at a time (1,8,32)")
    parser.add_argument("--rounds", type=int, help="how many runs a figure is the median of (3)")
    parser.add_argument("--seconds", type=float, help="how long a run is (4)")
    parser.add_argument("--processes", type=int, default=2, help="of the server, and of the ceiling (2)")
    parser.add_argument("--scenarios", type=_names, default=SCENARIOS, help="which ones, separated by commas (all)")
    parser.add_argument(
        "--quick", action="store_true", help="in two minutes: 1000,10000 jobs, 8 connections, one round of 1 s"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="a document that gets table and plot, FILE.svg")
    wanted = parser.parse_args()
    for name, value in (QUICK if wanted.quick else USUAL).items():
        if getattr(wanted, name) is None:
            setattr(wanted, name, value)
    if wanted.rounds < 1 or wanted.processes < 1 or wanted.seconds <= 0:
        parser.error("--rounds, --processes and --seconds are above zero")
    if min(wanted.jobs) < 100:
        parser.error("--jobs: with fewer than 100 there is nothing to ask about")
    if wanted.write is not None:
        if importlib.util.find_spec("matplotlib") is None:
            parser.error("--write needs Matplotlib, of the extra `bench` of this package")
        try:
            figures.check_document(wanted.write)
        except (OSError, figures.DocumentRefused) as problem:
            parser.error(str(problem))
    return wanted


def main() -> None:
    """Read the arguments."""
    given = _arguments()
    wanted = Wanted(
        jobs=given.jobs,
        connections=given.connections,
        rounds=given.rounds,
        timing=Timing(seconds=given.seconds),
        processes=given.processes,
        scenarios=given.scenarios,
    )

    def work() -> int:
        try:
            measure(wanted, given.write)
        except (BenchFailed, AssertionError) as problem:
            print(f"bench: {problem}", file=sys.stderr)
            return 1
        return 0

    sys.exit(apart(work))


if __name__ == "__main__":
    main()
