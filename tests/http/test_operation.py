"""What those who run the server see of it: metrics, the access log, slow calls."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from lgi.config import MetricsSection
from lgi.server.exposition import (
    directory_of,
    prepare_directory,
    registry_of,
    retire_ended,
    serve,
)
from lgi.server.operation import Operation
from tests.http.case import ServerCase
from tests.http.memory import RESOURCE

ROOT = Path(__file__).resolve().parents[2]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


class MetricsTests(ServerCase):
    changes = '\n[metrics]\nlisten = "127.0.0.1:0"\n'

    @property
    def operation(self) -> Operation:
        operation = self.server.site.watch
        assert isinstance(operation, Operation)
        return operation

    async def look(self) -> Samples:
        await self.operation.refresh()
        return samples(generate_latest(self.operation.metrics.registry).decode())

    async def test_requests(self) -> None:
        await self.server.submit()
        self.assertEqual((await self.server.user("job_state", job_id=999)).number(), 15)
        self.assertEqual((await self.server.request(RESOURCE, "GET", "nothing")).code, 404)
        found = await self.look()
        for call, result in (
            ("interface_submit_job", "ok"),
            ("interface_job_state", "15"),
            ("other_GET", "http 404"),
        ):
            self.assertEqual(value(found, "lgi_requests_total", call=call, result=result), 1)
            self.assertEqual(value(found, "lgi_request_seconds_count", call=call), 1)
            self.assertEqual(value(found, "lgi_request_seconds_bucket", call=call, le="+Inf"), 1)
        self.assertGreater(value(found, "lgi_request_seconds_sum", call="interface_submit_job") or 0, 0)

    async def test_transactions(self) -> None:
        await self.server.submit()
        found = await self.look()
        names = {dict(labels)["transaction"] for name, labels in found if name == "lgi_statements_total"}
        self.assertIn("list servers", names)
        for name in names:
            self.assertGreater(
                value(found, "lgi_transactions_total", project="LGI", transaction=name, result="ok") or 0, 0, name
            )
            self.assertGreater(value(found, "lgi_statements_total", project="LGI", transaction=name) or 0, 0, name)
            self.assertEqual(value(found, "lgi_transaction_retries_total", project="LGI", transaction=name), 0)
        self.assertEqual(value(found, "lgi_database_threads", project="LGI"), self.server.database.threads)
        self.assertEqual(value(found, "lgi_database_threads_busy", project="LGI"), 0)
        self.assertEqual(value(found, "lgi_database_queued", project="LGI"), 0)

    async def test_queue(self) -> None:
        await self.server.running_job()
        await self.server.submit(application="lj_md")
        await self.server.submit(application="lj_md", target_resources="resource1@localhost", priority=7)
        found = await self.look()
        self.assertEqual(value(found, "lgi_jobs", project="LGI", application="lj_md", state="queued"), 2)
        self.assertEqual(value(found, "lgi_jobs", project="LGI", application="hello_world", state="running"), 1)
        age = value(found, "lgi_oldest_queued_seconds", project="LGI", application="lj_md")
        assert age is not None
        self.assertTrue(0 <= age < 60, age)
        self.assertIsNone(value(found, "lgi_oldest_queued_seconds", project="LGI", application="hello_world"))
        self.assertEqual(value(found, "lgi_database_answers", project="LGI"), 1)
        await self.server.submit(application="lj_md")
        again = await self.look()
        self.assertEqual(value(again, "lgi_jobs", project="LGI", application="lj_md", state="queued"), 2)
        self.assertEqual(
            value(again, "lgi_transactions_total", project="LGI", transaction="queue depth", result="ok"), 1
        )

    async def test_database_away(self) -> None:
        """Everything else is told all the same."""
        self.server.database.stop()
        found = await self.look()
        self.assertEqual(value(found, "lgi_database_answers", project="LGI"), 0)
        self.assertEqual(value(found, "lgi_calls_under_way"), 0)

    async def test_one_that_waits_and_hangs_up(self) -> None:
        """It counts among those who wait, and not among the calls under way."""
        job_id = await self.server.submit()
        protocol, transport = self.server.connect("mark@localhost; theor; LGI")
        body = f"project=LGI&user=mark@localhost&groups=theor&jobs={job_id}:queued&wait=30".encode()
        head = "POST /LGI/interfaces/interface_job_state.php HTTP/1.1\r\nHost: localhost:8443\r\n"
        head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        protocol.dataReceived(head.encode() + body)
        found = await self.look()
        while value(found, "lgi_waiting", project="LGI", who="user") != 1:
            self.assertFalse(transport.answered.called, transport.value())
            await self.server.turn()
            found = await self.look()
        self.assertEqual(value(found, "lgi_calls_under_way"), 0)
        self.server.hang_up(protocol)
        call = {"call": "interface_job_state", "result": "http 499"}
        while value(await self.look(), "lgi_requests_total", **call) != 1:
            await self.server.turn()

    async def test_listener(self) -> None:
        operation = self.operation
        operation.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(operation.stop()))
        assert operation.port is not None
        host: Any = operation.port.getHost()
        self.assertEqual(host.host, "127.0.0.1")

        def ask(path: str, method: str = "GET") -> tuple[int, str, str]:
            try:
                with urlopen(Request(f"http://127.0.0.1:{host.port}{path}", method=method), timeout=20) as answer:
                    return answer.status, answer.headers["Content-Type"], answer.read().decode()
            except HTTPError as problem:
                with problem:
                    return problem.code, "", ""

        await self.server.submit()
        code, kind, text = await deferToThread(ask, "/metrics")
        self.assertEqual((code, kind.partition(";")[0]), (200, "text/plain"))
        self.assertEqual(value(samples(text), "lgi_requests_total", call="interface_submit_job", result="ok"), 1)
        self.assertEqual((await deferToThread(ask, "/metrics", "HEAD"))[2], "")
        for path, method, status in (("/", "GET", 404), ("/metrics/x", "GET", 404), ("/metrics", "POST", 405)):
            self.assertEqual((await deferToThread(ask, path, method))[0], status)
        with self.assertRaisesRegex(OSError, "it cannot be had: Address already in use"):
            serve(
                reactor,
                MetricsSection(listen=f"127.0.0.1:{host.port}"),
                operation.metrics.registry,
                operation.refresh,
            )

    async def test_dashboard(self) -> None:
        """It is what Grafana takes, and all that it shows is there, and the reverse."""
        await self.server.submit()
        there = {name for name, _ in await self.look()}
        dashboard = json.loads((ROOT / "etc/grafana/lgi.json").read_text("utf-8"))
        self.assertEqual({"title", "uid", "schemaVersion", "templating", "panels"} - set(dashboard), set())
        shown: set[str] = set()
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                shown |= set(re.findall(r"\blgi_\w+", target["expr"]))
        for variable in dashboard["templating"]["list"][1:]:
            shown |= set(re.findall(r"\blgi_\w+", variable["query"]["query"]))
        self.assertEqual(shown - there, set())
        families = {
            re.sub("_(bucket|sum|count|created)$", "", name) for name in there if not name.endswith("_created")
        }
        self.assertEqual(families - {re.sub("_(bucket|sum|count)$", "", name) for name in shown}, set())
        places = [tuple(panel["gridPos"][key] for key in "xywh") for panel in dashboard["panels"]]
        self.assertEqual(len({panel["id"] for panel in dashboard["panels"]}), len(places))
        self.assertEqual(len({place[:2] for place in places}), len(places))


class LogTests(ServerCase):
    changes = '\n[log]\naccess = "../access.log"\nslow_call = 0.000001\n'

    async def test_access_log(self) -> None:
        """A line for every request, also one that was refused before it had come whole."""
        operation: Any = self.server.site.watch
        operation.start()
        job_id = await self.server.submit()
        await self.server.user("job_state", job_id=job_id + 1)
        announced = b"PUT /LGI/x HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n"
        self.assertEqual((await self.server.send(RESOURCE, announced)).code, 413)
        await operation.stop()
        assert self.server.config.log.access is not None
        lines = self.server.config.log.access.read_text().splitlines()
        self.assertRegex(
            lines[0],
            r'^127\.0\.0\.1 - mark@localhost \[.+\] "POST /LGI/interfaces/interface_submit_job\.php HTTP/1\.1" '
            r'200 [1-9]\d+ "-" "-" interface_submit_job - \d+\.\d$',
        )
        self.assertRegex(lines[1], r" interface_job_state 15 \d+\.\d$")
        self.assertRegex(lines[2], r'"PUT /LGI/x HTTP/1\.1" 413 \d+ "-" "-" other_PUT - ')
        self.assertEqual(len(lines), 3)

    async def test_slow_calls(self) -> None:
        """Told with the time in the database, and without anything that was posted."""
        with capturedLogs() as events:
            await self.server.submit(input=b"a secret".hex())
        told = [str(formatEvent(event)) for event in events]
        (slow,) = [line for line in told if line.startswith("slow call")]
        self.assertRegex(
            slow,
            r"^slow call interface_submit_job of mark@localhost: \d+ ms, of them \d+ ms in [1-9] transactions$",
        )
        self.assertNotIn(b"a secret".hex(), "".join(told))

    async def test_transactions_of_a_wait(self) -> None:
        """What is looked up while a resource waits is no part of a time that does not have the wait in it."""
        session_id = await self.server.session()
        with capturedLogs() as events:
            await self.server.resource("request_work", session_id=session_id, wait=1, applications="hello_world")
        told = [str(formatEvent(event)) for event in events]
        (slow,) = [line for line in told if line.startswith("slow call")]
        self.assertRegex(slow, r"^slow call resource_request_work of \S+: \d+ ms, of them 0 ms in 0 transactions$")


class IdleTests(ServerCase):
    """What a call waits on purpose does not make it slow."""

    changes = "\n[log]\nslow_call = 1.0\n"

    async def test_idle(self) -> None:
        job_id = await self.server.submit()
        with capturedLogs() as events:
            await self.server.user("job_state", jobs=f"{job_id}:queued", wait=2)
        self.assertEqual([event for event in events if "slow call" in str(formatEvent(event))], [])


PROCESS = """
import sys
from pathlib import Path
from lgi.httpd.record import Record
from lgi.server.exposition import reserve
from lgi.server.metrics import Metrics
reserve(Path(sys.argv[1]))
metrics = Metrics()
for _ in range(3):
    metrics.request(Record(began=1.0, ended=1.02, call="x", status=200))
