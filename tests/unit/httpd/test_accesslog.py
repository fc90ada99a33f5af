"""The access log: what is in a line, and when it gets to the file."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from lgi.httpd.accesslog import FULL, AccessLog, line_of
from lgi.httpd.record import Record


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "began": 5.0,
        "ended": 5.0123,
        "caller": "mark@localhost",
        "call": "interface_submit_job",
    }
    return Record(**(values | {"status": 200, "size": 321} | changes))


def request(uri: bytes = b"/LGI/x", **headers: bytes) -> Any:
    return SimpleNamespace(
        uri=uri,
        method=b"POST",
        clientproto=b"HTTP/1.1",
        client=SimpleNamespace(host="127.0.0.1"),
        requestHeaders=Headers({name.replace("_", "-").encode(): [value] for name, value in headers.items()}),
    )


class LineTests(SynchronousTestCase):
    def test_line(self) -> None:
        line = line_of(request(user_agent=b"lgi/2"), record(error=15), "21/Nov/2026:14:00:00 +0000")
        self.assertEqual(
            line,
            '127.0.0.1 - mark@localhost [21/Nov/2026:14:00:00 +0000] "POST /LGI/x HTTP/1.1" 200 321 "-" "lgi/2" '
            "interface_submit_job 15 12.3\n",
        )

    def test_nobody_can_forge_a_line_or_a_field(self) -> None:
        line = line_of(
            request(b'/a" 200\n', user_agent=b'x" 1\r\n\xff\\'), record(caller='a "b\n\u1234', call="other_GET"), "-"
        )
        self.assertEqual((line.count("\n"), line.count('"')), (1, 6))
        self.assertIn(r" - a\x20\x22b\x0a\u1234 [", line)
        self.assertIn(r'"x\x22 1 \xff\x5c" other_GET - ', line)

    def test_names_of_repositories_are_cut(self) -> None:
        line = line_of(request(b"/LGI/repository/JOB_" + b"0123456789abcdef" * 2 + b"/f"), record(), "-")
        self.assertIn("/JOB_01234567.../f ", line)
        self.assertIsNone(re.search("[0-9a-f]{9}", line))


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp()).absolute()
        self.clock = Clock()
        self.log = AccessLog(self.clock, self.file)
        self.log.open()
        self.addCleanup(self.log.close)

    def lines(self, file: Path | None = None) -> int:
        return len((file or self.file).read_text().splitlines())

    def test_written_once_a_second_and_at_the_end(self) -> None:
        for _ in range(3):
            self.log.write(request(), record())
        self.assertEqual((self.lines(), len(self.clock.getDelayedCalls())), (0, 1))
        self.clock.advance(1)
        self.assertEqual((self.lines(), len(self.clock.getDelayedCalls())), (3, 0))
        self.log.write(request(), record())
        self.log.close()
        self.log.close()
        self.assertEqual((self.lines(), self.clock.getDelayedCalls()), (4, []))
        self.assertEqual(self.file.stat().st_mode & 0o777 & ~0o640, 0)

    def test_many_at_once(self) -> None:
        """They are not kept in memory until the second is over."""
        while not self.file.stat().st_size:
            self.log.write(request(), record())
        self.assertGreaterEqual(self.file.stat().st_size, FULL)

    def test_moved_away(self) -> None:
        self.log.write(request(), record())
        moved = self.file.with_suffix(".1")
        self.file.rename(moved)
        self.log.reopen()
        self.log.write(request(), record())
        self.clock.advance(1)
        self.assertEqual((self.lines(moved), self.lines()), (1, 1))

    def test_cannot_be_opened_anew(self) -> None:
        """The old one is kept, and an error is logged."""
        self.file.rename(self.file.with_suffix(".1"))
        self.file.mkdir()
        with capturedLogs() as events:
            self.log.reopen()
        self.assertEqual([event["log_level"] for event in events], [LogLevel.error])
        self.log.write(request(), record())
        self.clock.advance(1)
        self.assertEqual(self.lines(self.file.with_suffix(".1")), 1)

    def test_full_disk(self) -> None:
        """What was lost is told, and nobody is kept from being served."""
        log = AccessLog(self.clock, Path("/dev/full"))
        log.open()
        self.addCleanup(log.close)
        with capturedLogs() as events:
            for _ in range(2):
                log.write(request(), record())
                self.clock.advance(1)
        self.assertEqual([event["log_level"] for event in events], [LogLevel.error])

    def test_no_directory(self) -> None:
        with self.assertRaises(NotADirectoryError):
            AccessLog(self.clock, self.file / "a" / "b").open()
