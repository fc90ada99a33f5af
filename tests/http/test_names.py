"""Names of files, as clients may send them and as somebody may have planted them: none leads anywhere else."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import quote

from twisted.internet.defer import Deferred

from lgi.repository.access import ACCESS_FILE, RESOURCE_LIST
from tests.http.memory import MARK, RESOURCE, Answer
from tests.http.repository import RepositoryCase

CANARY = b"canary-5e1f"
METHODS = ("GET", "HEAD", "PUT", "DELETE")
UP = ("..", "%2e%2e", "%2E.", ".%2e", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "..%00", "%2e%2e%20")
SLASH = ("/", "%2f", "%2F", "%252f", "\\", "%5c", "%c0%af", "%e0%80%af", "//", "/./")


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything in a directory and below: kind, size, content or target, and the number of the file."""
    found: dict[str, tuple[object, ...]] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        target = os.readlink(path) if path.is_symlink() else ""
        found[str(path)] = (oct(status.st_mode), content, target, status.st_ino)
    return found


class NameCase(RepositoryCase):
    """A repository with secrets around it."""

    async def prepare(self) -> None:
        await super().prepare()
        self.outside = self.root.parent / "outside"
        self.outside.mkdir()
        for folder in (self.outside, self.root, self.root.parent):
            (folder / "secret").write_bytes(CANARY)
        other = await self.server.user(
            "submit_job",
            application="hello_world",
            target_resources="any",
            files=[("secret", CANARY), ("one.txt", CANARY)],
        )
        self.other = other.value("repository_url").rpartition("/")[2]
        await self.server.user("delete_job", job_id=99)
        self.before = self.seen()

    def seen(self) -> dict[str, tuple[object, ...]]:
        """What is on the disk, without what the database writes."""
        return {
            name: value for folder in (self.root, self.outside) for name, value in snapshot(folder).items()
        } | snapshot(self.root.parent / "etc")

    async def nothing(self, method: str, path: str | bytes, *codes: int) -> None:
        """Check that a request is refused, shows nothing and changes nothing."""
        data = path if isinstance(path, bytes) else path.encode()
        answer = await self.raw(method, b"/LGI/" + data, who=RESOURCE)
        self.assertIn(answer.code, codes or (400, 404, 405), (method, path))
        self.assertNotIn(CANARY, answer.body, (method, path))
        self.assertEqual(self.seen(), self.before, (method, path))

    @property
    def inside(self) -> str:
        return f"repository/{self.name[-3:]}/{self.name}"


class TraversalTests(NameCase):
    """Ways up and out."""

    async def test_every_encoding(self) -> None:
        for up in UP:
            for slash in SLASH:
                for depth in (1, 3):
                    climb = (up + slash) * depth
                    for target in ("secret", f"{self.other}{slash}secret"):
                        for method in ("GET", "PUT"):
                            await self.nothing(method, f"{self.inside}/{climb}{target}")

    async def test_encoded_twice(self) -> None:
        """Decoded once: what is left is a name like any other, within the repository."""
        for name in ("%252e%252e%252fsecret", "%252e%252e/secret"):
            await self.status(200, self.server.request(MARK, "PUT", f"{self.inside}/{name}", b"mine"))
        self.assertEqual((self.directory / "%2e%2e%2fsecret").read_bytes(), b"mine")
        self.assertEqual((self.directory / "%2e%2e" / "secret").read_bytes(), b"mine")
        for folder in (self.outside, self.root, self.root.parent):
            self.assertEqual((folder / "secret").read_bytes(), CANARY)

    async def test_within_a_name(self) -> None:
        for method in METHODS:
            for name in (
                "a/../one.txt",
                "a/../../secret",
                f"../{self.other}/secret",
                f"../../{self.other[-3:]}/{self.other}/secret",
                f"%2e%2e/{self.other}/secret",
                "./one.txt",
                "a/./b",
                "a//b",
                "/one.txt",
                "//etc/passwd",
                "%2fetc%2fpasswd",
                "one.txt/",
                "one.txt/.",
                "one.txt/..",
                "a%2fb",
                "a%2Fone.txt",
            ):
                await self.nothing(method, f"{self.inside}/{name}")

    async def test_above_repositories(self) -> None:
        for method in METHODS:
            for path in (
                f"repository/{RESOURCE_LIST}",
                "repository/secret",
                "repository/../etc/lgi-server.toml",
                "repository/%2e%2e/%2e%2e/outside/secret",
                f"repository/.spool/{self.name}/secret",
                f"repository/.unfinished/{self.name}/secret",
                f"repository/../{self.name[-3:]}/{self.name}/one.txt",
                f"repository/{self.name[-3:]}/../{self.other[-3:]}/{self.other}/secret",
                f"repository/{self.name[-3:]}%2f{self.name}/one.txt",
                f"repository%2f{self.name[-3:]}/{self.name}/one.txt",
            ):
                await self.nothing(method, path)

    async def test_listing_names(self) -> None:
        """The listing of what is no repository shows nothing."""
        for name in (
            "..",
            "../..",
            ".",
            "",
            "/",
            ".spool",
            "JOB_",
            f"{self.name}/..",
            f"{self.name}\0",
            "*",
            "é",
            "%",
        ):
            answer = await self.server.request(
                MARK, "GET", f"repository/repository_content.php?repository={quote(name)}"
            )
            self.assertEqual(answer.code, 400, name)
            self.assertNotIn(b"secret", answer.body)


