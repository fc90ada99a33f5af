"""The parts of the configuration by which servers on several machines tell each other."""

from __future__ import annotations

from lgi.config import load_config
from tests.unit.test_config import GOOD, ConfigCase


class BellTests(ConfigCase):
    """`bell` and `look` of `[server]`."""

    def put(self, line: str) -> str:
        """A good configuration with this line in its `[server]`."""
        assert "[server]\n" in GOOD
        return GOOD.replace("[server]\n", f"[server]\n{line}\n")

    def test_defaults(self) -> None:
        self.file.write_text(GOOD)
        section = load_config(self.file).server
        self.assertEqual((section.bell, section.look), ("", 1.0))

    def test_values(self) -> None:
        for address in ("192.0.2.7:8444", "[2001:db8::7]:8444", "127.0.0.1:0", ""):
            self.file.write_text(self.put(f'bell = "{address}"\nlook = 30'))
            section = load_config(self.file).server
            self.assertEqual((section.bell, section.look), (address, 30.0))

    def test_mistakes(self) -> None:
        for address in ("0.0.0.0:8444", "[::]:8444", "grid.example.org:8444", "192.0.2.7", "192.0.2.7:65536"):
            (mistake,) = self.mistakes(self.put(f'bell = "{address}"'))
            self.assertTrue(mistake.startswith("server.bell: bell is an address and a port where the other"), mistake)
            self.assertIn(address, mistake)
        for value in ("0", "-1", "nan", "3601", '"1"'):
            (mistake,) = self.mistakes(self.put(f"look = {value}"))
            self.assertTrue(mistake.startswith("server.look: "), mistake)
