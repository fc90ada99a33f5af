"""lgi files: which repository, which files, and what is said about them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from lgi.cli.complaint import Complaint
from lgi.cli.files import get_files, job_directory, list_files, opened_repository, put_files, remove_files
from lgi.cli.options import Options
from lgi.client.repository import Patience
from lgi.client.settings import SettingsError
from lgi.tls import TLSFileError
from tests.unit.cli.sessions import CommandTestCase
from tests.unit.client import fakes
from tests.unit.client.fakes import STORE, reactor
from tests.unit.client.resumable import Resumable


class Transfers(CommandTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.patch(os, "environ", {**os.environ, "TERM": "xterm", "COLUMNS": "100"})
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.fake.files = {"energies.csv": bytes(12345), "b.csv": b"bb", "traj.xyz": b"xyz", "odd[1]": b"o"}

    async def get(self, *names: str, **kind: bool) -> int:
        return await get_files(self.screen(**kind), self.store, names, self.folder / "to")

    @property
    def got(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "to").iterdir())

    async def test_list_in_a_pipe(self) -> None:
        self.assertEqual(await list_files(self.screen(), self.store), 0)
        lines = ["b.csv 2 bytes", "energies.csv 12345 bytes", "odd[1] 1 bytes", "traj.xyz 3 bytes"]
        self.assertEqual(self.said, lines)

    async def test_list_on_a_terminal(self) -> None:
        await list_files(self.screen(terminal=True), self.store)
        self.assertIn("12.3 kB", self.out.getvalue())

    async def test_list_as_json(self) -> None:
        await list_files(self.screen(json=True), self.store)
        self.assertEqual(self.value[0], {"name": "b.csv", "size": 2, "date": 1795167086.4258614})

    async def test_list_of_nothing(self) -> None:
        self.fake.files = {}
        await list_files(self.screen(), self.store)
        self.assertEqual(self.said, [])

    async def test_get_all(self) -> None:
        self.assertEqual(await self.get(), 0)
        self.assertEqual(self.got, ["b.csv", "energies.csv", "odd[1]", "traj.xyz"])
        self.assertIn("energies.csv 12345 bytes", self.said)
        self.assertEqual((self.folder / "to/energies.csv").read_bytes(), bytes(12345))

    async def test_get_patterns_and_names_once(self) -> None:
        self.assertEqual(await self.get("*.csv", "b.csv", "odd[1]", json=True), 0)
        self.assertEqual(self.got, ["b.csv", "energies.csv", "odd[1]"])
        self.assertEqual([file["name"] for file in self.value], ["b.csv", "energies.csv", "odd[1]"])
        self.assertEqual(self.complaints, [])

    async def test_missing_names_are_named_and_the_others_done(self) -> None:
        self.assertEqual(await self.get("nothere.csv", "*.dat", "b.csv"), 1)
        self.assertEqual(self.got, ["b.csv"])
        self.assertEqual(
            self.complaints,
            ["lgi: nothere.csv: no such file in the repository", "lgi: *.dat: no such file in the repository"],
        )

    async def test_one_that_goes_meanwhile(self) -> None:
        self.fake.script[f"repository/b07/{STORE}/b.csv"] = [self._gone]
        self.assertEqual(await self.get("*.csv"), 1)
        self.assertEqual((self.got, len(self.complaints)), (["energies.csv"], 1))
        self.assertIn("b.csv: gone", self.complaints[0])

    def _gone(self, request: Any) -> bytes:
        request.setResponseCode(404)
        return b"<status> <number> 404 </number> <message> gone </message> </status>"

    async def test_cut_download_leaves_the_old_file(self) -> None:
        (self.folder / "to").mkdir()
        (self.folder / "to/b.csv").write_text("old")
        self.fake.script[f"repository/b07/{STORE}/b.csv"] = [fakes.cut]
        self.store = attrs.evolve(self.store, patience=Patience(tries=1, jitter=lambda low, _high: low))
        self.assertEqual(await self.get("b.csv", "energies.csv", json=True), 1)
        self.assertIn("lgi: b.csv: the server cannot be reached", self.complaints[0])
        self.assertEqual((self.got, (self.folder / "to/b.csv").read_text()), (["b.csv", "energies.csv"], "old"))

    async def test_a_name_that_would_leave_the_directory(self) -> None:
        self.fake.files = {"a/../../evil": b"x", "b.csv": b"bb"}
        self.assertEqual(await self.get(), 1)
        self.assertEqual((self.got, len(self.complaints)), (["b.csv"], 1))

    async def test_the_daemons_files_in_a_job_directory_are_safe(self) -> None:
        to = self.folder / "to"
        to.mkdir()
        (to / "LGI_job_specifics").write_text("")
        (to / "LGI_job_run_script").write_text("original")
        self.fake.files = {"LGI_job_run_script": b"other", "b.csv": b"bb"}
        self.assertEqual(await self.get(), 1)
        self.assertEqual((to / "LGI_job_run_script").read_text(), "original")
        self.assertEqual(self.said, ["b.csv 2 bytes"])

    async def test_bar_on_a_terminal_only(self) -> None:
        await self.get("energies.csv", terminal=True)
        self.assertIn("energies.csv 12.3 kB", self.out.getvalue())
        self.assertIn("12.3/12.3 kB", self.out.getvalue())
        await self.get("energies.csv")
        self.assertEqual(self.out.getvalue(), "energies.csv 12345 bytes\n")

    async def test_put(self) -> None:
        path = self.folder / "new.csv"
        path.write_bytes(b"123")
        self.assertEqual(await put_files(self.screen(), self.store, (path,)), 0)
        self.assertEqual((self.fake.files["new.csv"], self.said), (b"123", ["new.csv 3 bytes"]))
        await put_files(self.screen(json=True), self.store, (path,))
        self.assertEqual(self.value, [{"name": "new.csv", "size": 3}])

    async def test_remove(self) -> None:
        self.assertEqual(await remove_files(self.screen(), self.store, ("*.csv", "nothere")), 1)
        self.assertEqual(sorted(self.fake.files), ["odd[1]", "traj.xyz"])
        self.assertEqual(self.said, ["b.csv removed", "energies.csv removed"])
        self.assertEqual(self.complaints, ["lgi: nothere: no such file in the repository"])


class Trees(CommandTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.patch(os, "environ", {**os.environ, "TERM": "xterm", "COLUMNS": "100"})
        self.repository = Resumable()
        self._factory.wrappedFactory.resource = self.repository
        self.store = attrs.evolve(self.store, patience=Patience(tries=1, jitter=lambda low, _high: low))
        self.repository.files = {f"run{i % 2}/f{i}.csv": b"x" * i for i in range(150)}
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    async def test_directories_need_to_be_meant(self) -> None:
        self.assertEqual(await get_files(self.screen(), self.store, ("run1",), self.folder), 1)
        self.assertEqual(self.complaints, ["lgi: run1: it is a directory; -r takes all that is in it"])
        self.assertEqual(await get_files(self.screen(), self.store, ("run1",), self.folder, recursive=True), 0)
        self.assertEqual((len(self.said), os.listdir(self.folder)), (75, ["run1"]))
        self.assertEqual(await remove_files(self.screen(), self.store, ("run1",)), 1)
        self.assertEqual(await remove_files(self.screen(json=True), self.store, ("**/f1?.csv",)), 0)
        self.assertEqual([value["name"] for value in self.value][:2], ["run0/f10.csv", "run0/f12.csv"])
        self.assertEqual(await remove_files(self.screen(), self.store, ("*", "", "/"), recursive=True), 1)
        self.assertIn("lgi: '': an empty name means no file; '*' or '**' means all", self.complaints)
        self.assertEqual(self.repository.files, {})

    async def test_list_of_some(self) -> None:
        self.assertEqual(await list_files(self.screen(), self.store, ("run1/f1.csv", "run0/f1?.csv")), 0)
        self.assertEqual(self.said[:2], ["run1/f1.csv 1 bytes", "run0/f10.csv 10 bytes"])
        self.assertEqual(await list_files(self.screen(), self.store, ("run1/f1.csv", "x"), long=True), 1)
        self.assertRegex(self.said[1], r"^run1/f1.csv  1 +20\d\d-\d\d-\d\d \d\d:")
        self.assertEqual(self.complaints, ["lgi: x: no such file in the repository"])

    async def test_many_on_a_terminal_get_one_line_and_one_bar(self) -> None:
        self.repository.files["big"] = bytes(2 << 20)
        await get_files(self.screen(terminal=True), self.store, (), self.folder, verify=True)
        text = self.out.getvalue()
        self.assertIn("151 files, 2.1 MB in ", text)
        self.assertIn("of 151 files", text)
        self.assertIn("big", text)
        self.assertNotIn("f10.csv", text)

    async def test_put_a_directory(self) -> None:
        (self.folder / "new/sub").mkdir(parents=True)
        (self.folder / "new/a").write_bytes(b"aa")
        (self.folder / "new/.hidden").write_bytes(b"h")
        (self.folder / "new/sub/b").write_bytes(b"b")
        self.repository.files = {}
        new = self.folder / "new"
        self.assertEqual(await put_files(self.screen(), self.store, (new,), recursive=True, prefix="x/y/"), 0)
        self.assertEqual(self.repository.files, {"x/y/new/a": b"aa", "x/y/new/sub/b": b"b"})
        self.assertEqual(len(self.complaints), 1)
        self.assertIn("left out, as hidden files are", self.complaints[0])
        hidden = new / ".hidden"
        self.assertEqual(await put_files(self.screen(), self.store, (hidden,)), 1)
        self.assertIn("'.hidden' cannot be the name", self.complaints[0])
        self.assertEqual(await put_files(self.screen(), self.store, (new,)), 1)
        self.assertIn("-r sends all that is in it", self.complaints[0])
        self.assertEqual(await put_files(self.screen(), self.store, (self.folder / "nothing",)), 1)
        self.assertEqual(self.complaints, [f"lgi: {self.folder / 'nothing'}: No such file or directory"])
        (self.folder / "empty").mkdir()
        with self.assertRaisesRegex(Complaint, "no file to send"):
            await put_files(self.screen(), self.store, (self.folder / "empty",), recursive=True)
        with self.assertRaisesRegex(Complaint, "--to: '../x' cannot"):
            await put_files(self.screen(), self.store, (new,), recursive=True, prefix="../x")

    async def test_refusals_say_what_to_do(self) -> None:
        path = self.folder / "a"
        path.write_bytes(b"a")
        for code, words in ((403, "--write"), (409, "either a file's or a directory's"), (413, "lgi files rm")):
            self.repository.weather = [code]
            self.assertEqual(await put_files(self.screen(), self.store, (path,)), 1)
            self.assertIn(words, self.complaints[0])

    async def test_server_that_goes_away(self) -> None:
        for number in range(20):
            (self.folder / f"f{number}").write_bytes(b"x")
        await self.stop_listening()
        await self.pool.closeCachedConnections()
        self.assertEqual(await put_files(self.screen(), self.store, tuple(self.folder.iterdir()), parallel=2), 1)
        self.assertIn("the server cannot be reached", self.complaints[0])
        self.assertRegex(self.complaints[-1], "1[89] more not moved; run the same command again")


class Which(CommandTestCase):
    async def refused(self, kind: type[Exception], pattern: str, job: str) -> None:
        entered = False

        async def open_it() -> None:
            nonlocal entered
            async with opened_repository(reactor, self.screen(), Options(config=Path(self.mktemp())), job):
                entered = True

        failing: Deferred[Any] = Deferred.fromCoroutine(open_it())
        self.assertRegex(str(await self.assertFailure(failing, kind)), pattern)
        self.assertFalse(entered)

    def directory(self, specifics: str) -> Path:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "LGI_job_specifics").write_text(specifics)
        return folder

    def test_job_directory(self) -> None:
        url = f"https://localhost:8443/LGI/repository/b07/{STORE}"
        folder = self.directory(f"<x> 1 </x> <repository_url> {url} </repository_url>")
        found = job_directory(folder)
        assert found is not None
        self.assertEqual(found.repository_url, url)
        self.assertIsNone(job_directory(folder / "LGI_job_specifics"))
        self.assertIsNone(job_directory(folder / "nothere"))

    async def test_job_directories_that_are_none(self) -> None:
        await self.refused(Complaint, "not the number of a job", self.mktemp())
        await self.refused(Complaint, "not the specifics of a job", str(self.directory("<a>")))
        await self.refused(Complaint, "no https:// address", str(self.directory("")))
        await self.refused(
            Complaint, "no https:// address", str(self.directory("<repository_url> http://x </repository_url>"))
        )

    async def test_job_directory_without_credentials(self) -> None:
        folder = self.directory("<repository_url> https://localhost/LGI/repository/b07/JOB_1 </repository_url>")
        await self.refused(TLSFileError, "LGI_certificate_file", str(folder))

    async def test_number_and_address_need_a_configuration(self) -> None:
        await self.refused(SettingsError, "no configuration directory", "12")
        await self.refused(SettingsError, "no configuration directory", "https://localhost/LGI/repository/JOB_1")
        await self.refused(Complaint, "no address", "https://")
