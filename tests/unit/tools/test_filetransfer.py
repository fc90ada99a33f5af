"""LGI_filetransfer."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lgi.client.answers import AnswerMalformed, ServerUnreachable
from lgi.tools import filetransfer
from lgi.tools.account import Papers
from lgi.tools.connection import Failed
from lgi.tools.listing import listing_address
from lgi.tools.notes import Notes
from tests.unit.client.fakes import STORE, reactor
from tests.unit.tools.case import DATA, CallsTestCase, ToolTestCase, recorded
from tests.unit.tools.test_account import JOB, URL, make

LISTING = "repository/repository_content.php"
PAPERS = Papers(key=Path("k"), certificate=Path("c"), authorities=Path("a"), strict=True)


class TransferTests(CallsTestCase):
    """Files to and from a fake server."""

    @property
    def address(self) -> str:
        return f"{self.url}/repository/b07/{STORE}"

    def job(self, command: str, *files: str, xml: bool = False) -> filetransfer.Task:
        return filetransfer.Task(command=command, url=self.address, files=files, papers=PAPERS, xml=xml)

    async def transfer(self, command: str, *files: str) -> None:
        await filetransfer.transfer(self.store, self.job(command, *files), Notes())

    async def test_the_list_as_recorded(self) -> None:
        self.fake.script[LISTING] = [(DATA / "filetransfer_list.answer").read_bytes()]
        for xml, name in ((False, "filetransfer_list.txt"), (True, "filetransfer_list.xml")):
            before = len(self.out.text)
            await filetransfer.show_list(self.http, reactor, self.job("list", xml=xml))
            self.assertEqual(self.out.text[before:], recorded(name))
        self.assertEqual(self.fake.seen[0][1], f"/LGI/{LISTING}?repository={STORE}")

    async def test_no_list(self) -> None:
        self.fake.script[LISTING] = [b"<html> not found"]
        with self.assertRaises(AnswerMalformed):
            await filetransfer.show_list(self.http, reactor, self.job("list"))
        await self.stop_listening()
        await self.pool.closeCachedConnections()
        with self.assertRaises(ServerUnreachable):
            await filetransfer.show_list(self.http, reactor, self.job("list"))
        self.assertEqual(self.out.text, "")

    def test_where_the_list_is(self) -> None:
        base = "https://a/LGI/repository/repository_content.php"
        self.assertEqual(listing_address(f"https://a/LGI/repository/b07/{STORE}"), base)
        self.assertEqual(listing_address(f"https://a/LGI/repository/{STORE}"), base)
        self.assertEqual(listing_address(f"https://a/store/{STORE}"), "https://a/store/repository_content.php")

    async def test_files_go_and_come_back(self) -> None:
        make(Path("up"), {"a b": "spaces", "empty": "", "q'&uote.txt": "q"})
        names = ["a b", "empty", "q'&uote.txt"]
        await self.transfer("upload", *(f"up/{name}" for name in names))
        self.assertEqual(self.fake.files, {"a b": b"spaces", "empty": b"", "q'&uote.txt": b"q"})
        expected = "".join(f"\nUploaded to '{self.address}/{name}' ...\n" for name in names) + "\n"
        self.assertEqual(self.out.text, expected)
        Path("down").mkdir()
        await self.transfer("download", *(f"down/{name}" for name in names))
        self.assertEqual(
            {path.name: path.read_text() for path in Path("down").iterdir()},
            {"a b": "spaces", "empty": "", "q'&uote.txt": "q"},
        )
        await self.transfer("delete", "a b")
        self.assertTrue(self.out.text.endswith(f"\nDeleted '{self.address}/a b' ...\n\n"))
        self.assertEqual(self.err.text, "")

    async def test_the_lines_as_recorded(self) -> None:
        make(Path("dl"), {"up1.txt": "1", "file1.dat": "2"})
        os.link("dl/up1.txt", "up1.txt")
        os.link("dl/file1.dat", "file1.dat")
        for command, files in (
            ("upload", ("up1.txt", "file1.dat")),
            ("download", ("dl/up1.txt", "dl/file1.dat")),
            ("delete", ("up1.txt",)),
        ):
            before = len(self.out.text)
            await self.transfer(command, *files)
            expected = re.sub(
                r"https://grid\.example/\S+/JOB_\w+", self.address, recorded(f"filetransfer_{command}.txt")
            )
            self.assertEqual(self.out.text[before:], expected)

    async def test_the_others_are_still_done(self) -> None:
        Path("there").write_text("x")
        with self.assertRaises(Failed):
            await self.transfer("upload", "missing", "there", ".hidden")
        self.assertEqual(list(self.fake.files), ["there"])
        self.assertEqual(self.out.text, f"\nUploaded to '{self.address}/there' ...\n\n")
        self.assertIn("\nError opening file 'missing' ... No such file or directory\n", self.err.text)

    async def test_what_does_not_come_leaves_nothing(self) -> None:
        with self.assertRaises(Failed):
            await self.transfer("download", "missing")
        self.assertEqual(self.err.text, f"\nError downloading from '{self.address}/missing' ... it is not here\n\n")
        self.assertEqual((self.out.text, os.listdir()), ("", []))
        with self.assertRaises(Failed):
            await self.transfer("delete", "missing")
        self.assertIn(f"\nError deleting '{self.address}/missing' ... it is not here\n", self.err.text)

    async def test_the_daemons_own_files_are_not_replaced(self) -> None:
        make(Path("job"), JOB)
        self.fake.files = {"LGI_key_file": b"evil", "data": b"good", "LGI_notes": b"mine"}
        with self.assertRaises(Failed):
            await self.transfer("download", "job/LGI_key_file", "job/data", "LGI_notes")
        self.assertEqual(Path("job/LGI_key_file").read_text(), "key")
        self.assertEqual((Path("job/data").read_text(), Path("LGI_notes").read_text()), ("good", "mine"))
        self.assertIn("are the daemon's own", self.err.text)


class TaskTests(ToolTestCase):
    """Command lines."""

    def task(self, *words: str) -> filetransfer.Task:
        return filetransfer.task(filetransfer.TOOL.parse(list(words)))

    def test_options_may_follow(self) -> None:
        task = self.task("list", "-x", f"{URL}/", "-K", "k", "-C", "c", "-CA", "a", "-W")
        self.assertEqual((task.command, task.url, task.files, task.xml), ("list", URL, (), True))
        self.assertEqual((task.papers.key, task.papers.strict), (Path("k"), False))

    def test_in_a_job_directory(self) -> None:
        make(Path("job"), JOB)
        task = self.task("-j", "job", "upload", URL, "x")
        self.assertEqual((task.url, task.files, task.papers.key), (URL, ("x",), Path("job/LGI_key_file")))
        self.assertEqual(self.task("-j", "job", "list").url, URL)
        task = self.task("-j", "job", "upload", "x", "y")
        self.assertEqual((task.url, task.files), (URL, ("x", "y")))

    def test_mistakes(self) -> None:
        for words in ([], ["fetch", URL], ["list"], ["list", URL, "x"], ["upload", URL], ["list", "http://a/JOB_1"]):
            with self.assertRaises(SystemExit) as end:
                self.task(*words)
            self.assertEqual(end.exception.code, 2, words)
