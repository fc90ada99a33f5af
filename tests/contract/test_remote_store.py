"""What can go wrong with a repository server on another machine, with a real sshd."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from twisted.trial.unittest import SkipTest

from lgi.httpd.spool import SpooledFile
from lgi.repository.access import ACCESS_FILE
from lgi.repository.names import fan_out, new_repository_name
from lgi.repository.remote import RemoteStore
from lgi.repository.sftp import Session
from tests.contract import remote, sshd

BIG = 200 * 1024 * 1024
# Pieces on their way, and what Python keeps of them; a program that held the file would need many times this.
FLAT = 40 * 1024 * 1024


class KeyTests(remote.RemoteCase):
    """Who the server is, and who we are."""

    def refused(self, store: RemoteStore, *parts: str) -> None:
        with self.assertRaises(OSError) as caught:
            store.list(self.name)
        for part in (sshd.HOST, *parts):
            if part not in str(caught.exception):
                self.fail(f"{part!r} is not in {caught.exception}")

    def test_unknown_host(self) -> None:
        """Never trusted at first sight: the message has the command that adds the host."""
        known_hosts = self.folder / "known hosts"
        command = f"ssh-keyscan -p {self.server.port} {sshd.HOST} >> '{known_hosts}'"
        for content in (None, "", f"other.example.org {sshd.public_line(self.server.host_key)}\n"):
            if content is not None:
                known_hosts.write_text(content)
            self.refused(self.remote(known_hosts=known_hosts), "no key of this host", command)
        subprocess.run(command, shell=True, check=True, capture_output=True)
        self.assertEqual(self.remote(known_hosts=known_hosts).list(self.name), ())

    def test_wrong_host_key(self) -> None:
        known_hosts = self.folder / "known_hosts"
        line = f"[{sshd.HOST}]:{self.server.port} {sshd.public_line(sshd.private_key())}\n"
        known_hosts.write_text(line)
        self.refused(self.remote(known_hosts=known_hosts), "ssh-keygen -R", str(known_hosts))
        self.assertEqual(known_hosts.read_text(), line)

    def test_wrong_key(self) -> None:
        key = sshd.write_key(sshd.private_key(), self.folder / "other.key")
        self.refused(self.remote(key=key), f"ssh-keygen -y -f {key}", "authorized_keys")

    def test_useless_key(self) -> None:
        locked, absent, broken = (self.folder / name for name in ("locked.key", "absent.key", "broken.key"))
        locked.write_bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        )
        broken.write_text("not a key")
        for key in (locked, broken):
            with self.assertRaises(OSError) as caught:
                self.remote(key=key).list(self.name)
            self.assertIn(str(key), str(caught.exception))
        self.assertRaises(FileNotFoundError, self.remote(key=absent).list, self.name)

    def test_rsa(self) -> None:
        """The line that ssh-keygen makes of the server's key lets it in, of either kind."""
        key = rsa.generate_private_key(65537, 2048)
        path = sshd.write_key(key, self.folder / "rsa.key")
        for private in (path, self.folder / "server.key"):
            line = subprocess.run(["ssh-keygen", "-y", "-f", str(private)], check=True, capture_output=True).stdout
            self.server.authorized_keys.write_bytes(line)
            self.assertEqual(self.remote(key=private).list(self.name), ())


