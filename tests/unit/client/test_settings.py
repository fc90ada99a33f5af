"""The configuration directory: everything that is wrong with it at once."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lgi.client.settings import SettingsError, is_server_url, read_settings

GOOD = {
    "certificate": "-",
    "privatekey": "-",
    "ca_chain": "-",
    "defaultserver": "https://localhost:8443/LGI\n",
    "defaultproject": "LGI",
    "user": " mark@localhost\n",
    "groups": "theor, chem",
}


class Settings(SynchronousTestCase):
    def directory(self, **changes: str | None) -> Path:
        folder = Path(self.mktemp())
        folder.mkdir()
        for name, value in {**GOOD, **changes}.items():
            if value is not None:
                (folder / name).write_text(value)
        return folder

    def mistakes(self, folder: Path) -> str:
        return str(self.assertRaises(SettingsError, read_settings, folder))

    def test_defaults(self) -> None:
        settings = read_settings(self.directory())
        self.assertEqual(settings.server, "https://localhost:8443/LGI")
        self.assertEqual((settings.user, settings.groups), ("mark@localhost", ("theor", "chem")))
        self.assertEqual((settings.application, settings.target_resources), ("", ("any",)))

    def test_what_may_be_there(self) -> None:
        folder = self.directory(
            defaultapplication="lj_md", defaulttargetresources="a, b", defaultjobspecifics="<x> 1 </x>"
        )
        settings = read_settings(folder)
        self.assertEqual(
            (settings.application, settings.target_resources, settings.job_specifics),
            ("lj_md", ("a", "b"), "<x> 1 </x>"),
        )

    def test_every_mistake_is_named(self) -> None:
        folder = self.directory(privatekey=None, defaultserver="http://here", user=None, groups=" ")
        (folder / "defaultproject").write_bytes(b"\xff\xfe")
        text = self.mistakes(folder)
        for part in (
            f"{folder / 'privatekey'} is missing",
            f"{folder / 'defaultserver'} has 'http://here'",
            f"{folder / 'defaultproject'} cannot be read: it is not UTF-8 text",
            f"{folder / 'user'} is missing",
            f"{folder / 'groups'} is empty",
        ):
            self.assertIn(part, text)
        self.assertEqual(text.count(";"), 4)

    def test_no_directory(self) -> None:
        text = self.mistakes(Path(self.mktemp()))
        self.assertIn("--config", text)
        self.assertIn("lgi ca issue user", text)
        file = Path(self.mktemp())
        file.touch()
        self.assertIn("no configuration directory", self.mistakes(file))

    def test_given_values_go_first(self) -> None:
        folder = self.directory(defaultserver=None, defaultproject=None)
        settings = read_settings(folder, server="https://other/LGI", project="P")
        self.assertEqual((settings.server, settings.project), ("https://other/LGI", "P"))
        wrong = self.assertRaises(SettingsError, read_settings, folder, server="other", project="P")
        self.assertIn("--server has 'other'", str(wrong))

    def test_addresses(self) -> None:
        for good in ("https://host/LGI", "https://[::1]:8443/LGI", "https://host"):
            self.assertTrue(is_server_url(good), good)
        for bad in (
            "",
            "host",
            "http://host",
            "https://",
            "https:///x",
            "https://h:x/",
            "https://h:99999/",
            "https://h:0/",
            "https://a b",
            "https://[::1",
        ):
            self.assertFalse(is_server_url(bad), bad)
