"""The samples of all scenarios, with each number of jobs and connections, in turn with those of the ceilings."""

from __future__ import annotations

from contextlib import ExitStack

import attrs
from rich.progress import Progress

from bench.disk import wait_until_calm
from bench.figures import Point
from bench.full_queue import Queue
from bench.scenarios import (
    NO_GROUP,
    REFERENCE,
    SCENARIOS,
    STRANGER,
    BenchFailed,
    Sample,
    Scenario,
    Timing,
    answer_bytes,
    ceiling,
    ceiling_bytes,
    take_sample,
)
from tests.integration.grid import Program

# With fewer jobs a run of cycles ends when this part of the queue was taken: it would run dry.
SMALL, TAKEN = 10_000, 0.3
LIMIT = 100_000_000
BARE = next(scenario for scenario in SCENARIOS if scenario.calls == "slist")


@attrs.frozen(kw_only=True)
class Wanted:
    """What to measure."""

    jobs: tuple[int, ...]
    connections: tuple[int, ...]
    rounds: int
    timing: Timing
    processes: int
    scenarios: tuple[Scenario, ...]


class Measurement:
    """Takes all samples, one after the other."""

    def __init__(self, queue: Queue, wanted: Wanted, progress: Progress, opened: ExitStack) -> None:
        self._queue = queue
        self._grid = queue.grid
        self._wanted = wanted
        self._progress = progress
        self._opened = opened
        self._bare: dict[int, str] = {}
        self.points: list[Point] = []
        steps = len(wanted.jobs) * len(wanted.scenarios) * len(wanted.connections) * wanted.rounds
        self._task = progress.add_task("", total=steps)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def run(self) -> None:
        """Measure with each number of jobs."""
        self._grid.ca("issue", "user", STRANGER, "--groups", NO_GROUP)
        for jobs in self._wanted.jobs:
            self._progress.update(self._task, description=f"{jobs:,} jobs: loading")
            self._queue.load(jobs)
            self._limit(0)
            server = self._grid.start_server()
            for scenario in sorted(self._wanted.scenarios, key=lambda scenario: scenario.limited):
                if scenario.limited:
                    server.stop()
                    self._limit(LIMIT)
                    server = self._grid.start_server()
                self._measure(jobs, scenario, server)
            server.stop()

    def _limit(self, jobs: int) -> None:
        self._queue.execute(f"UPDATE users_allowed SET job_limit = {jobs}")

    def _measure(self, jobs: int, scenario: Scenario, server: Program) -> None:
        length = ceiling_bytes(answer_bytes(self._grid, scenario))
        for connections in self._wanted.connections:
            samples: list[Sample] = []
            beside: dict[int, list[float]] = {length: [], REFERENCE: []}
            for number in range(self._wanted.rounds):
                what = f"{jobs:,} jobs, {connections} connections: {scenario.name}, round {number + 1}"
                self._progress.update(self._task, description=what)
                self._queue.reset()
                if not wait_until_calm(self._grid.root):
                    self.say(f"{what}: the disk is busy with something else")
                most = int(jobs * TAKEN) if jobs < SMALL else 0
                samples.append(
                    take_sample(
                        self._grid,
                        self._grid.url,
                        scenario,
                        connections,
                        self._wanted.timing,
                        resources=self._queue.resources,
                        most_cycles=most,
                    )
                )
                if server.process.poll() is not None:
                    raise BenchFailed(f"the server has ended:\n{server.logged()[-3000:]}")
                # At once: from one minute to the next a machine may be a quarter slower.
                for size, rates in beside.items():
                    rates.append(self._ceiling(size, connections))
                self._progress.advance(self._task)
            point = Point(
                scenario=scenario.name,
                jobs=jobs,
                connections=connections,
                samples=tuple(samples),
                bytes=length,
                ceiling=tuple(beside[length]),
                reference=tuple(beside[REFERENCE]),
            )
            self.points.append(point)
            self.say(
                f"{jobs:>9,} jobs {connections:>3} connections {scenario.name:<16}{point.rate:>8,.0f} req/s "
                f"p50 {point.p50:.2f} p99 {point.p99:.2f} ms, {point.share:.2f} of the ceiling, "
                f"{point.reference_share:.2f} of that with {REFERENCE:,} bytes"
            )

    def _ceiling(self, size: int, connections: int) -> float:
        if size not in self._bare:
            self._bare[size] = self._opened.enter_context(ceiling(self._grid, size, self._wanted.processes))
        return take_sample(self._grid, self._bare[size], BARE, connections, self._wanted.timing).rate