metrics._under_way.set(2)
metrics.sample()
print("ready", flush=True)
sys.stdin.read()
"""


class ProcessTests(SynchronousTestCase):
    """Several processes behind a front."""

    def test_values_of_all(self) -> None:
        """What was counted stays when a process ends, and what was so at the moment goes with it."""
        before = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        run = Path(self.mktemp()).absolute()
        run.mkdir()
        (run / "metrics").mkdir()
        (run / "metrics" / "counter_1.db").write_bytes(b"of an earlier server")
        try:
            directory = prepare_directory(run)
            environment = dict(os.environ)
        finally:
            os.environ.pop("PROMETHEUS_MULTIPROC_DIR")
            if before is not None:
                os.environ["PROMETHEUS_MULTIPROC_DIR"] = before
        self.assertEqual(directory, directory_of(run))
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, str(directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                cwd=ROOT,
            )
            for _ in range(2)
        ]
        registry = registry_of(directory)
        try:
            for process in processes:
                assert process.stdout is not None
                self.assertEqual(process.stdout.readline(), b"ready\n")
            retire_ended(directory)
            self.check(registry, under_way=4)
            processes[0].communicate(timeout=30)
            retire_ended(directory)
            self.check(registry, under_way=2)
        finally:
            for process in processes:
                process.communicate(timeout=30)
        retire_ended(directory)
        self.check(registry, under_way=None)
        self.assertEqual(
            sorted(file.name for file in directory.glob("*.db")),
            ["counter_retired.db", "histogram_retired.db"],
        )

    def check(self, registry: Any, *, under_way: float | None) -> None:
        found = samples(generate_latest(registry).decode())
        self.assertEqual(value(found, "lgi_requests_total", call="x", result="ok"), 6)
        self.assertEqual(value(found, "lgi_request_seconds_count", call="x"), 6)
        self.assertEqual(value(found, "lgi_request_seconds_bucket", call="x", le="0.01"), 0)
        self.assertEqual(value(found, "lgi_request_seconds_bucket", call="x", le="0.025"), 6)
        self.assertEqual(value(found, "lgi_calls_under_way"), under_way)
