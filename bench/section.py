"""What is said of the figures of calls: on what they were measured, and what their names mean."""

from __future__ import annotations

import os
import platform
import shlex
import ssl
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

from bench import figures
from bench.figures import Point
from bench.full_queue import ALL_WITH_FILES, WITH_FILES, Queue
from bench.measurement import SMALL, TAKEN, Wanted
from bench.scenarios import CEILING_STEP, REFERENCE, SCENARIOS


def conditions(queue: Queue, wanted: Wanted, load: float) -> list[str]:
    """On what and how it is measured; `load` is how many processes wanted to run before it began."""
    durable, size = (
        ", ".join(f"`{name}={value}`" for (name, value) in queue.execute(f"SHOW VARIABLES WHERE {which}"))
        for which in (
            "Variable_name IN ('innodb_doublewrite', 'innodb_flush_log_at_trx_commit', 'innodb_flush_method')",
            "Variable_name IN ('innodb_buffer_pool_size', 'innodb_log_file_size')",
        )
    )
    database = queue.execute("SELECT VERSION()")[0][0]
    about = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in about if line.startswith("model name"))
    processor = next(models, platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("Twisted", "SQLAlchemy", "mysqlclient", "pyOpenSSL"))
    return [
        f"{len(os.sched_getaffinity(0))} cores ({processor}), {memory:.0f} GiB, shared by load generator, server and "
        f"database. Python {platform.python_version()}, {libraries}, {ssl.OPENSSL_VERSION}, MariaDB {database}. "
        f"Load of the machine before it began: {load:.1f}.",
        "",
        f"A server of {wanted.processes} processes, and nothing else set in it than `lgi init` does. The database "
        "has on disk what it has committed before it says so, and a crash loses nothing, as in the crash tests: "
        f"{durable}; beside that {size}. Each figure is the median of {wanted.rounds} runs of "
        f"{wanted.timing.seconds:g} s after {wanted.timing.warm_up:g} s that do not count, each with the queue as it "
        "was loaded.",
    ]


def notes(points: Sequence[Point], wanted: Wanted) -> list[str]:
    """What the table does not say."""
    listed = {point.scenario for point in points}
    lines = [
        *(f"- **{scenario.name}**: {scenario.what}." for scenario in SCENARIOS if scenario.name in listed),
        f"- The ceiling is `bench/ceiling.py` with as many processes: it reads a request and answers with as many "
        f"bytes as the scenario's answers have (to the nearest {CEILING_STEP}), and does nothing else; the load "
        f"generator calls it as it does for slist, right after each run, and a share is the median of those of the "
        f"runs. The old server's shares are of one with {REFERENCE:,} bytes.",
        "- A share above 1 is no mistake: the server has a cheaper way through HTTP and TLS than a bare resource of "
        "Twisted, as calls show that do hardly anything else.",
        "- The old server's figures are of another day, on another machine, whose ceiling with 1,200 bytes at 8 "
        "connections was 4,316 (`bench/old-server.tsv`). Where there is none, it was not measured.",
    ]
    if max(wanted.jobs) > ALL_WITH_FILES:
        lines.append(
            f"- Each job has a repository on disk with one file, up to {ALL_WITH_FILES:,} jobs. Beyond that, only "
            f"the first {ALL_WITH_FILES:,} jobs have one, and the {WITH_FILES:,} that the load generator asks about."
        )
    cycles = [point for point in points if point.scenario == "cycle"]
    if cycles:
        parts = [
            sum(sample.empty for sample in point.samples) / sum(sample.cycles for sample in point.samples)
            for point in cycles
        ]
        lines.append(
            f"- Of the cycles {100 * median(parts):.0f} % found no work, at most {100 * max(parts):.0f} % in a line: "
            f"another connection had taken it. With fewer than {SMALL:,} jobs a run of cycles ends when "
            f"{100 * TAKEN:.0f} % of them were taken."
        )
    return lines


def section(
    points: Sequence[Point], said: Sequence[str], wanted: Wanted, arguments: Sequence[str], picture: str
) -> list[str]:
    """The lines of the document, with the arguments that the program was given and the name of the plot, if any."""
    order = [scenario.name for scenario in SCENARIOS]
    ordered = sorted(points, key=lambda point: (order.index(point.scenario), point.jobs, point.connections))
    link = [f"![Requests a second by number of jobs]({picture})", ""] if picture else []
    grown = figures.growth(ordered)
    command = shlex.join([".venv/bin/python", "-m", "bench.calls", *arguments])
    return [
        f"`{command}`",
        "",
        *said,
        "",
        *link,
        *figures.table(ordered, figures.old_figures()),
        "",
        *([*grown, ""] if grown else []),
        *figures.ceilings(ordered),
        "",
        *notes(ordered, wanted),
    ]
