"""What is sent of a directory, under which names, and what is said of the rest."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lgi.client.walk import Found, find_files


class Walk(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        (self.folder / "run/out").mkdir(parents=True)
        (self.folder / "run/b").write_bytes(b"bb")
        (self.folder / "run/out/a").write_bytes(b"")

    def find(self, *names: str, recursive: bool = True, prefix: str = "") -> Found:
        return find_files([self.folder / name for name in names], recursive=recursive, prefix=prefix)

    def names(self, found: Found) -> list[tuple[str, int]]:
        return [(file.name, file.size) for file in found.files]

    def test_names(self) -> None:
        expected = [("run/b", 2), ("run/out/a", 0)]
        self.assertEqual(self.names(self.find("run")), expected)
        self.assertEqual(self.names(self.find("run/", prefix="x/y")), [(f"x/y/{n}", s) for n, s in expected])
        self.assertEqual(self.names(self.find("run/out/a", recursive=False)), [("a", 0)])
        previous = Path.cwd()
        os.chdir(self.folder / "run")
        self.addCleanup(os.chdir, previous)
        self.assertEqual(self.names(find_files([Path()], recursive=True)), [("b", 2), ("out/a", 0)])
        self.assertEqual(self.names(find_files([Path("..")], recursive=True)), expected)

    def test_nothing_is_skipped_in_silence(self) -> None:
        run = self.folder / "run"
        (run / ".hidden").write_text("x")
        (run / ".git").mkdir()
        (run / ".git/config").write_text("x")
        (run / "link").symlink_to("b")
        (run / "round").symlink_to(".")
        (run / "broken").symlink_to("nowhere")
        os.mkfifo(run / "pipe")
        found = self.find("run", "nowhere")
        self.assertEqual([name for name, _ in self.names(found)], ["run/b", "run/link", "run/out/a"])
        problems = {Path(path).name: str(problem) for path, problem in found.problems}
        self.assertEqual(sorted(problems), [".git", ".hidden", "broken", "nowhere", "pipe", "round"])
        self.assertIn("cannot be the name", problems[".git"])
        self.assertIn("not followed", problems["round"])
        self.assertIn("neither a file nor a directory", problems["pipe"])

    def test_directory_without_recursive(self) -> None:
        found = self.find("run", recursive=False)
        self.assertEqual(found.files, [])
        self.assertIn("-r", str(found.problems[0][1]))

    def test_two_with_one_name(self) -> None:
        (self.folder / "b").write_text("x")
        found = self.find("run/b", "b", "run/b")
        self.assertEqual([file.path for file in found.files], [self.folder / "run/b"])
        self.assertEqual([path for path, _ in found.problems], [str(self.folder / "b")])
        self.assertIn("same name", str(found.problems[0][1]))