class OddNameTests(NameCase):
    """Names that are no names, and names that only look alike."""

    async def test_refused(self) -> None:
        long = "x" * 256
        for method in METHODS:
            for name in (
                "%00",
                "one.txt%00",
                "one%0a.txt",
                "one%0d%0a.txt",
                "%7f",
                "%1b%5b2J",
                "%c2%85",
                "%e2%80%ae",
                "%ff",
                "%ed%a0%80",
                "%f4%90%80%80",
                ".hidden",
                f"a/{ACCESS_FILE}",
                ACCESS_FILE,
                quote(ACCESS_FILE, safe="").replace("L", "%4c"),
                "repository_content.php/a",
                "a/repository_content.php/b",
                long,
                f"a/{long}",
                "%c3%a9" * 128,
                "/".join(["a"] * 33),
                "/".join(["x" * 250] * 5),
            ):
                await self.nothing(method, f"{self.inside}/{name}")
        for method in ("PUT", "DELETE"):
            await self.nothing(method, f"{self.inside}/repository_content.php")
        for other in (
            self.name.upper(),
            self.name[:-1],
            self.name + "0",
            f"{self.name}.",
            f"{self.name}%20",
            "JOB_x",
        ):
            await self.nothing("GET", f"repository/{other[-3:]}/{other}/one.txt")

    async def test_url_too_long(self) -> None:
        protocol, transport = self.server.connect(RESOURCE)
        protocol.dataReceived(f"GET /LGI/{self.inside}/{'a/' * 20_000} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        self.assertTrue(transport.disconnecting)
        self.server.hang_up(protocol)

    async def test_alike_and_not_the_same(self) -> None:
        """Case, composed and decomposed letters, spaces and dots at the end: each is a file of its own."""
        names = [
            "straße",
            "STRASSE",
            "é",
            "e\u0301",
            "a",
            "a ",
            "a.",
            " a",
            "A",
            "a%2e",
            "ａ",
            "CON",
            "a:b",
            "~",
            "-rf",
            "$x",
        ]
        for number, name in enumerate(names):
            await self.status(200, self.ask("PUT", name, b"%d" % number))
        for number, name in enumerate(names):
            self.assertEqual((await self.ask("GET", name)).body, b"%d" % number, name)
        self.assertLessEqual(set(names), set(os.listdir(self.directory)))

    async def test_directories(self) -> None:
        """Made with the first file, listed with whole names, gone with the last."""
        deep = "/".join(f"d{number}" for number in range(31)) + "/last"
        for name in ("run1/out/energies.csv", "run1/b", deep):
            await self.status(200, self.put(name, name.encode()))
            self.assertEqual((self.directory / name).read_bytes(), name.encode())
            self.assertEqual((await self.server.request(MARK, "GET", f"{self.inside}/{name}")).body, name.encode())
        listing = await self.server.request(MARK, "GET", f"repository/repository_content.php?repository={self.name}")
        found = [part.split("<")[0].strip() for part in listing.text.split("<file_name>")[1:]]
        self.assertEqual(found, sorted(found))
        self.assertLessEqual({"run1/out/energies.csv", "run1/b", deep, "one.txt"}, set(found))
        await self.status(409, self.put("run1/out", b"x"))
        await self.status(409, self.put("run1/b/c", b"x"))
        for name in ("run1/out/energies.csv", "run1/b", deep):
            await self.status(200, self.server.request(MARK, "DELETE", f"{self.inside}/{name}"))
        self.assertEqual(sorted(path.name for path in self.directory.iterdir() if path.is_dir()), [])

    def put(self, name: str, data: bytes) -> Deferred[Answer]:
        return self.server.request(MARK, "PUT", f"{self.inside}/{name}", data)

    async def test_listing_route(self) -> None:
        """As clients write it: the dots folded or not."""
        for path in (
            "repository",
            self.inside,
            f"{self.inside}/..",
            f"repository/{self.name[-3:]}/{self.name}/%2e%2e",
        ):
            answer = await self.server.request(MARK, "GET", f"{path}/repository_content.php?repository={self.name}")
            self.assertEqual(answer.code, 200, path)
            self.assertIn("one.txt", answer.text)


class PlantedTests(NameCase):
    """Links, pipes and sockets that somebody has put into the repositories."""

    async def check(self, name: str) -> None:
        """Nothing outside is read or changed through this name, and the listing does not have it."""
        outside = snapshot(self.outside)
        for method in METHODS:
            answer = await self.raw(method, f"/LGI/{self.inside}/{name}".encode(), who=RESOURCE)
            self.assertNotIn(CANARY, answer.body, (method, name))
            self.assertEqual(snapshot(self.outside), outside, (method, name))
        listing = await self.server.request(MARK, "GET", f"repository/repository_content.php?repository={self.name}")
        self.assertNotIn("secret", listing.text)

    async def test_links_in_a_repository(self) -> None:
        for target in (self.outside / "secret", Path("../../secret"), Path("/proc/self/environ"), Path("nowhere")):
            link = self.directory / "link"
            link.symlink_to(target)
            answer = await self.raw("GET", f"/LGI/{self.inside}/link".encode())
            self.assertEqual(answer.code, 404)
            await self.check("link")
            link.unlink(missing_ok=True)

    async def test_links_as_directories(self) -> None:
        (self.directory / "folder").symlink_to(self.outside)
        (self.directory / "real").mkdir()
        (self.directory / "real" / "folder").symlink_to(self.outside)
        for name in ("folder/secret", "folder/new", "folder/a/b", "real/folder/secret", "real/folder/new"):
            await self.check(name)
        self.assertEqual(sorted(os.listdir(self.outside)), ["secret"])

    async def test_link_as_repository(self) -> None:
        self.directory.rename(self.directory.with_name("moved"))
        self.directory.symlink_to(self.outside)
        (self.outside / ACCESS_FILE).write_text("resource1@localhost")
        for name in ("secret", "new", "a/new"):
            await self.check(name)
        await self.server.user("delete_job", job_id=1)
        self.assertEqual(sorted(os.listdir(self.outside)), [ACCESS_FILE, "secret"])

    async def test_link_as_fan_out(self) -> None:
        folder = self.directory.parent
        moved = self.outside / "moved"
        folder.rename(moved)
        folder.symlink_to(moved)
        inside = snapshot(moved)
        for name in ("one.txt", "new"):
            for method in METHODS:
                answer = await self.raw(method, f"/LGI/{self.inside}/{name}".encode(), who=RESOURCE)
                self.assertEqual(answer.code, 404)
        self.assertEqual(snapshot(moved), inside)

    async def test_what_is_no_file(self) -> None:
        """A pipe would be waited for, for ever."""
        os.mkfifo(self.directory / "pipe")
        there = socket.socket(socket.AF_UNIX)
        self.addCleanup(there.close)
        here = os.open(self.directory, os.O_RDONLY)
        there.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
        for name in ("pipe", "socket"):
            for method in ("GET", "HEAD"):
                self.assertEqual((await self.ask(method, name)).code, 404)
            self.assertEqual((await self.ask("GET", f"{name}/x")).code, 404 if name != "x" else 0)
            listing = await self.server.request(
                MARK, "GET", f"repository/repository_content.php?repository={self.name}"
            )
            self.assertNotIn(name, listing.text)
        # Its name is free for a file, which takes its place.
        await self.status(200, self.ask("PUT", "pipe", b"x"))
        self.assertTrue((self.directory / "pipe").is_file())

    async def test_planted_lists(self) -> None:
        """Links in the place of the lists of who may change allow nobody."""
        (self.outside / "names").write_text("resource1@localhost, mark@localhost")
        for path in (self.directory / ACCESS_FILE, self.root / RESOURCE_LIST):
            path.unlink()
            path.symlink_to(self.outside / "names")
        for who in (MARK, RESOURCE):
            await self.status(403, self.ask("PUT", "new", b"x", who=who))


class SubmissionTests(NameCase):
    """Names of files that come with a submission."""

    def submit(self, name: str) -> Deferred[Answer]:
        return self.server.user(
            "submit_job", application="hello_world", target_resources="any", files=[("fine", b"1"), (name, b"2")]
        )

    async def test_refused(self) -> None:
        for name in (
            "../secret",
            "../../secret",
            "/etc/passwd",
            "a/../b",
            "a/./b",
            "a//b",
            "a/",
            "..",
            ".",
            "",
            "..\\secret",
            "a\\b",
            "a\0b",
            "a\x1bb",
            ".hidden",
            "a/.hidden",
            ACCESS_FILE,
            "repository_content.php",
            "a/repository_content.php",
            "x" * 256,
            "/".join("a" * 33),
            "\u202e",
        ):
            answer = await self.submit(name)
            self.assertEqual(answer.number(), 68, name)
            self.assertEqual(self.seen(), self.before, name)

    async def test_file_that_is_a_directory(self) -> None:
        before = self.stored()
        self.assertEqual((await self.submit("fine/below")).number(), 68)
        self.assertEqual(self.stored(), before)

    async def test_taken(self) -> None:
        """With directories, and as they are: nothing in a name is decoded."""
        for name in ("a/b", "%2e%2e%2fsecret", "é", "e\u0301", "a b. "):
            answer = await self.submit(name)
            self.assertIn(f"<file_name> {name.strip()}", answer.text.replace("&amp;", "&"))
            repository = answer.value("repository_url").rpartition("/")[2]
            self.assertEqual((self.root / repository[-3:] / repository / name).read_bytes(), b"2")
