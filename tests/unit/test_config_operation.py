"""The parts of the configuration that are for whoever runs the server."""

from __future__ import annotations

from lgi.config import listen_address, load_config
from tests.unit.test_config import GOOD, ConfigCase


class OperationTests(ConfigCase):
    def test_defaults(self) -> None:
        self.file.write_text(GOOD)
        config = load_config(self.file)
        self.assertEqual((config.log.access, config.log.slow_call, config.metrics.listen), (None, 1.0, ""))

    def test_values(self) -> None:
        self.file.write_text(
            GOOD + '[log]\naccess = "../log/access"\nslow_call = 2\n[metrics]\nlisten = "127.0.0.1:9464"\n'
        )
        config = load_config(self.file)
        self.assertEqual(str(config.log.access), str(self.folder / "etc" / "../log/access"))
        self.assertEqual((config.log.slow_call, config.metrics.listen), (2.0, "127.0.0.1:9464"))

    def test_addresses(self) -> None:
        for text, address in (
            ("", None),
            ("9464", ("127.0.0.1", 9464)),
            ("localhost:1", ("127.0.0.1", 1)),
            ("0.0.0.0:0", ("0.0.0.0", 0)),
            ("[::1]:9464", ("::1", 9464)),
        ):
            self.assertEqual(listen_address(text), address)

    def test_mistakes(self) -> None:
        for text in (
            ":9464",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "::1:9464",
            "[127.0.0.1]:1",
            "a b:1",
            "1.2.3.4:٣",
        ):
            (mistake,) = self.mistakes(GOOD + f'[metrics]\nlisten = "{text}"\n')
            self.assertTrue(mistake.startswith("metrics.listen: listen is an address and a port such as"), mistake)
        for value in ("-1", "nan", "inf", '"1"', "true"):
            (mistake,) = self.mistakes(GOOD + f"[log]\nslow_call = {value}\n")
            self.assertTrue(mistake.startswith("log.slow_call: "), mistake)
