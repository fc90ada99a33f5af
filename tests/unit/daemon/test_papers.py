from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from lgi.ca import CertificateAuthority
from lgi.daemon.config import read_config
from lgi.daemon.papers import Papers, PapersError, Watch, read_papers
from tests.unit.daemon.rig import make_resource


class PapersTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.file = make_resource(self.directory)
        self.authority = CertificateAuthority.create(self.directory / "ca", organisation="Test")

    def write(self, projects: tuple[str, ...] = ("LGI",)) -> None:
        issued = self.authority.issue_resource("here@example", projects=projects)
        (self.directory / "ca.crt").write_bytes(self.authority.certificate_pem)
        (self.directory / "resource.crt").write_bytes(issued.certificate_pem)
        (self.directory / "resource.key").write_bytes(issued.key_pem)
        (self.directory / "resource.key").chmod(0o600)

    def papers(self) -> Papers:
        return read_papers(read_config(self.file))


class PapersTests(PapersTestCase):
    def reasons(self) -> tuple[str, ...]:
        error: PapersError = self.assertRaises(PapersError, self.papers)
        return error.reasons

    def test_what_they_say(self) -> None:
        self.write()
        papers = self.papers()
        self.assertEqual(papers.identity.name, "here@example")
        self.assertEqual([file.name for file, _ in papers.ends], ["resource.crt", "ca.crt"])
        self.assertEqual(papers.ends[0][1], papers.credentials.certificate.not_valid_after_utc)

    def test_no_certificate(self) -> None:
        self.assertIn("not a certificate", self.reasons()[0])

    def test_all_that_is_wrong(self) -> None:
        self.write(projects=("OTHER",))
        (self.directory / "ca.crt").write_text("nothing")
        authority, project = self.reasons()
        self.assertIn("ca.crt", authority)
        self.assertIn("not for project LGI", project)


class WatchTests(PapersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.write()
        self.clock = Clock()
        self.end = self.papers().ends[0][1]
        self.events: list[Any] = []
        observer: Any = self.observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def observe(self, event: Any) -> None:
        if event.get("log_namespace") == "lgi.daemon.papers" and "end" in event:
            self.events.append(event["log_level"])

    def watch(self, before: timedelta) -> None:
        start = self.end - before
        watch = Watch(self.clock, lambda: start + timedelta(seconds=self.clock.seconds()))
        watch.begin(self.papers())
        self.addCleanup(watch.stop)

    def pass_days(self, days: float) -> list[Any]:
        self.events.clear()
        for _ in range(int(days * 24)):
            self.clock.advance(3600)
        return self.events

    def test_silent_until_two_weeks_before(self) -> None:
        self.watch(timedelta(days=20))
        self.assertEqual(self.pass_days(5.9), [])
        self.assertEqual(self.pass_days(0.2), [LogLevel.warn])

    def test_daily_until_the_end_and_after_it(self) -> None:
        self.watch(timedelta(days=3, minutes=30))
        self.assertEqual(self.events, [LogLevel.warn], "at the start")
        self.assertEqual(self.pass_days(3), [LogLevel.warn] * 3)
        self.events.clear()
        self.clock.advance(1802)
        self.assertEqual(self.events, [LogLevel.critical], "the moment it has ended")
        self.assertEqual(self.pass_days(2), [LogLevel.critical] * 2)

    def test_renewed(self) -> None:
        self.watch(timedelta(days=2))
        watch = Watch(self.clock, lambda: self.end - timedelta(days=100))
        watch.begin(self.papers())
        watch.begin(self.papers())
        self.addCleanup(watch.stop)
        self.events.clear()
        self.assertEqual(len(self.clock.getDelayedCalls()), 2, "one for each watch")

    def test_the_clock_of_the_machine_is_set(self) -> None:
        jump = timedelta()
        watch = Watch(self.clock, lambda: self.end - timedelta(days=100) + jump)
        watch.begin(self.papers())
        self.addCleanup(watch.stop)
        jump = timedelta(days=101)
        self.clock.advance(3600)
        self.assertEqual(self.events, [LogLevel.critical])
        jump = timedelta()
        self.assertEqual(self.pass_days(2), [])