class LostTests(remote.RemoteCase):
    """The connection ends at any moment, and the server is gone for a while."""

    def cut_after(self, method: str) -> None:
        """Let the connection be lost once, when the server has done this but its answer has not arrived."""
        original: Any = getattr(Session, method)
        cut: list[str] = []

        async def once(session: Session, *arguments: Any) -> Any:
            result = await original(session, *arguments)
            if not cut:
                cut.append(method)
                self.server.signal_sessions(signal.SIGKILL)
                await session.look(b"/")
                raise AssertionError("the connection is still there")
            return result

        self.patch(Session, method, once)
        self.addCleanup(lambda: self.assertEqual(cut, [method]))

    def test_idle(self) -> None:
        """A connection that ended while nobody used it is opened again."""
        self.create(a=b"first")
        self.server.signal_sessions(signal.SIGKILL)
        self.assertEqual(self.content("a"), b"first")

    def test_server_gone(self) -> None:
        self.create(a=b"first")
        self.server.stop()
        try:
            received = self.file(b"second")
            started = time.monotonic()
            for attempt in (
                lambda: self.store.list(self.name),
                lambda: self.store.keep(self.name, "a", received),
                lambda: self.store.open(self.name, "a"),
            ):
                with self.assertRaises(OSError) as caught:
                    attempt()
                self.assertIn(f"{self.server.user}@{sshd.HOST} port {self.server.port}", str(caught.exception))
                self.assertNotIsInstance(caught.exception, FileNotFoundError)
            self.assertLess(time.monotonic() - started, 5)
        finally:
            self.server.start()
        self.assertEqual(self.content("a"), b"first")
        self.store.keep(self.name, "a", received)
        self.assertEqual(self.content("a"), b"second")

    def test_create_cut(self) -> None:
        """Done already: not done again, nor refused since it is there."""
        self.cut_after("rename")
        self.create(**{"a": b"first", "b/c": b"second"})
        self.assertEqual(self.names(), ["a", "b/c"])
        self.assertEqual(self.waiting(), [])

    def test_create_cut_before(self) -> None:
        self.cut_after("make")
        self.create(**{"a": b"first", "b/c": b"second"})
        self.assertEqual(self.names(), ["a", "b/c"])
        self.assertEqual(self.waiting(), [])

    def test_keep_cut(self) -> None:
        self.create(**{"a/b": b"first"})
        self.cut_after("rename")
        self.keep("a/b", b"second")
        self.assertEqual(self.content("a/b"), b"second")
        self.assertEqual(self.waiting(), [])

    def test_directory_goes(self) -> None:
        """A directory that is removed just before a file comes into it is made again; a repository is not."""
        self.create()
        original: Any = Session.rename
        gone = [self.path / "a" / "b"]

        async def late(session: Session, old: bytes, new: bytes) -> None:
            if gone:
                shutil.rmtree(gone.pop(0))
            await original(session, old, new)

        self.patch(Session, "rename", late)
        self.keep("a/b/c", b"first")
        self.assertEqual(self.content("a/b/c"), b"first")
        gone.append(self.path)
        self.assertRaises(FileNotFoundError, self.keep, "a/b/d")
        self.assertFalse(self.path.exists())
        self.assertEqual(gone, [])

    def test_delete_cut(self) -> None:
        """The attempt before found the file; that it has gone is no error, and its directories go too."""
        self.create(**{"a/b": b"first"})
        self.cut_after("unlink")
        self.store.delete(self.name, "a/b")
        self.assertEqual(self.on_disk(), [ACCESS_FILE])
        self.assertRaises(FileNotFoundError, self.store.delete, self.name, "a/b")

    def test_remove_cut(self) -> None:
        self.create(**{"a/b": b"first"})
        self.cut_after("rename")
        self.store.remove(self.name)
        self.assertFalse(self.path.exists())
        self.assertEqual(self.waiting(), [])

    def test_read_cut(self) -> None:
        """Reading goes on after a lost connection, with the same file or not at all."""
        content = os.urandom(8_000_000)
        self.create(a=content)
        file = self.store.open(self.name, "a")
        self.addCleanup(file.close)
        found = b""
        while piece := file.read_at(len(found), 500_000):
            found += piece
            if len(found) in (500_000, 3_000_000):
                self.server.signal_sessions(signal.SIGKILL)
        self.assertTrue(found == content)
        self.assertEqual(file.read_at(0, 10), content[:10])
        (self.path / "a").write_bytes(content)
        os.utime(self.path / "a", (1000, 1000))
        self.server.signal_sessions(signal.SIGKILL)
        with self.assertRaises(OSError) as caught:
            file.read_at(4_000_000, 10)
        self.assertEqual(caught.exception.errno, errno.ESTALE)

    def test_killed_anywhere(self) -> None:
        """Whatever moment the connection is cut at, even twice: a file is the old one or the new one."""
        self.create(a=b"0" * 300_000)
        chance = random.Random(4)
        contents = [b"0" * 300_000]
        failed = 0
        for number in range(1, 13):
            contents.append(b"%x" % number * 300_000)
            stop = threading.Event()

            def kill(stop: threading.Event = stop) -> None:
                while not stop.wait(chance.uniform(0.01, 0.15)):
                    self.server.signal_sessions(signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            try:
                self.keep("a", contents[-1])
                contents = contents[-1:]
            except OSError as problem:
                self.assertIn(sshd.HOST, str(problem))
                failed += 1
            finally:
                stop.set()
                killer.join()
            found = self.content("a")
            self.assertIn(found, contents)
            contents = [found]
            self.assertEqual(self.names(), ["a"])
        self.assertLess(failed, 12)
        self.keep("a", b"at last")
        self.assertEqual(self.content("a"), b"at last")

    def test_one_connection(self) -> None:
        """All threads share one, also those that come while it is opened."""
        store = self.remote()
        before = self.server.connections()
        self.assertEqual(self.at_once(*[lambda: store.list(self.name)] * 8), [])
        self.assertEqual(self.server.connections(), before + 1)

    def test_fork(self) -> None:
        """A service that went into the background after it prepared its store has a connection of its own."""
        self.create(a=b"first")
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if self.content("a") == b"first" else 1)
            finally:
                os._exit(2)
        deadline = time.monotonic() + 20
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            time.sleep(0.02)
        self.assertEqual(ended[1], 0)
        self.assertEqual(self.content("a"), b"first")

    def test_closed(self) -> None:
        """A closed store opens its connection again when it is used."""
        self.create(a=b"first")
        assert isinstance(self.store, RemoteStore)
        self.store.close()
        self.store.close()
        self.assertEqual(self.content("a"), b"first")


