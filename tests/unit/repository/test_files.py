"""Repositories on the file system."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lgi.httpd.body import Upload
from lgi.httpd.spool import Spool
from lgi.identity import Identity
from lgi.repository.access import ACCESS_FILE, RESOURCE_LIST, encode_access, may_change
from lgi.repository.files import Repositories
from lgi.repository.local import LocalStore
from lgi.repository.names import (
    MAX_FILE_NAME,
    NameRefused,
    checked_file,
    checked_repository,
    fan_out,
    new_repository_name,
)

NAME = "JOB_0123456789abcdef0123456789abcdef"


class NameTests(SynchronousTestCase):
    """Names that clients send."""

    def test_new_names(self) -> None:
        names = {new_repository_name() for _ in range(1000)}
        self.assertEqual(len(names), 1000)
        for name in names:
            self.assertEqual(checked_repository(name), name)
            self.assertEqual(fan_out(name), name[-3:])

    def test_repositories(self) -> None:
        for name in (
            "",
            "JOB_",
            NAME[:-1],
            f"{NAME}0",
            NAME.upper(),
            f"{NAME}\n",
            f" {NAME}",
            f"../{NAME}",
            "JOB_" + "g" * 32,
        ):
            self.assertRaises(NameRefused, checked_repository, name)

    @given(st.text(st.characters(), max_size=300))
    def test_files(self, name: str) -> None:
        """A name that is taken names a file in the directory, and nothing else."""
        try:
            checked_file(name)
        except NameRefused:
            return
        path = Path("/repository") / name
        self.assertEqual(path.relative_to("/repository").parts, tuple(name.split("/")))
        self.assertEqual(os.path.normpath(path), str(path))
        for part in path.relative_to("/repository").parts:
            self.assertLessEqual(len(os.fsencode(part)), MAX_FILE_NAME)
            self.assertFalse(part.startswith(".") or "\0" in part)

    @given(st.text(st.characters(categories=("L", "N")), min_size=1, max_size=60))
    def test_letters(self, name: str) -> None:
        """Letters and digits of every script are fine."""
        self.assertEqual(checked_file(name), name)


class AccessTests(SynchronousTestCase):
    """Who may change a repository."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.repository = self.root / NAME[-3:] / NAME
        self.repository.mkdir(parents=True)
        self.store = LocalStore(root=self.root, spool=Spool(self.root / ".spool"))

    def may(self, *names: str) -> bool:
        return may_change(Identity(name=names[0], groups=names[1:]), self.store.writers(NAME), self.store)

    def test_no_lists(self) -> None:
        self.assertFalse(self.may("mark", "any", "admin"))

    def test_access_file(self) -> None:
        (self.repository / ACCESS_FILE).write_bytes(encode_access(["admin", "mark@x", "theor"]))
        for names, allowed in (
            (("mark@x",), True),
            (("piet@x", "theor"), True),
            (("piet@x", "admin"), True),
            (("piet@x", "theo"), False),
            (("mark",), False),
            (("piet@x", "any"), False),
        ):
            self.assertEqual(self.may(*names), allowed, names)
        (self.repository / ACCESS_FILE).write_bytes(b"")
        self.assertFalse(self.may("mark@x"))

    def test_resource_list(self) -> None:
        (self.root / RESOURCE_LIST).write_bytes(encode_access(["resource1@x", "any"]))
        for names, allowed in (
            (("resource1@x",), True),
            (("mark@x", "resource1@x"), False),
            (("mark@x", "any"), False),
            (("mark@x",), False),
        ):
            self.assertEqual(self.may(*names), allowed, names)


class MadeMeanwhileTests(SynchronousTestCase):
    """A repository that another upload makes while somebody looks who may change it."""

    def test_between_two_looks(self) -> None:
        root = Path(self.mktemp())
        repositories = Repositories.local(root=root, location="LGI@localhost", url="https://localhost/LGI/repository")
        repositories.prepare()
        self.assertIsNone(repositories.writers(NAME))
        looks = LocalStore.writers

        def late(store: LocalStore, repository: str) -> tuple[str, ...]:
            found = looks(store, repository)
            if not found:
                repositories.create(repository, ["mark"], ())
            return found

        self.patch(LocalStore, "writers", late)
        self.assertEqual(repositories.writers(NAME), ("mark",))


