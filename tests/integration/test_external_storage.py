"""A project whose files are on another machine: a real server, and a real sshd that stops and comes back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import ssl
import tempfile
import time
from collections.abc import Mapping
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import ClassVar
from unittest import TestCase
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lgi.admin.layout import existing
from lgi.admin.members import open_office
from lgi.config import load_config
from tests.contract.sshd import HOST, PrivateSshd, public_line
from tests.integration.grid import USER, Grid, Program

SIZE = 64 << 20
STRANGER = "piet@localhost"
ACCESS = ".LGI_repository_write_access"


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class ExternalStorageTests(TestCase):
    """One server and one sshd for all, since starting them takes longer than most tests."""

    folder: ClassVar[Path]
    there: ClassVar[Path]
    grid: ClassVar[Grid]
    server: ClassVar[Program]
    sshd: ClassVar[PrivateSshd]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(tempfile.mkdtemp(prefix="lgi-external-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.folder.chmod(0o755)
        cls.grid = grid = Grid(cls.folder / "grid")
        cls.addClassCleanup(grid.stop)
        open_office(existing(grid.root)).issue_user(STRANGER, groups=["chem"], projects=["LGI"], days=10, renew=False)
        place = cls.folder / "sshd"
        place.mkdir(mode=0o700)
        cls.sshd = PrivateSshd(place)
        cls.sshd.install()
        key = load_pem_private_key(load_config(grid.config).server.private_key.read_bytes(), None)
        cls.sshd.authorized_keys.write_text(f"{public_line(key)}\n")  # type: ignore[arg-type]
        cls.addClassCleanup(cls.sshd.stop)
        cls.sshd.start()
        cls.there = cls.folder / "there" / "repository"
        cls._configure()
        cls.server = grid.start_server()

    @classmethod
    def _configure(cls) -> None:
        text = cls.grid.config.read_text()
        for key, value in (
            ("storage", f"sftp://{cls.sshd.user}@{HOST}:{cls.sshd.port}{cls.there}"),
            ("storage_known_hosts", cls.sshd.known_hosts),
        ):
            text, count = re.subn(rf"^# {key} = .*$", f'{key} = "{value}"', text, flags=re.MULTILINE)
            assert count == 1, key
        cls.grid.config.write_text(text)

    def setUp(self) -> None:
        self.here = Path(tempfile.mkdtemp(dir=self.folder))

    def submit(self, *files: str) -> tuple[int, str]:
        """A new job's number, and the URL of its files."""
        said = self.grid.user("submit", "--json", "-a", "hello_world", "--input", "x", *files)
        match = re.search(rf"{re.escape(self.grid.url)}/repository/\w+/JOB_\w+", said)
        assert match is not None, said
        return json.loads(said)["job_id"], match[0]

    def stored(self, url: str) -> Path:
        """Where the files of a job are, on the repository server."""
        return self.there.joinpath(*url.split("/")[-2:])

    def ask(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None, who: str = USER
    ) -> tuple[HTTPResponse, str]:
        """A single request, and what is answered."""
        home = self.grid.root / "users" / who
        context = ssl.create_default_context(cafile=str(home / "ca_chain"))
        context.load_cert_chain(home / "certificate", home / "privatekey")
        parts = urlsplit(url)
        assert parts.hostname is not None
        connection = HTTPSConnection(parts.hostname, parts.port, context=context, timeout=30)
        try:
            connection.request(method, parts.path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def jobs(self) -> list[int]:
        """The jobs there are."""
        return sorted(job["job_id"] for job in json.loads(self.grid.user("--json", "list")))

    def check_db(self, *more: str, status: int = 0) -> str:
        return self.grid.lgi("admin", "--config", str(self.grid.config), "check-db", *more, status=status)

    def test_files_of_a_job(self) -> None:
        """Submitted, listed, brought, fetched and removed with `lgi`; nothing of them is on the project server."""
        given = self.here / "given"
        for name, data in (("a.txt", b"first\n"), ("run1/out/e 1.csv", b"1,2\n"), ("run1/empty", b"")):
            (given / name).parent.mkdir(parents=True, exist_ok=True)
            (given / name).write_bytes(data)
        job_id, url = self.submit(str(given / "a.txt"), str(given / "run1"))
        stored = self.stored(url)
        self.assertEqual({name: data for name, data in contents(stored).items() if name != ACCESS}, contents(given))
        self.assertIn(USER, (stored / ACCESS).read_text())
        lgi = self.grid.user
        listed = {file["name"]: file["size"] for file in json.loads(lgi("--json", "files", "ls", url))}
        self.assertEqual(
            listed.items() & {"a.txt": 6, "run1/out/e 1.csv": 4, "run1/empty": 0}.items(), listed.items()
        )
        big = self.here / "big"
        big.write_bytes(os.urandom(1 << 20) * (SIZE >> 20))
        (self.here / "a.txt").write_bytes(b"second\n")
        lgi("files", "put", url, str(self.here / "a.txt"), str(big), "--verify")
        self.assertEqual(self.ask("PUT", f"{url}/run2/new/a.txt", b"second\n")[0].status, 200)
        self.assertEqual((stored / "big").stat().st_size, SIZE)
        back = self.here / "back"
        lgi("files", "get", url, "--to", str(back), "--verify")
        wanted = contents(given) | {"a.txt": b"second\n", "run2/new/a.txt": b"second\n", "big": big.read_bytes()}
        self.assertEqual(_digests(contents(back)), _digests(wanted))
        lgi("files", "rm", url, "big", "run1/out/e 1.csv", "run2/new/a.txt")
        self.assertEqual(set(contents(stored)), {ACCESS, "a.txt", "run1/empty"})
        self.assertFalse((stored / "run1" / "out").exists() or (stored / "run2").exists())
        self.assertEqual(self.ask("GET", f"{url}/big")[0].status, 404)
        lgi("delete", str(job_id))
        self.assertFalse(stored.exists())
        self.assertEqual(list((self.there / ".trash").iterdir()), [])
        self.assertEqual(list((self.there / ".incoming").iterdir()), [])
        self.assertEqual(self.ask("GET", f"{url}/a.txt")[0].status, 404)
        self.assertIn("in order", self.check_db())
        here = [path for folder in (".spool", "*") for path in (self.grid.root / "repository").glob(f"{folder}/*")]
        self.assertEqual(here, [])

    def test_parts_and_conditions(self) -> None:
        """Resumed, verified and conditional as with a local repository."""
        _, url = self.submit()
        data = os.urandom(3 << 20)
        half, total = len(data) // 2, len(data)
        part, whole = f"bytes 0-{half - 1}/{total}", self.stored(url) / "d" / "x"
        answer, _ = self.ask("PUT", f"{url}/d/x", data[:half], {"Content-Range": part})
        self.assertEqual((answer.status, answer.headers["Upload-Offset"], whole.exists()), (202, str(half), False))
        rest = {"Content-Range": f"bytes {half}-{total - 1}/{total}"}
        answer, said = self.ask("PUT", f"{url}/d/x", data[half:], rest)
        self.assertEqual((answer.status, whole.read_bytes() == data), (200, True), said)
        tag = self.ask("HEAD", f"{url}/d/x")[0].headers["ETag"]
        for number in range(3):
            # Of the same size, and within one second.
            answer, _ = self.ask("PUT", f"{url}/d/x", b"%d" % number + data[1:], {"If-Match": tag})
            before, tag = tag, self.ask("HEAD", f"{url}/d/x")[0].headers["ETag"]
            self.assertEqual((answer.status, before == tag), (200, False))
            self.assertEqual(self.ask("PUT", f"{url}/d/x", b"old", {"If-Match": before})[0].status, 412)
        wrong = {"Repr-Digest": "sha-256=:" + "A" * 43 + "=:"}
        self.assertEqual(self.ask("PUT", f"{url}/d/x", b"other", wrong)[0].status, 422)
        self.assertEqual(whole.read_bytes(), b"2" + data[1:])
        self.assertEqual(self.ask("PUT", f"{url}/d", b"x")[0].status, 409)
        self.assertEqual(self.ask("PUT", f"{url}/d/x/y", b"x")[0].status, 409)
        answer, _ = self.ask("GET", f"{url}/d/x", headers={"Range": "bytes=-5", "If-Range": tag})
        self.assertEqual(
            (answer.status, answer.headers["Content-Range"]), (206, f"bytes {total - 5}-{total - 1}/{total}")
        )
        self.assertEqual(self.ask("DELETE", f"{url}/d/x", headers={"If-Match": before})[0].status, 412)
        self.assertEqual(self.ask("DELETE", f"{url}/d/x", headers={"If-Match": tag})[0].status, 200)
        self.assertFalse(whole.parent.exists())

    def test_strangers(self) -> None:
        """May read, by the name that is secret, and change nothing; the access file is that of the other machine."""
        _, url = self.submit()
        self.ask("PUT", f"{url}/x", b"mine")
        before = contents(self.stored(url))
        for method, name in (("PUT", "x"), ("PUT", "new"), ("DELETE", "x")):
            answer, said = self.ask(method, f"{url}/{name}", b"theirs" if method == "PUT" else b"", who=STRANGER)
            self.assertEqual(answer.status, 403, said)
        for hostile in ("..%2f..%2fx", "%2e%2e/%2e%2e/x", ACCESS):
            self.assertIn(self.ask("PUT", f"{url}/{hostile}", b"any")[0].status, (400, 404))
        self.assertEqual(self.ask("GET", f"{url}/x", who=STRANGER)[1], "mine")
        self.assertEqual(contents(self.stored(url)), before)
        self.assertEqual([path.name for path in self.there.glob("x")], [])
        (self.stored(url) / ACCESS).write_text(f"{STRANGER}")
        self.assertEqual(self.ask("PUT", f"{url}/x", b"theirs", who=STRANGER)[0].status, 200)
        self.assertEqual(self.ask("PUT", f"{url}/x", b"mine")[0].status, 403)

    def test_sshd_that_stops(self) -> None:
        """Everything that needs files says so, within seconds, and changes nothing; all of it works again later."""
        job_id, url = self.submit()
        self.ask("PUT", f"{url}/x", b"kept")
        part = {"Content-Range": "bytes 0-3/8"}
        self.assertEqual(self.ask("PUT", f"{url}/y", b"half", part)[0].status, 202)
        stored, where = contents(self.stored(url)), f"{HOST} port {self.sshd.port}"
        self.sshd.stop()
        began = time.monotonic()
        try:
            for method, body in (("GET", b""), ("HEAD", b""), ("PUT", b"new"), ("DELETE", b"")):
                answer, said = self.ask(method, f"{url}/x", body)
                self.assertEqual(answer.status, 500)
                self.assertIn(where if method != "HEAD" else "", said)
            given = self.here / "given"
            given.write_bytes(b"x")
            refused = self.grid.user("submit", "-a", "hello_world", "--input", "x", str(given), status=1)
            self.assertIn(where, refused)
            self.assertIn("no connection", refused)
            # A job without files needs it when its first file comes.
            _, later = self.submit()
            answer, said = self.ask("PUT", f"{later}/x", b"first")
            self.assertEqual(answer.status, 500)
            self.assertIn(where, said)
            jobs = self.jobs()
            # That a job is there can be told without its files, but not that all is in order.
            self.assertIn(where, self.check_db(status=1))
            self.assertLess(time.monotonic() - began, 15)
        finally:
            self.sshd.start()
        self.assertEqual(self.ask("GET", f"{url}/x")[1], "kept")
        self.assertEqual(contents(self.stored(url)), stored)
        self.assertEqual(self.ask("PUT", f"{url}/y", b"done", {"Content-Range": "bytes 4-7/8"})[0].status, 200)
        self.assertEqual((self.stored(url) / "y").read_bytes(), b"halfdone")
        self.assertFalse(self.stored(later).exists())
        self.assertEqual(self.ask("PUT", f"{later}/x", b"first")[0].status, 200)
        self.assertEqual(contents(self.stored(later)), {ACCESS: f"admin, {USER}".encode(), "x": b"first"})
        self.assertIn(job_id, jobs)
        after, _ = self.submit()
        # What was refused made no job.
        self.assertEqual((len(self.jobs()), after), (len(jobs) + 1, max(jobs) + 1))
        self.assertIn("in order", self.check_db())
        self.assertIsNone(self.server.process.poll())
        self.assertNotIn("Traceback", self.server.logged())


def _digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
