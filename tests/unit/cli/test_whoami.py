"""lgi whoami and lgi servers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from lgi.ca import CertificateAuthority
from lgi.cli.complaint import Complaint
from lgi.cli.servers import list_servers
from lgi.cli.whoami import Paper, ask_server, read_paper, say_paper
from lgi.identity import Identity
from tests.unit.cli.sessions import SERVERS, CommandTestCase, servers
from tests.unit.client import fakes

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PAPER = Paper(
    identity=Identity(name="mark@localhost", groups=("theor", "chem"), projects=("LGI",)),
    issuer="LGI authority",
    valid_until=NOW + timedelta(days=100, hours=1),
    days_left=100,
)


class WhoAmI(CommandTestCase):
    def test_reads_a_certificate(self) -> None:
        authority = CertificateAuthority.create(Path(self.mktemp()), organisation="Test")
        issued = authority.issue_user("mark@localhost", groups=["theor"], projects=["LGI"], days=10)
        file = Path(self.mktemp())
        file.write_bytes(issued.certificate_pem)
        now = datetime.now(UTC)
        paper = read_paper(file, now)
        self.assertEqual(paper.identity, Identity(name="mark@localhost", groups=("theor",), projects=("LGI",)))
        self.assertIn(paper.days_left, (9, 10))
        self.assertEqual(paper.valid_until - now > timedelta(days=9), True)
        self.assertLess(read_paper(file, now + timedelta(days=11)).days_left, 0)

    def test_something_else(self) -> None:
        file = Path(self.mktemp())
        file.write_bytes(b"no certificate")
        self.assertIn(str(file), str(self.assertRaises(Complaint, read_paper, file, NOW)))

    def test_lines(self) -> None:
        session = self.open()
        say_paper(session.screen, PAPER, session.settings)
        text = self.out.getvalue()
        for part in ("mark@localhost", "theor, chem (in use: theor)", "LGI authority", "(100 days left)", "conf"):
            self.assertIn(part, text)
        self.assertEqual(self.complaints, [])

    def test_warns_in_time(self) -> None:
        for days, text in ((29, "ends in 29 days;"), (1, "ends in 1 day;")):
            session = self.open()
            say_paper(session.screen, attrs.evolve(PAPER, days_left=days), session.settings)
            self.assertIn(text, self.complaints[0])

    async def test_known_to_the_server(self) -> None:
        self.assertEqual(await ask_server(self.open(json=True), PAPER), 0)
        self.assertEqual((self.value["server_answers"], self.value["servers"]), (True, [self.url]))
        self.assertEqual((self.value["name"], self.value["days_left"]), ("mark@localhost", 100))

    async def test_offline(self) -> None:
        await self.stop_listening()
        self.assertEqual(await ask_server(self.open(), PAPER), 0)
        self.assertRegex(self.complaints[0], "the server was not asked: .*connection refused")

    async def test_refused(self) -> None:
        self.fake.script[SERVERS] = [fakes.refusal(2, "revoked")]
        self.assertEqual(await ask_server(self.open(json=True), PAPER), 1)
        self.assertFalse(self.value["server_answers"])
        self.assertIn("revoked", self.complaints[0])


class Servers(CommandTestCase):
    async def test_roles_and_one_that_is_down(self) -> None:
        other = f"{self.url}2"
        self.fake.script[SERVERS] = [servers(self.url, other)]
        self.fake.script[f"/LGI2/{SERVERS}"] = [fakes.cut]
        self.assertEqual(await list_servers(self.open(alone=False)), 1)
        rows = [line.split("  ") for line in self.said]
        self.assertIn("master", " ".join(rows[1]))
        self.assertRegex(self.said[1], r"\d ms")
        self.assertRegex(self.said[2], "slave +does not answer")
        self.assertIn(f"cannot be reached: {other}", self.complaints[0])
        self.assertEqual(await list_servers(self.open(alone=False, json=True)), 1)
        self.assertEqual([(one["role"], one["answers"]) for one in self.value], [("master", True), ("slave", False)])

    async def test_all_there(self) -> None:
        self.assertEqual(await list_servers(self.open()), 0)
        self.assertEqual(self.complaints, [])