class FileTests(SynchronousTestCase):
    """Making, filling and removing repositories."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.repositories = Repositories.local(root=self.root, location="LGI@x", url="https://x/LGI/repository")
        self.repositories.prepare()
        self.path = self.root / NAME[-3:] / NAME

    def upload(self, name: str, data: bytes) -> Upload:
        file = self.repositories.spool.create()
        file.write(data)
        return Upload(filename=name, file=file)

    def left(self) -> list[str]:
        """What there is, besides the directories for 4096 kinds of names."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.parent != self.root)

    def test_create(self) -> None:
        self.repositories.create(NAME, ["admin", "mark"], [self.upload("a", b"1"), self.upload("b c", b"")])
        self.assertEqual((self.path / ACCESS_FILE).read_text(), "admin, mark")
        self.assertEqual((self.path / "a").read_bytes(), b"1")
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o750)
        self.assertEqual([file.name for file in self.repositories.list(NAME)], [ACCESS_FILE, "a", "b c"])
        self.assertEqual([file.size for file in self.repositories.list(NAME)], [11, 1, 0])
        self.assertEqual(self.repositories.location_of(NAME), f"LGI@x:{self.path}")
        self.assertEqual(self.repositories.url_of(NAME), f"https://x/LGI/repository/def/{NAME}")

    def test_create_fails(self) -> None:
        """Whole or not at all: a bad name, one name twice, a file that has vanished, the same repository again."""
        lost = self.upload("b", b"2")
        for path in (self.root / ".spool").iterdir():
            path.unlink()
        for name, data, problem in (
            ("..", b"2", NameRefused),
            ("a", b"2", NameRefused),
            ("b", b"", FileNotFoundError),
        ):
            uploads = [self.upload("a", b"1"), self.upload(name, data) if data else lost]
            self.assertRaises(problem, self.repositories.create, NAME, [], uploads)
            for upload in uploads:
                upload.file.discard()
            self.assertEqual(self.left(), [])
        self.repositories.create(NAME, [], [self.upload("a", b"1")])
        again = self.upload("a", b"2")
        self.assertRaises(FileExistsError, self.repositories.create, NAME, [], [again])
        again.file.discard()
        self.assertEqual((self.path / "a").read_bytes(), b"1")

    def test_remove(self) -> None:
        self.repositories.create(NAME, [], [self.upload("a", b"1")])
        self.repositories.remove(NAME)
        self.assertEqual(self.left(), [])
        self.repositories.remove(NAME)
        self.assertRaises(NameRefused, self.repositories.remove, "../x")

    def test_interrupted_removal(self) -> None:
        """What a killed process had begun to remove is removed at the next start."""
        self.repositories.create(NAME, [], [self.upload("a", b"1")])
        self.path.rename(self.root / ".trash" / NAME)
        (self.root / ".trash" / "stray").write_bytes(b"")
        self.repositories.prepare()
        self.assertFalse((self.root / ".trash" / NAME).exists())
        self.assertEqual(self.repositories.list(NAME), ())

    def test_store_and_delete(self) -> None:
        received = self.upload("x", b"new").file
        self.assertRaises(FileNotFoundError, self.repositories.store.keep, NAME, "a", received)
        self.repositories.create(NAME, [], [self.upload("a", b"old")])
        self.assertRaises(NameRefused, self.repositories.store.keep, NAME, ACCESS_FILE, received)
        self.repositories.store.keep(NAME, "a", received)
        self.assertEqual((self.path / "a").read_bytes(), b"new")
        self.repositories.store.delete(NAME, "a")
        self.assertRaises(FileNotFoundError, self.repositories.store.delete, NAME, "a")
        self.assertRaises(NameRefused, self.repositories.store.delete, NAME, ACCESS_FILE)
        self.assertTrue((self.path / ACCESS_FILE).exists())

    def test_list(self) -> None:
        """Plain files alone."""
        self.assertEqual(self.repositories.list(NAME), ())
        self.repositories.create(NAME, [], [])
        (self.path / "folder").mkdir()
        (self.path / "link").symlink_to("/etc/hostname")
        os.mkfifo(self.path / "pipe")
        (self.path / "z").write_bytes(b"12")
        os.utime(self.path / "z", ns=(0, 1_500_000_000))
        found = self.repositories.list(NAME)
        self.assertEqual([file.name for file in found], [ACCESS_FILE, "z"])
        self.assertEqual((found[1].size, found[1].date), (2, 1.5))

    def test_resource_list(self) -> None:
        """Replaced as a whole, and only when it changes."""
        file = self.root / RESOURCE_LIST
        self.repositories.write_resource_list(["a", "b"])
        self.assertEqual(file.read_text(), "a, b")
        before = file.stat().st_ino
        self.repositories.write_resource_list(["a", "b"])
        self.assertEqual(file.stat().st_ino, before)
        self.repositories.write_resource_list([])
        self.assertEqual(file.read_text(), "")
        self.assertEqual(list((self.root / ".spool").iterdir()), [])
