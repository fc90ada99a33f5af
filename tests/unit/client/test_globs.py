"""What names and patterns mean."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from lgi.client.globs import IsDirectory, chosen, matches
from lgi.model import RepositoryFile

NAMES = ("a.csv", "odd[1]", "run1/a.csv", "run1/out/b.csv", "run1/out/deep/b.txt", "run2/a.csv")
FILES = [RepositoryFile(name=name, size=1, date=0.0) for name in NAMES]


class Globs(SynchronousTestCase):
    def chosen(self, name: str, *, recursive: bool = False) -> list[str]:
        return [file.name for file in chosen(FILES, name, recursive=recursive)]

    def test_patterns(self) -> None:
        for pattern, found in (
            ("*.csv", ["a.csv"]),
            ("*", ["a.csv", "odd[1]"]),
            ("**", list(NAMES)),
            ("**/*.csv", ["a.csv", "run1/a.csv", "run1/out/b.csv", "run2/a.csv"]),
            ("run?/a.csv", ["run1/a.csv", "run2/a.csv"]),
            ("run[13]/*", ["run1/a.csv"]),
            ("run1/**", ["run1/a.csv", "run1/out/b.csv", "run1/out/deep/b.txt"]),
            ("run1/**/**/b.*", ["run1/out/b.csv", "run1/out/deep/b.txt"]),
            ("odd[1]", ["odd[1]"]),
            ("A.CSV", []),
            ("", []),
            ("/", []),
        ):
            self.assertEqual(self.chosen(pattern), found, pattern)

    def test_directories_need_to_be_meant(self) -> None:
        self.assertRaises(IsDirectory, self.chosen, "run1")
        self.assertEqual(self.chosen("run1/", recursive=True), list(NAMES[2:5]))
        self.assertEqual(self.chosen("run*", recursive=True), list(NAMES[2:]))
        self.assertEqual(self.chosen("run1/o*", recursive=True), list(NAMES[3:5]))
        self.assertEqual(self.chosen("", recursive=True), [])

    def test_no_pattern_takes_long(self) -> None:
        begun = time.monotonic()
        self.assertFalse(matches("/".join("a" * 32), "/".join(["**", "a"] * 15 + ["b"])))
        self.assertLess(time.monotonic() - begun, 1)