class SlowTests(remote.RemoteCase):
    """A server that does not answer: nobody waits for ever."""

    def timed(self, what: Callable[[], object]) -> float:
        started = time.monotonic()
        with self.assertRaises(TimeoutError) as caught:
            what()
        self.assertIn(sshd.HOST, str(caught.exception))
        return time.monotonic() - started

    def test_no_answer(self) -> None:
        self.create(a=b"first")
        store = self.remote(patience=0.7)
        store.list(self.name)
        self.server.signal_sessions(signal.SIGSTOP)
        self.assertLess(self.timed(lambda: store.list(self.name)), 3)
        self.server.signal_sessions(signal.SIGKILL)
        self.assertEqual([file.name for file in store.list(self.name)][1:], ["a"])

    def test_no_connection(self) -> None:
        """Many who wait for a connection all wait for the same one."""
        stores = self.remote(connect_seconds=0.7)
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            problems = self.at_once(*[lambda: stores.list(self.name)] * 5)
            self.assertLess(time.monotonic() - started, 3)
        finally:
            os.kill(self.server.pid, signal.SIGCONT)
        self.assertEqual([type(problem) for problem in problems], [TimeoutError] * 5)
        self.assertEqual(stores.list(self.name), ())


class FullTests(remote.RemoteCase):
    """No room on the repository server."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("only root can mount a small file system")
        mount = Path(tempfile.mkdtemp(prefix="lgi-full-"))
        self.addCleanup(mount.rmdir)
        command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount)]
        if (mounted := subprocess.run(command, check=False, capture_output=True, text=True)).returncode:
            raise SkipTest(mounted.stderr.strip())
        self.addCleanup(subprocess.run, ["umount", "-l", str(mount)], check=True)
        self.mount = mount
        super().setUp()

    def make_store(self) -> Any:
        self.root = self.mount / "repository"
        return super().make_store()

    def full(self, what: Callable[[], object]) -> None:
        with self.assertRaises(OSError) as caught:
            what()
        self.assertEqual(caught.exception.errno, errno.ENOSPC, str(caught.exception))
        self.assertIn(sshd.HOST, str(caught.exception))

    def test_full(self) -> None:
        """The old file stays, nothing is left of the new one, and what is received can be kept later."""
        self.create(**{"a": b"first", "b/c": b"x" * 3_000_000})
        received = self.file(b"y" * 4_000_000)
        self.full(lambda: self.store.keep(self.name, "a", received))
        self.full(lambda: self.store.keep(self.name, "d/e/f", received))
        self.assertEqual(self.content("a"), b"first")
        self.assertEqual(self.on_disk(), [ACCESS_FILE, "a", "b", "b/c"])
        other = new_repository_name()
        self.full(lambda: self.store.create(other, [], [("a", self.file()), ("b", received)]))
        self.assertFalse((self.root / fan_out(other) / other).exists())
        self.assertEqual([path for path in self.waiting() if self.root in path.parents], [])
        self.store.delete(self.name, "b/c")
        self.store.keep(self.name, "a", received)
        self.assertEqual(len(self.content("a")), 4_000_000)


class SizeTests(remote.RemoteCase):
    """Many files, and big ones."""

    def test_many(self) -> None:
        self.create(one=b"")
        for folder in ("", "first", "two/three"):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
            for number in range(5000 if folder else 100):
                os.link(self.path / "one", self.path / folder / f"file{number:05}")
        started = time.monotonic()
        names = self.names()
        self.assertLess(time.monotonic() - started, 10)
        self.assertEqual(len(names), 10_101)
        self.assertEqual(names, sorted(names))
        self.assertIn("two/three/file04999", names)

    def growth(self, work: Callable[[], object]) -> int:
        """By how many bytes the process was larger than before, at the most."""
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        work()
        return _status("VmHWM") - before

    def sparse(self, size: int) -> SpooledFile:
        file = self.file(b"begin")
        file.complete()
        os.truncate(file.path, size)
        with file.path.open("r+b") as stream:
            stream.seek(size - 3)
            stream.write(b"end")
        return file

    def test_big(self) -> None:
        """Neither direction holds the file in memory."""
        self.create(a=b"first")
        big = self.sparse(BIG)
        self.assertLess(self.growth(lambda: self.store.keep(self.name, "a", big)), FLAT)
        self.assertEqual((self.path / "a").stat().st_size, BIG)
        ends: list[bytes] = []

        def read() -> None:
            file, offset = self.store.open(self.name, "a"), 0
            while piece := file.read_at(offset, 256 * 1024):
                offset += len(piece)
                ends[:] = [*ends[:1], piece]
            file.close()
            self.assertEqual(offset, BIG)

        self.assertLess(self.growth(read), FLAT)
        self.assertEqual((ends[0][:5], ends[-1][-3:]), (b"begin", b"end"))

    def test_small_beside_big(self) -> None:
        """Small requests are answered while big files go both ways."""
        self.create(small=b"first", big=b"x" * 30_000_000)
        done = threading.Event()
        waits: list[float] = []

        def small() -> None:
            while not done.is_set():
                started = time.monotonic()
                assert len(self.names()) >= 2
                waits.append(time.monotonic() - started)
                done.wait(0.05)

        def big() -> None:
            try:
                received = self.sparse(30_000_000)
                assert not self.at_once(
                    lambda: self.store.keep(self.name, "other", received), lambda: self.content("big")
                )
            finally:
                done.set()

        self.assertEqual(self.at_once(small, big), [])
        self.assertGreater(len(waits), 2)
        self.assertLess(max(waits), 3)
        self.assertEqual(self.names(), ["big", "other", "small"])


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(key)
