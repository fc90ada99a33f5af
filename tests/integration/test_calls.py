"""The benchmark of calls: figures without errors, a queue that is as it was, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from twisted.trial.unittest import SynchronousTestCase

from bench import disk, figures
from bench.full_queue import Queue
from bench.measurement import Measurement, Wanted
from bench.scenarios import SCENARIOS, BenchFailed, Sample, Timing, checked_sample
from bench.section import conditions, section
from tests.integration.grid import until

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ("cycle", "submit-joblimit")
DOCUMENT = f"# Before\n\n{figures.BEGIN}\nold figures\n{figures.END}\n\nafter\n"
JOBS = 200


def processes_of(folder: str) -> set[int]:
    """Who has the folder in its command line."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if folder.encode() in text:
            found.add(int(path.parent.name))
    return found


class CallsTests(SynchronousTestCase):
    """Small queues, short runs."""

    def setUp(self) -> None:
        # Short enough for the path of a socket.
        self.folder = Path(tempfile.mkdtemp(prefix="lgi-figures-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.document = self.folder / "performance.md"
        self.document.write_text(DOCUMENT)

    def test_figures_are_written_and_the_queue_is_as_it_was(self) -> None:
        wanted = Wanted(
            jobs=(JOBS,),
            connections=(1,),
            rounds=1,
            timing=Timing(seconds=1.0),
            processes=1,
            scenarios=tuple(scenario for scenario in SCENARIOS if scenario.name in MEASURED),
        )
        (self.folder / "queue").mkdir()
        queue = Queue(self.folder / "queue", wanted.processes, resources=1)
        self.addCleanup(queue.stop)
        with ExitStack() as opened:
            measurement = Measurement(queue, wanted, Progress(console=Console(quiet=True), disable=True), opened)
            measurement.run()
        self.assertNotEqual(queue.execute(f"SELECT job_id FROM job_queue WHERE job_id > {JOBS}"), [])
        queue.reset()
        self.assertIn("is in order", queue.grid.lgi("admin", "check-db", "--config", str(queue.grid.config)))
        states = queue.execute("SELECT state, COUNT(*), MAX(job_id) FROM job_queue GROUP BY state ORDER BY state")
        self.assertEqual(states, [("finished", 15, 167), ("queued", JOBS - 15, JOBS)])
        self.assertEqual(sum(1 for _ in (queue.grid.root / "repository").glob("*/JOB_*")), JOBS)

        said = conditions(queue, wanted, 0.0)
        self.assertIn("`innodb_flush_log_at_trx_commit=1`", "".join(said))
        points, old = measurement.points, figures.old_figures()
        self.assertEqual([point.scenario for point in points], list(MEASURED))
        plot = figures.write_section(
            self.document, section(points, said, wanted, ["--quick"], "performance.svg"), figures.plot(points, old)
        )
        text = self.document.read_text()
        self.assertTrue(text.startswith("# Before\n") and text.endswith("\nafter\n"), text)
        self.assertNotIn("old figures", text)
        for name in MEASURED:
            self.assertRegex(text, rf"(?m)^\| {name} \| {JOBS} \| 1 \| [1-9]")
        self.assertIn(b"</svg>", plot.read_bytes())

    def test_a_share_is_of_the_ceiling_right_beside_it(self) -> None:
        """Machines change their speed from minute to minute: half of a slow one is half of a fast one."""
        point = figures.Point(
            scenario="submit",
            jobs=1000,
            connections=8,
            samples=tuple(Sample(rate=rate, p50=1, p99=1) for rate in (100, 500, 300)),
            bytes=1200,
            ceiling=(200, 1000, 200),
            reference=(400, 1000, 1200),
        )
        self.assertEqual((point.rate, point.share, point.reference_share), (300, 0.5, 0.25))

    def test_a_busy_disk_is_waited_for(self) -> None:
        disturbed, syncs = os.fdatasync, 0

        def sync(descriptor: int) -> None:
            nonlocal syncs
            syncs += 1
            if syncs == 3:
                time.sleep(2 * disk.SLOWEST_SECONDS)
            disturbed(descriptor)

        # A real one may be busy with something else at this moment, too.
        self.patch(disk, "SLOWEST_SECONDS", 0.2)
        self.patch(disk, "PAUSE_SECONDS", 0.0)
        self.patch(os, "fdatasync", sync)
        self.assertTrue(disk.wait_until_calm(self.folder))
        self.assertGreaterEqual(syncs, 2 * disk.WRITES)
        self.patch(disk, "SLOWEST_SECONDS", 0.0)
        self.assertFalse(disk.wait_until_calm(self.folder, patience=0.0))
        self.assertEqual([path.name for path in self.folder.iterdir()], [self.document.name])

    def test_there_are_no_figures_where_anything_went_wrong(self) -> None:
        good = {"errors": 0, "requests": 9, "reconnects": 0, "rps": 3.0, "p50_ms": 1.0, "p99_ms": 2.0}
        scenario = SCENARIOS[0]
        self.assertEqual(checked_sample(scenario, 8, good), Sample(rate=3.0, p50=1.0, p99=2.0))
        for wrong, words in (
            ({"errors": 1, "error_kinds": {"('project_server_list.php', 503, '', '')": 1}}, "1 errors in 9 .*503"),
            ({"fatal": ["ConnectionRefusedError"]}, "ConnectionRefusedError"),
            ({"requests": 0}, "no answers"),
            ({"reconnects": 2}, "2 of 8 connections were cut"),
        ):
            with self.assertRaisesRegex(BenchFailed, f"slist.*{words}"):
                checked_sample(scenario, 8, good | wrong)

    def test_an_interrupt_ends_everything(self) -> None:
        wanted = ["--jobs=100", "--connections=1", "--rounds=1", "--seconds=90", "--scenarios=slist"]
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.calls", *wanted, f"--write={self.document}"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.kill)
        assert process.stdout is not None
        line = process.stdout.readline()
        self.assertIn("MariaDB and project in /tmp/lgi-bench-", line)
        folder = line.split()[-1]

        def loading() -> bool:
            return any(b"load.py" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_of(folder))

        until(loading, "the load generator runs")
        self.assertGreater(len(processes_of(folder)), 3)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        self.assertEqual((process.returncode, said), (130, "interrupted: nothing was written\n"))
        self.assertEqual(processes_of(folder), set())
        self.assertFalse(Path(folder).exists())
        self.assertEqual(self.document.read_text(), DOCUMENT)

    def test_a_document_without_a_place_is_refused_at_once(self) -> None:
        self.document.write_text("nothing")
        refused = subprocess.run(
            [sys.executable, "-m", "bench.calls", f"--write={self.document}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(refused.returncode, 2)
        self.assertIn(f"{self.document}: it needs one line {figures.BEGIN}", refused.stderr)
