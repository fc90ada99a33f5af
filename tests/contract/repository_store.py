"""The contract of repository backends: the same tests for each of them."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lgi.httpd.spool import Spool, SpooledFile
from lgi.repository.access import ACCESS_FILE, RESOURCE_LIST
from lgi.repository.names import NameRefused, fan_out, new_repository_name
from lgi.repository.store import NotAFile, Store


class StoreCase(SynchronousTestCase):
    """What tests with a store need: `root` is its directory, as this machine sees it."""

    def make_store(self) -> Store:
        """The store, kept in `root`."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.root = self.folder / "repository"
        self.spool = Spool(self.folder / "spool")
        self.spool.prepare()
        self.store = self.make_store()
        self.store.prepare()
        self.name = new_repository_name()

    def file(self, content: bytes = b"content") -> SpooledFile:
        """A file that was received."""
        file = self.spool.create()
        file.write(content)
        self.addCleanup(file.discard)
        return file

    def create(self, **files: bytes) -> None:
        """Make the repository with these files."""
        self.store.create(self.name, ["mark@x"], [(name, self.file(content)) for name, content in files.items()])

    def keep(self, name: str, content: bytes = b"content") -> None:
        """Put a file into the repository."""
        self.store.keep(self.name, name, self.file(content))

    @property
    def path(self) -> Path:
        """The repository's directory."""
        return self.root / fan_out(self.name) / self.name

    def content(self, name: str) -> bytes:
        """What is read from a file."""
        file = self.store.open(self.name, name)
        try:
            self.assertEqual(file.read_at(file.state.size, 10), b"")
            return file.read_at(0, file.state.size)
        finally:
            file.close()

    def mark(self, name: str) -> str:
        """The mark of a file's content."""
        file = self.store.open(self.name, name)
        file.close()
        return file.state.mark

    def names(self) -> list[str]:
        """The listed names, without the server's own."""
        return [file.name for file in self.store.list(self.name) if file.name != ACCESS_FILE]

    def on_disk(self) -> list[str]:
        """Everything in the repository, as this machine sees it."""
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*"))

    def waiting(self) -> list[Path]:
        """What is in the hidden directories of the store and of the spool."""
        hidden = [folder for folder in self.root.iterdir() if folder.name.startswith(".") and folder.is_dir()]
        return [path for folder in (*hidden, self.folder / "spool") for path in folder.iterdir()]

    def at_once(self, *work: Callable[[], object]) -> list[BaseException]:
        """Do all of it at once, each in a thread of its own; returns what went wrong."""
        problems: list[BaseException] = []

        def run(one: Callable[[], object]) -> None:
            try:
                one()
            except BaseException as problem:
                problems.append(problem)

        threads = [threading.Thread(target=run, args=(one,)) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            self.assertFalse(thread.is_alive())
        return problems


class StoreContract(StoreCase):
    """What every backend does."""

    def test_create(self) -> None:
        before = time.time()
        self.create(**{"a": b"first", "b/c/d": b"second", "b/e": b"", "é ü.txt": b"x"})
        self.assertEqual(self.names(), ["a", "b/c/d", "b/e", "é ü.txt"])
        self.assertEqual(self.content("a"), b"first")
        self.assertEqual(self.content("b/c/d"), b"second")
        self.assertEqual(self.content("b/e"), b"")
        self.assertEqual(self.store.writers(self.name), ("mark@x",))
        self.assertEqual((self.path / ACCESS_FILE).read_text(), "mark@x")
        listed = self.store.list(self.name)
        self.assertEqual([file.size for file in listed], [6, 5, 6, 0, 1])
        self.assertEqual(listed[0].name, ACCESS_FILE)
        for file in listed:
            self.assertApproximates(file.date, before, 5)
        self.assertEqual(self.waiting(), [])
        self.assertEqual((self.path / "a").stat().st_mode & 0o777, 0o640)

    def test_create_twice(self) -> None:
        """A repository that is there stays as it is."""
        self.create(a=b"first")
        self.assertRaises(FileExistsError, self.create, a=b"second")
        self.assertEqual(self.content("a"), b"first")

    def test_create_refused(self) -> None:
        """A name that cannot be, or one that needs a file to be a directory: nothing is left behind."""
        for refused, names in ((NameRefused, ["a", "../b"]), (NotAFile, ["a", "a/b"]), (NotAFile, ["a/b", "a"])):
            with self.assertRaises(refused):
                self.store.create(self.name, [], [(name, self.file()) for name in names])
            self.assertFalse(self.path.exists())
            self.assertEqual(self.store.list(self.name), ())

    def test_unknown_repository(self) -> None:
        self.assertEqual(self.store.list(self.name), ())
        self.assertEqual(self.store.writers(self.name), ())
        self.store.remove(self.name)
        self.assertRaises(FileNotFoundError, self.keep, "a")
        self.assertRaises(FileNotFoundError, self.keep, "a/b")
        self.assertRaises(FileNotFoundError, self.store.open, self.name, "a")
        self.assertRaises(FileNotFoundError, self.store.delete, self.name, "a")
        self.assertFalse(self.path.exists())

    def test_names(self) -> None:
        """No name leads out of the repository, nor to the server's own files; nothing is made of it."""
        self.create(a=b"first")
        (self.root / "outside").write_bytes(b"not yours")
        for name in (
            "",
            "..",
            "../outside",
            "/etc/passwd",
            "a//b",
            "a/",
            ACCESS_FILE,
            "b/.c",
            "b/../a",
            "b\\c",
            "\n",
        ):
            self.assertRaises(NameRefused, self.keep, name)
            self.assertRaises(NameRefused, self.store.open, self.name, name)
            self.assertRaises(NameRefused, self.store.delete, self.name, name)
        for name in ("", "..", "JOB_", f"{self.name}/../x", self.name.upper()):
            for method in (self.store.remove, self.store.list, self.store.writers):
                self.assertRaises(NameRefused, method, name)
            self.assertRaises(NameRefused, self.store.create, name, [], [])
            self.assertRaises(NameRefused, self.store.open, name, "a")
        self.assertEqual(self.on_disk(), [ACCESS_FILE, "a"])

    def test_long_names(self) -> None:
        self.create()
        deep, long = "/".join(["d"] * 31 + ["f"]), "ü" * 127
        for name in (deep, long):
            self.keep(name, name.encode())
            self.assertEqual(self.content(name), name.encode())
        self.assertEqual(self.names(), [deep, long])

    def test_keep(self) -> None:
        """The file is there, what was received is gone, and the next one takes its place."""
        self.create()
        for content in (b"first", b"second", b"", b"x" * 3_000_000):
            received = self.file(content)
            self.store.keep(self.name, "a/b/c", received)
            self.assertEqual(self.content("a/b/c"), content)
            self.assertEqual(self.names(), ["a/b/c"])
            self.assertEqual(self.waiting(), [])
            received.discard()
        self.assertEqual((self.path / "a/b/c").stat().st_mode & 0o777, 0o640)

    def test_not_a_file(self) -> None:
        """A directory is not replaced by a file, nor a file by a directory; what is there stays."""
        self.create(**{"a/b": b"first", "c": b"second"})
        for name in ("a", "a/b/c", "c/d", "c/d/e"):
            received = self.file()
            self.assertRaises(NotAFile, self.store.keep, self.name, name, received)
            received.discard()
        self.assertEqual(self.on_disk(), [ACCESS_FILE, "a", "a/b", "c"])
        self.assertEqual(self.waiting(), [])

    def test_open_nothing(self) -> None:
        self.create(**{"a/b": b"first"})
        for name in ("c", "a", "a/c", "a/b/c", "c/d"):
            self.assertRaises(FileNotFoundError, self.store.open, self.name, name)
            self.assertRaises(FileNotFoundError, self.store.delete, self.name, name)
        self.assertEqual(self.names(), ["a/b"])

    def test_links(self) -> None:
        """Whatever else is planted, no link is followed and no pipe is waited for."""
        self.create(**{"a": b"first", "b/c": b"second"})
        secret = self.folder / "secret"
        secret.mkdir()
        (secret / "file").write_bytes(b"not yours")
        (self.path / "link").symlink_to(secret / "file")
        (self.path / "way").symlink_to(secret)
        (self.path / "b" / "way").symlink_to(secret)
        for name in ("link", "way/file", "b/way/file"):
            self.assertRaises(FileNotFoundError, self.store.open, self.name, name)
        for name in ("way/file", "way/new", "b/way/new/file"):
            self.assertRaises(NotAFile, self.keep, name)
        for name in ("way/file", "b/way/file"):
            self.assertRaises(FileNotFoundError, self.store.delete, self.name, name)
        self.assertEqual(self.names(), ["a", "b/c"])
        self.store.remove(self.name)
        self.assertFalse(self.path.exists())
        self.assertEqual((secret / "file").read_bytes(), b"not yours")
        self.assertEqual([path.name for path in secret.iterdir()], ["file"])

    def test_linked_repository(self) -> None:
        """A link in the place of a repository is none."""
        secret = self.folder / "secret"
        secret.mkdir()
        (secret / "file").write_bytes(b"not yours")
        self.path.parent.mkdir()
        self.path.symlink_to(secret)
        self.assertRaises(FileNotFoundError, self.store.open, self.name, "file")
        self.assertRaises(FileNotFoundError, self.keep, "file")
        self.assertRaises(FileNotFoundError, self.store.delete, self.name, "file")
        self.assertEqual(self.store.list(self.name), ())
        self.assertEqual(self.store.writers(self.name), ())
        self.assertEqual((secret / "file").read_bytes(), b"not yours")

    def test_pipe(self) -> None:
        self.create()
        os.mkfifo(self.path / "pipe")
        self.assertRaises(FileNotFoundError, self.store.open, self.name, "pipe")
        self.assertEqual(self.names(), [])

    def test_marks(self) -> None:
        """Contents of one size that follow each other fast have different marks, deleted ones in between."""
        self.create(a=b"00")
        seen = [self.mark("a")]
        for number in range(1, 8):
            if number % 3 == 0:
                self.store.delete(self.name, "a")
            self.keep("a", b"%02d" % number)
            seen.append(self.mark("a"))
            self.assertEqual(self.mark("a"), seen[-1])
        self.assertEqual(len(set(seen)), len(seen))

    def test_state(self) -> None:
        self.create(a=b"12345")
        file = self.store.open(self.name, "a")
        self.addCleanup(file.close)
        self.assertEqual(file.state.size, 5)
        self.assertApproximates(file.state.date / 1e9, time.time(), 5)
        [listed] = [one for one in self.store.list(self.name) if one.name == "a"]
        self.assertEqual(file.state.date / 1e9, listed.date)

    def test_read_at(self) -> None:
        """Any piece, in any order."""
        content = secrets.token_bytes(5_000_000)
        self.create(a=content)
        file = self.store.open(self.name, "a")
        self.addCleanup(file.close)
        for offset, size in (
            (0, 10),
            (10, 10),
            (4_999_990, 100),
            (0, 5_000_000),
            (1_000_000, 65_536),
            (1_065_536, 65_536),
            (1_131_072, 3_000_000),
            (700, 1),
            (5_000_000, 10),
            (6_000_000, 10),
            (0, 0),
        ):
            there = content[offset : offset + size]
            self.assertTrue(file.read_now(offset, size) in (b"", there), (offset, size))
            self.assertTrue(file.read_at(offset, size) == there, (offset, size))
        for size in (65_536, 1_000_000, 2_200_000):
            pieces, offset = [], 0
            while piece := file.read_at(offset, size):
                pieces.append(piece)
                offset += len(piece)
            self.assertTrue(b"".join(pieces) == content, size)
        file.close()
        file.close()

    def test_open_file_stays(self) -> None:
        """Who reads a file goes on with it when it is replaced, deleted, or its repository is removed."""
        content = secrets.token_bytes(3_000_000)
        self.create(a=content, b=b"second")
        file, other = self.store.open(self.name, "a"), self.store.open(self.name, "b")
        self.addCleanup(file.close)
        self.addCleanup(other.close)
        self.assertTrue(file.read_at(0, 100_000) == content[:100_000])
        self.keep("a", b"new")
        self.store.delete(self.name, "b")
        self.assertTrue(file.read_at(100_000, 2_900_000) == content[100_000:])
        self.assertEqual(other.read_at(0, 10), b"second")
        self.store.remove(self.name)
        self.assertTrue(file.read_at(5, 100) == content[5:105])

    def test_delete(self) -> None:
        """The last file of a directory takes the directory with it, and no other one; the repository stays."""
        self.create(**{"a/b/c": b"1", "a/b/d": b"2", "a/e/f/g": b"3"})
        self.store.delete(self.name, "a/b/c")
        self.assertEqual(self.on_disk(), [ACCESS_FILE, "a", "a/b", "a/b/d", "a/e", "a/e/f", "a/e/f/g"])
        self.store.delete(self.name, "a/e/f/g")
        self.assertEqual(self.on_disk(), [ACCESS_FILE, "a", "a/b", "a/b/d"])
        self.assertRaises(FileNotFoundError, self.store.delete, self.name, "a/b/c")
        self.store.delete(self.name, "a/b/d")
        self.assertEqual(self.on_disk(), [ACCESS_FILE])
        self.keep("a", b"a file where a directory was")
        self.assertEqual(self.names(), ["a"])

    def test_remove(self) -> None:
        self.create(**{"a": b"1", "b/c/d": b"2"})
        other, self.name = self.name, new_repository_name()
        self.create(a=b"3")
        self.store.remove(other)
        self.store.remove(other)
        self.assertEqual(self.store.list(other), ())
        self.assertFalse((self.root / fan_out(other) / other).exists())
        self.assertEqual(self.waiting(), [])
        self.assertEqual(self.content("a"), b"3")

    def test_prepare_again(self) -> None:
        """What was begun to be removed is removed; what is there stays."""
        self.create(**{"a/b": b"1"})
        doomed = self.root / ".trash" / new_repository_name()
        (doomed / "x" / "y").mkdir(parents=True)
        (doomed / "x" / "y" / "z").write_bytes(b"")
        self.store.prepare()
        self.assertFalse(doomed.exists())
        self.assertEqual(self.content("a/b"), b"1")

    def test_resources(self) -> None:
        self.assertEqual(self.store.resources(), ())
        self.store.write_resources(["r1@x", "r2@x"])
        self.assertEqual(self.store.resources(), ("r1@x", "r2@x"))
        before = (self.root / RESOURCE_LIST).stat()
        self.store.write_resources(["r1@x", "r2@x"])
        self.assertEqual((self.root / RESOURCE_LIST).stat().st_ino, before.st_ino)
        self.store.write_resources([])
        self.assertEqual(self.store.resources(), ())
        self.assertEqual(self.waiting(), [])

    def test_untouched(self) -> None:
        """A file that comes or goes anywhere in a repository touches it; nothing else is named."""
        names: Sequence[str] = [self.name, *(new_repository_name() for _ in range(4))]
        for name in names:
            self.store.create(name, [], [("a/b", self.file()), ("a/c", self.file())])
            for path in (self.root / fan_out(name) / name, self.root / fan_out(name) / name / "a"):
                os.utime(path, (1000, 1000))
        (self.root / "abc" / "JOB_of_somebody").mkdir(parents=True)
        os.utime(self.root / "abc" / "JOB_of_somebody", (1000, 1000))
        (self.root / "xyz").write_bytes(b"")
        self.assertEqual(sorted(self.store.untouched(2000)), sorted(names))
        self.assertEqual(list(self.store.untouched(500)), [])
        self.store.keep(names[0], "new", self.file())
        self.store.keep(names[1], "a/b", self.file())
        self.store.delete(names[2], "a/b")
        self.assertEqual(sorted(self.store.untouched(2000)), sorted(names[3:]))

    def test_at_once(self) -> None:
        """Several threads: directories come and go under each other, and every file is whole."""
        self.create()

        def come_and_go(thread: int) -> None:
            for number in range(4):
                content = b"%d" % thread * 50_000
                self.store.keep(self.name, f"a/b/{thread}", self.file(content))
                self.store.keep(self.name, "same", self.file(content))
                file = self.store.open(self.name, "same")
                found = file.read_at(0, 50_000)
                file.close()
                assert len(found) == 50_000 and len(set(found)) == 1
                if number % 2:
                    self.store.delete(self.name, f"a/b/{thread}")

        problems = self.at_once(*(lambda thread=thread: come_and_go(thread) for thread in range(4)))
        self.assertEqual(problems, [])
        self.assertEqual(self.names(), ["same"])
        self.assertEqual(self.on_disk(), [ACCESS_FILE, "same"])
        self.assertEqual(self.waiting(), [])
