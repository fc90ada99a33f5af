"""Files of jobs over HTTP: reading, changing, listing, and everything that is no file's name."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from twisted.internet.defer import Deferred

from tests.http.memory import MARK, OTHER_RESOURCE, PIET, RESOURCE, Answer
from tests.http.repository import NOBODY, RepositoryCase


class ReadTests(RepositoryCase):
    """GET and HEAD."""

    async def test_get(self) -> None:
        for who in (MARK, NOBODY, OTHER_RESOURCE):
            answer = await self.ask("GET", "two words & more.dat", who=who)
            self.assertEqual((answer.code, answer.body), (200, bytes(range(256))))
            self.assertEqual(answer.headers["content-type"], "application/octet-stream")
            self.assertEqual(answer.headers["content-length"], "256")
        self.assertEqual((await self.ask("GET", "one.txt")).headers["content-type"], "application/octet-stream")

    async def test_head(self) -> None:
        answer = await self.ask("HEAD", "one.txt")
        self.assertEqual((answer.code, answer.headers["content-length"], answer.body), (200, "6", b""))
        self.assertIn("last-modified", answer.headers)
        missing = await self.ask("HEAD", "nothing")
        self.assertEqual((missing.code, missing.body), (404, b""))

    async def test_large_and_empty(self) -> None:
        large = os.urandom(1_000_000)
        (self.directory / "large").write_bytes(large)
        (self.directory / "empty").write_bytes(b"")
        self.assertEqual((await self.ask("GET", "large")).body, large)
        empty = await self.ask("GET", "empty")
        self.assertEqual((empty.code, empty.headers["content-length"]), (200, "0"))

    async def test_ranges(self) -> None:
        for wanted, code, body in (
            ("bytes=2-4", 206, b"rst"),
            ("bytes=3-", 206, b"st\n"),
            ("bytes=-2", 206, b"t\n"),
            ("bytes=0-100", 206, b"first\n"),
            ("bytes=100-", 416, b""),
            ("nonsense", 200, b"first\n"),
        ):
            answer = await self.ask("GET", "one.txt", headers={"Range": wanted})
            self.assertEqual((answer.code, answer.body), (code, body), wanted)
        answer = await self.ask("GET", "one.txt", headers={"Range": "bytes=2-4"})
        self.assertEqual(answer.headers["content-range"], "bytes 2-4/6")

    async def test_not_modified(self) -> None:
        since = (await self.ask("GET", "one.txt")).headers["last-modified"]
        answer = await self.ask("GET", "one.txt", headers={"If-Modified-Since": since})
        self.assertEqual(answer.code, 304)

    async def test_not_there(self) -> None:
        await self.status(404, self.ask("GET", "nothing"))
        for path in (
            "repository",
            "repository/",
            f"repository/{self.name[-3:]}",
            f"repository/{self.name[-3:]}/{self.name}",
            f"repository/{self.name[-3:]}/{self.name}/a/b",
            f"repository/{self.name}/one.txt",
            f"repository/xyz/{self.name}/one.txt",
            f"repository/{'0' if self.name[-3] != '0' else '1'}{self.name[-2:]}/{self.name}/one.txt",
            f"repository/.spool/{self.name}/one.txt",
            f"repository/{self.name[-3:]}//one.txt",
        ):
            answer = await self.server.request(MARK, "GET", path)
            self.assertIn(answer.code, (400, 404), path)
            self.assertNotIn(b"first", answer.body)
        other = "0" if self.name[-4] != "0" else "1"
        unknown = self.name[:-4] + other + self.name[-3:]
        await self.status(404, self.server.request(MARK, "GET", f"repository/{self.name[-3:]}/{unknown}/one.txt"))

    async def test_directory(self) -> None:
        (self.directory / "folder").mkdir()
        await self.status(404, self.ask("GET", "folder"))

    async def test_symlink(self) -> None:
        """A link that somebody planted is not followed, listed or written through."""
        secret = self.root.parent / "secret"
        secret.write_bytes(b"secret")
        link = self.directory / "link"
        link.symlink_to(secret)
        for method in ("GET", "HEAD"):
            self.assertEqual((await self.ask(method, "link")).code, 404)
        listing = await self.server.request(MARK, "GET", f"repository/repository_content.php?repository={self.name}")
        self.assertNotIn("link", listing.text)
        await self.status(200, self.ask("PUT", "link", b"new"))
        self.assertFalse(link.is_symlink())
        self.assertEqual((link.read_bytes(), secret.read_bytes()), (b"new", b"secret"))
        link.unlink()
        link.symlink_to(secret)
        await self.status(200, self.ask("DELETE", "link"))
        self.assertEqual(secret.read_bytes(), b"secret")


class ListingTests(RepositoryCase):
    """repository_content.php."""

    async def check(self, answering: Deferred[Answer]) -> None:
        answer = await answering
        self.assertEqual(answer.code, 200, answer.text)
        self.assertEqual(answer.value("repository_name"), self.name)
        self.assertEqual(answer.value("number_of_files"), "3")
        self.assertIn("<file_name> two words &amp; more.dat </file_name> <size> 256 </size>", answer.text)

    async def test_by_get_and_post(self) -> None:
        listing = "repository/repository_content.php"
        for value in (self.name, f"{self.name[-3:]}/{self.name}", f"/srv/repository/{self.name[-3:]}/{self.name}/"):
            await self.check(self.server.request(NOBODY, "GET", f"{listing}?repository={quote(value, safe='')}"))
            await self.check(self.server.post(NOBODY, listing, {"repository": value}))
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            body = f"repository={quote(value, safe='')}".encode()
            await self.check(self.server.request(NOBODY, "POST", listing, body, form))

    async def test_unfolded(self) -> None:
        """As some clients send it, without folding the dots."""
        inside = f"/LGI/repository/{self.name[-3:]}/{self.name}"
        for path in (
            f"/LGI/repository/{self.name[-3:]}/../repository_content.php",
            f"{inside}/../repository_content.php",
            f"{inside}/../../repository_content.php",
        ):
            await self.check(self.raw("GET", f"{path}?repository={self.name}".encode()))

    async def test_head(self) -> None:
        path = f"repository/repository_content.php?repository={self.name}"
        answer = await self.server.request(MARK, "HEAD", path)
        self.assertEqual((answer.code, answer.body), (200, b""))
        self.assertEqual(
            answer.headers["content-length"], str(len((await self.server.request(MARK, "GET", path)).body))
        )

    async def test_of_nothing(self) -> None:
        unknown = "JOB_" + "0" * 32
        answer = await self.server.request(MARK, "GET", f"repository/repository_content.php?repository={unknown}")
        self.assertEqual((answer.code, answer.value("number_of_files")), (200, "0"))

    async def test_of_what_is_no_repository(self) -> None:
        listing = "repository/repository_content.php"
        for value in (
            "",
            "x",
            "..",
            ".",
            ".spool",
            ".trash",
            f"{self.name}/..",
            self.name.upper(),
            f"{self.name}%00",
            "%FF",
        ):
            await self.status(400, self.server.request(MARK, "GET", f"{listing}?repository={value}"))
            await self.status(400, self.server.post(MARK, listing, {"repository": value.replace("%00", "\0")}))
        await self.status(400, self.server.request(MARK, "GET", listing))
        broken = {"Content-Type": "multipart/form-data; boundary=b"}
        await self.status(400, self.server.request(MARK, "POST", listing, b"--b\r\n", broken))
        for method in ("PUT", "DELETE"):
            answer = await self.server.request(RESOURCE, method, listing)
            self.assertEqual(answer.code, 404)


class ListTests(RepositoryCase):
    """The files that details of a job tell of."""

    async def test_in_details(self) -> None:
        await self.ask("PUT", "late.txt", b"12345")
        seen = await self.server.user("job_state", job_id=1)
        self.assertIn("<file_name> late.txt </file_name> <size> 5 </size>", seen.text)
        (self.directory / "folder").mkdir()
        Path(self.directory / "pipe").symlink_to("/dev/null")
        again = await self.server.user("job_state", job_id=1, who=PIET.replace("piet", "mark"))
        self.assertEqual(again.value("number_of_files"), seen.value("number_of_files"))
