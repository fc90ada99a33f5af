"""Figures of calls: their table and plot, beside the old server's, and their place in a document."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

import attrs

from bench.scenarios import REFERENCE, SCENARIOS, Sample
from lgi.durable import write_atomically

OLD = Path(__file__).with_name("old-server.tsv")
MODE = 0o644
BEGIN, END = "<!-- bench.calls begins -->", "<!-- bench.calls ends -->"


class DocumentRefused(Exception):
    """The document has no place for figures."""


@attrs.frozen(kw_only=True)
class Point:
    """A scenario with so many jobs and connections: a sample of each round, and the ceilings right after each.

    `ceiling` is of answers with `bytes` bytes, as long as the scenario's, `reference` of those with REFERENCE bytes.
    """

    scenario: str
    jobs: int
    connections: int
    samples: tuple[Sample, ...]
    bytes: int
    ceiling: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Requests a second."""
        return median(sample.rate for sample in self.samples)

    @property
    def p50(self) -> float:
        """Median time of an answer, ms."""
        return median(sample.p50 for sample in self.samples)

    @property
    def p99(self) -> float:
        """99th percentile, ms."""
        return median(sample.p99 for sample in self.samples)

    @property
    def share(self) -> float:
        """Of the ceiling with answers as long: the median of the rounds."""
        return self._of(self.ceiling)

    @property
    def reference_share(self) -> float:
        """Of the ceiling that the old server's shares are of: the median of the rounds."""
        return self._of(self.reference)

    def _of(self, ceilings: Sequence[float]) -> float:
        return median(sample.rate / ceiling for sample, ceiling in zip(self.samples, ceilings, strict=True))


@attrs.frozen(kw_only=True)
class Old:
    """What the old server did: requests a second, and the share where it is known."""

    rate: float
    share: float | None


OldFigures = Mapping[tuple[str, int, int], Old]


def old_figures() -> OldFigures:
    """By scenario, jobs and connections."""
    lines = [line for line in OLD.read_text("utf-8").splitlines() if not line.startswith("#")]
    return {
        (row["scenario"], int(row["jobs"]), int(row["connections"])): Old(
            rate=float(row["rate"]), share=float(row["share"]) if row["share"] else None
        )
        for row in csv.DictReader(lines, delimiter="\t")
    }


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (headers, ["---"] * len(headers), *rows)]


def table(points: Sequence[Point], old: OldFigures) -> list[str]:
    """A line for each point."""
    headers = (
        "scenario",
        "jobs",
        "connections",
        "req/s",
        "lowest to highest",
        "p50 ms",
        "p99 ms",
        "share of the ceiling",
        f"of that with {REFERENCE:,} bytes",
        "old server, req/s",
        "its share",
    )
    rows = []
    for point in points:
        rates = [sample.rate for sample in point.samples]
        then = old.get((point.scenario, point.jobs, point.connections))
        rows.append(
            [
                point.scenario,
                f"{point.jobs:,}",
                str(point.connections),
                f"{point.rate:,.0f}",
                f"{min(rates):,.0f} to {max(rates):,.0f}",
                f"{point.p50:.2f}",
                f"{point.p99:.2f}",
                f"{point.share:.2f}",
                f"{point.reference_share:.2f}",
                f"{then.rate:,.0f}" if then else "",
                f"{then.share:.3g}" if then and then.share else "",
            ]
        )
    return _table(headers, rows)


def growth(points: Sequence[Point]) -> list[str]:
    """How the median time of each scenario grows from the smallest to the largest number of jobs; [] with one."""
    sizes = sorted({point.jobs for point in points})
    connections = sorted({point.connections for point in points})
    if len(sizes) < 2:
        return []
    times = {(point.scenario, point.jobs, point.connections): point.p50 for point in points}
    rows = [
        [name, *(f"{times[name, sizes[-1], some] / times[name, sizes[0], some]:.2f}" for some in connections)]
        for name in dict.fromkeys(point.scenario for point in points)
    ]
    title = f"median at {sizes[-1]:,} jobs to that at {sizes[0]:,}"
    return _table([title, *(_connections(some) for some in connections)], rows)


def ceilings(points: Sequence[Point]) -> list[str]:
    """The ceilings that the shares are of, medians of all their rounds."""
    rates: dict[tuple[int, int], list[float]] = {}
    for point in points:
        rates.setdefault((point.bytes, point.connections), []).extend(point.ceiling)
        rates.setdefault((REFERENCE, point.connections), []).extend(point.reference)
    connections = sorted({some for _, some in rates})
    rows = [
        [f"{size:,} bytes", *(_of(rates.get((size, some), [])) for some in connections)]
        for size in sorted({size for size, _ in rates})
    ]
    return _table(["ceiling, req/s", *(_connections(some) for some in connections)], rows)


def _of(rates: Sequence[float]) -> str:
    return f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})" if rates else ""


def _connections(number: int) -> str:
    return f"{number} connection{'s' if number > 1 else ''}"


def check_document(document: Path) -> None:
    """Raise DocumentRefused where figures have no place in it, OSError where it cannot be read."""
    text = document.read_text("utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DocumentRefused(f"{document}: it needs one line {BEGIN} and after it one line {END}")


def write_section(document: Path, lines: Sequence[str], picture: bytes) -> Path:
    """Put the lines between the document's markers, and the plot beside it, which they refer to; returns its path."""
    check_document(document)
    text = document.read_text("utf-8")
    picture_file = document.with_suffix(".svg")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    write_atomically(picture_file, picture, MODE)
    write_atomically(document, "\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]).encode(), MODE)
    return picture_file


def plot(points: Sequence[Point], old: OldFigures) -> bytes:
    """Rate against number of jobs at the middle number of connections, as SVG; needs Matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    connections = sorted({point.connections for point in points})
    chosen = connections[len(connections) // 2]
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lgi"})
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlabel="jobs", ylabel="requests a second")
    axes.set_title(f"{_connections(chosen)}; dotted: the old server")
    here = [point for point in points if point.connections == chosen]
    sizes = sorted({point.jobs for point in here})
    reference = [median(next(point for point in here if point.jobs == size).reference) for size in sizes]
    axes.plot(sizes, reference, "--", color="black", label=f"ceiling, {REFERENCE:,} bytes")
    for place, scenario in enumerate(SCENARIOS):
        name, colour = scenario.name, f"C{place}"
        mine = sorted((point.jobs, point.rate) for point in here if point.scenario == name)
        then = sorted((jobs, found.rate) for (of, jobs, some), found in old.items() if (of, some) == (name, chosen))
        if mine:
            axes.plot(*zip(*mine, strict=True), "o-", color=colour, label=name)
        if mine and then:
            axes.plot(*zip(*then, strict=True), ":", marker=".", color=colour)
    axes.grid(visible=True, alpha=0.3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,.0f}"))
    figure.legend(loc="outside right upper")
    picture = io.BytesIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
