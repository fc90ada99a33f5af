"""Repositories of jobs without files: nothing is on the disk, nobody sees that, and the first file makes it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import blockingCallFromThread

from lgi.db.jobs import fetch_job
from lgi.db.usage import used_by
from lgi.lists import encode_list
from lgi.repository.access import ACCESS_FILE
from lgi.repository.files import UNFINISHED, Repositories
from lgi.repository.keeper import Keeper
from lgi.repository.local import LocalStore
from lgi.repository.unmade import Unmade
from lgi.server.unmade import UnmadeOfJobs
from tests.http.case import JOB, ServerCase
from tests.http.memory import MARK, PIET, RESOURCE, Answer, Fields

FRIEND = "jan@localhost; friends; LGI"
STRANGER = PIET
WRITERS = "admin, mark@localhost, friends"
NOWHERE = "JOB_" + "0" * 32
CONTENT = "repository/repository_content.php?repository="


class UnmadeCase(ServerCase):
    """A job of mark's without files, whose repository the group `friends` may change."""

    def setUp(self) -> Deferred[object]:  # type: ignore[override]
        super().setUp()
        return self.run_now(self.prepare())

    async def prepare(self) -> None:
        self.answer = await self.server.user("submit_job", write_access="friends", **JOB)
        self.job_id = int(self.answer.value("job_id"))
        self.name = self.answer.value("repository_url").rpartition("/")[2]
        self.server.repositories.write_resource_list([RESOURCE.partition(";")[0]])

    @property
    def directory(self) -> Path:
        return self.root / self.name[-3:] / self.name

    def ask(self, method: str, name: str, body: bytes = b"", *, who: str = MARK, **headers: str) -> Deferred[Answer]:
        more = {key.replace("_", "-"): value for key, value in headers.items()}
        path = f"repository/{self.name[-3:]}/{self.name}/{name}"
        return self.server.request(who, method, path, body, more)

    def made(self) -> dict[str, str]:
        """The files of all repositories, by their names."""
        return {path.name: path.read_text() for path in self.root.glob("*/JOB_*/**/*") if path.is_file()}

    def nothing(self) -> None:
        """Check that there is nothing of any repository, nor of what becomes or was one."""
        self.assertEqual((self.stored(), self.spooled()), ({}, []))
        for folder in (".trash", UNFINISHED):
            self.assertEqual(list((self.root / folder).iterdir()), [])

    async def used(self) -> int:
        size: int = await self.server.database.read("used", used_by, "mark@localhost")
        return size


class ListingTests(UnmadeCase):
    """It is listed like one that has its access file alone."""

    def content(self, answer: Answer) -> tuple[list[str], list[str], str]:
        """The names and sizes in a listing, and how many it says there are."""
        parts = answer.text.split("<file_name>")[1:]
        names = [part.split("<")[0].strip() for part in parts]
        sizes = [part.split("<size>")[1].split("<")[0].strip() for part in parts]
        return names, sizes, answer.value("number_of_files")

    async def listings(self, job_id: int, session_id: int) -> list[Answer]:
        """A job's files wherever they are listed."""
        await self.server.resource("lock_job", session_id=session_id, job_id=job_id)
        details = await self.server.resource("request_job_details", session_id=session_id, job_id=job_id)
        await self.server.resource("unlock_job", session_id=session_id, job_id=job_id)
        return [
            details,
            await self.server.user("job_state", job_id=job_id),
            await self.server.request(MARK, "GET", CONTENT + self.name),
        ]

    async def test_of_a_user(self) -> None:
        """Before it is made, and when it has been and its only file has gone again."""
        session_id = await self.server.session()
        expected = [ACCESS_FILE], [str(len(WRITERS))], "1"
        unmade = [self.answer, *await self.listings(self.job_id, session_id)]
        self.nothing()
        dates = {answer.text.split("<date>")[1].split("<")[0] for answer in unmade}
        self.assertEqual(len(dates), 1)
        self.assertAlmostEqual(float(dates.pop()), float(self.answer.value("state_time_stamp").split()[0]), delta=1)
        for method in ("PUT", "DELETE"):
            self.assertEqual((await self.ask(method, "a")).code, 200)
        self.assertEqual(self.made(), {ACCESS_FILE: WRITERS})
        for answer in (*unmade, *await self.listings(self.job_id, session_id)):
            self.assertEqual(self.content(answer), expected, answer.text)

    async def test_of_a_resource(self) -> None:
        session_id = await self.server.session()
        posted: Fields = JOB | {"session_id": session_id, "state": "running", "owners": "mark@localhost"}
        answer = await self.server.resource("submit_job", write_access="friends", **posted)
        self.nothing()
        self.name = answer.value("repository_url").rpartition("/")[2]
        listed = await self.server.request(MARK, "GET", CONTENT + self.name)
        for found in (answer, listed):
            self.assertEqual(self.content(found), ([ACCESS_FILE], [str(len(WRITERS))], "1"), found.text)
        self.assertEqual((await self.ask("PUT", "a", b"1", who=RESOURCE)).code, 200)
        self.assertEqual(self.made(), {ACCESS_FILE: WRITERS, "a": "1"})

    async def test_repeated_submission(self) -> None:
        """Of a job without files, whose directory has come since or not."""
        answers = [await self.server.user("submit_job", submission_key="k", **JOB) for _ in range(2)]
        self.assertEqual(answers[0].text, answers[1].text)
        self.nothing()
        self.name = answers[0].value("repository_url").rpartition("/")[2]
        await self.ask("PUT", "a", b"12")
        again = await self.server.user("submit_job", submission_key="k", **JOB)
        self.assertEqual(self.content(again), ([ACCESS_FILE, "a"], ["21", "2"], "2"))

    async def test_of_no_job(self) -> None:
        for name in (NOWHERE, self.name[:-1] + ("0" if self.name[-1] != "0" else "1")):
            answer = await self.server.request(MARK, "GET", CONTENT + name)
            self.assertEqual((answer.code, answer.value("number_of_files")), (200, "0"))
        await self.server.user("delete_job", job_id=self.job_id)
        answer = await self.server.request(MARK, "GET", CONTENT + self.name)
        self.assertEqual((answer.code, answer.value("number_of_files")), (200, "0"))

    async def test_lost(self) -> None:
        """A directory that should have files is missed: it is not listed as if all were well, nor made anew."""
        await self.ask("PUT", "a", b"1")
        shutil.rmtree(self.directory)
        for answer in await self.listings(self.job_id, await self.server.session()):
            self.assertEqual(answer.value("number_of_files"), "0", answer.text)
        for who, code in ((MARK, 403), (RESOURCE, 404)):
            for headers in ({}, {"Content_Range": "bytes 0-0/2"}):
                self.assertEqual((await self.ask("PUT", "b", b"1", who=who, **headers)).code, code)
        self.nothing()


class MakingTests(UnmadeCase):
    """Who makes it, and how."""

    async def test_by_those_who_may(self) -> None:
        """Those in the list that was posted, and resources; as it would have been from the beginning."""
        for who in (MARK, FRIEND, "boss@localhost; admin; LGI", RESOURCE):
            await self.prepare()
            answer = await self.ask("PUT", "run1/a%20b", who.encode(), who=who)
            self.assertEqual(answer.code, 200, answer.text)
            # Anybody may read who knows its name.
            self.assertEqual((await self.ask("GET", "run1/a%20b", who=STRANGER)).body, who.encode())
            self.assertEqual((self.directory / ACCESS_FILE).read_text(), WRITERS)
            # What is made without files is as what came with one.
            first = await self.server.user("submit_job", write_access="friends", files=[("a", b"1")], **JOB)
            name = first.value("repository_url").rpartition("/")[2]
            other = self.root / name[-3:] / name
            for path in ("", ACCESS_FILE):
                self.assertEqual((other / path).stat().st_mode, (self.directory / path).stat().st_mode)
            self.assertEqual((other / ACCESS_FILE).read_bytes(), (self.directory / ACCESS_FILE).read_bytes())

    async def test_as_the_job_says(self) -> None:
        """The list is the job's own, whatever states it has gone through since."""
        session_id = await self.server.session()
        ours: Fields = {"session_id": session_id, "job_id": self.job_id}
        await self.server.resource("lock_job", **ours)
        await self.server.resource("update_job", **ours, state="running", output="61")
        self.assertEqual((await self.ask("PUT", "a", b"1", who=RESOURCE)).code, 200)
        job = await self.change(fetch_job, self.job_id)
        self.assertEqual(self.made(), {ACCESS_FILE: encode_list(job.write_access), "a": "1"})
        self.assertEqual((encode_list(job.write_access), job.repository_size), (WRITERS, 1))

    async def test_by_strangers(self) -> None:
        await self.freeze()
        for who in (STRANGER, "resource2@localhost; LGI"):
            for method in ("PUT", "DELETE"):
                answer = await self.ask(method, "a", who=who)
                self.assertEqual((answer.code, answer.value("number")), (403, "403"))
            for span in ("bytes */5", "bytes 0-0/5"):
                code = (await self.ask("PUT", "a", b"" if "*" in span else b"1", who=who, Content_Range=span)).code
                self.assertEqual(code, 403)
        self.assertEqual(await self.state(), self._frozen)
        self.nothing()

    async def test_of_no_job(self) -> None:
        """The same answers as ever: resources learn that there is none, others nothing."""
        self.name = NOWHERE
        for who, code in ((MARK, 403), (STRANGER, 403), (RESOURCE, 404)):
            for method in ("PUT", "DELETE"):
                self.assertEqual((await self.ask(method, "a", b"1", who=who)).code, code, (who, method))
            self.assertEqual((await self.ask("PUT", "a", who=who, Content_Range="bytes */5")).code, code)
            self.assertEqual((await self.ask("GET", "a", who=who)).code, 404)
        self.nothing()

    async def test_what_is_not_there(self) -> None:
        """Reading and deleting make nothing."""
        for who in (MARK, RESOURCE):
            for method in ("GET", "HEAD", "DELETE"):
                for name in ("a", "run1/a"):
                    self.assertEqual((await self.ask(method, name, who=who)).code, 404, (who, method))
            self.assertEqual((await self.ask("DELETE", "a", who=who, If_Match="*")).code, 412)
        self.nothing()

    async def test_what_is_not_taken(self) -> None:
        """What is refused before it comes makes nothing."""
        for name, headers, code in (
            (".hidden", {}, 400),
            (ACCESS_FILE, {}, 400),
            ("a", {"If_Match": "*"}, 412),
            ("a", {"Content_Type": "multipart/form-data; boundary=b"}, 415),
            ("a", {"Content_Range": "bytes 1-0/5"}, 400),
            ("a", {"Content_Range": f"bytes 0-0/{1 << 50}"}, 413),
        ):
            self.assertEqual((await self.ask("PUT", name, b"1", **headers)).code, code, (name, headers))
        self.nothing()

    async def test_in_parts(self) -> None:
        """Asking first what has come of it, as clients do."""
        for span, body, code, offset in (
            ("*/5", b"", 202, "0"),
            ("0-1/5", b"he", 202, "2"),
            ("*/5", b"", 202, "2"),
            ("2-4/5", b"llo", 200, "5"),
        ):
            answer = await self.ask("PUT", "a", body, Content_Range=f"bytes {span}", If_None_Match="*")
            self.assertEqual((answer.code, answer.headers["upload-offset"]), (code, offset), answer.text)
        self.assertEqual(self.made(), {ACCESS_FILE: WRITERS, "a": "hello"})
        self.assertEqual(await self.used(), 5)

    async def test_parts_at_once(self) -> None:
        """Without asking, and by one of whom only a part comes: it goes with the job."""
        answer = await self.ask("PUT", "a", b"he", who=FRIEND, Content_Range="bytes 0-1/5")
        self.assertEqual((answer.code, answer.headers["upload-offset"]), (202, "2"))
        self.assertEqual(self.made(), {ACCESS_FILE: WRITERS})
        await self.server.user("delete_job", job_id=self.job_id)
        self.nothing()

    async def test_many_at_once(self) -> None:
        """They make one, and none of them is told that there is none or that he may not."""
        made: list[object] = []
        create = Repositories.create

        def counted(repositories: Repositories, *arguments: Any) -> None:
            made.append(arguments)
            create(repositories, *arguments)

        self.patch(Repositories, "create", counted)
        who = (MARK, FRIEND, RESOURCE)
        asking = [self.ask("PUT", f"f{number}", b"x", who=who[number % 3]) for number in range(12)]
        listing = [self.server.request(MARK, "GET", CONTENT + self.name) for _ in range(6)]
        self.assertEqual({answer.code for answer in await gatherResults(asking)}, {200})
        for answer in await gatherResults(listing):
            self.assertIn(ACCESS_FILE, answer.text)
        self.assertEqual(made, [(self.name, tuple(WRITERS.split(", ")), ())])
        names = [f"f{number}" for number in range(12)]
        self.assertEqual(self.made(), {ACCESS_FILE: WRITERS} | dict.fromkeys(names, "x"))
        self.assertEqual((await self.used(), list((self.root / ".trash").iterdir())), (12, []))

    async def test_found_while_it_is_made(self) -> None:
        """Who comes when it is half made waits until it is whole, and does not make it anew."""
        write, make = LocalStore._write, Keeper.make
        making: list[str] = []
        second: list[Deferred[Answer]] = []

        async def noted(keeper: Keeper, repository: str, unmade: Unmade) -> None:
            making.append(repository)
            await make(keeper, repository, unmade)

        async def another() -> None:
            second.append(self.ask("PUT", "b", b"2", who=FRIEND))
            await self.server.until(lambda: len(making) >= 2)
            for _ in range(20):
                await self.server.turn()

        def slowly(store: LocalStore, directory: int, name: str, data: bytes) -> None:
            self.assertEqual((os.listdir(directory), name), ([], ACCESS_FILE))
            blockingCallFromThread(reactor, lambda: self.run_now(another()))  # type: ignore[arg-type]
            write(store, directory, name, data)

        self.patch(Keeper, "make", noted)
        self.patch(LocalStore, "_write", slowly)
        self.assertEqual((await self.ask("PUT", "a", b"1")).code, 200)
        self.assertEqual(((await second[0]).code, making), (200, [self.name] * 2))
        self.assertEqual(self.made(), {ACCESS_FILE: WRITERS, "a": "1", "b": "2"})

    async def test_filled_while_one_looks(self) -> None:
        """Between the look at the disk and the one at the job: it is not taken for lost."""
        find = UnmadeOfJobs.__call__

        async def filled(jobs: UnmadeOfJobs, repository: str) -> Unmade | None:
            with patch.object(UnmadeOfJobs, "__call__", find):
                self.assertEqual((await self.ask("PUT", "a", b"1")).code, 200)
            return await find(jobs, repository)

        with patch.object(UnmadeOfJobs, "__call__", filled):
            listed = await self.server.request(MARK, "GET", CONTENT + self.name)
        self.assertEqual(listed.value("number_of_files"), "2", listed.text)
        await self.prepare()
        with patch.object(UnmadeOfJobs, "__call__", filled):
            self.assertEqual((await self.ask("PUT", "b", b"2", who=FRIEND)).code, 200)
        self.assertEqual(sorted(os.listdir(self.directory)), [ACCESS_FILE, "a", "b"])


class FailureTests(UnmadeCase):
    """What comes between."""

    async def test_deleted_while_it_is_made(self) -> None:
        """Nothing of it stays, and who uploads is told that there is none."""
        create = Repositories.create
        for headers in ({}, {"Content_Range": "bytes 0-0/2"}):
            await self.prepare()
            deleting: list[Deferred[Answer]] = []

            def late(
                repositories: Repositories, *arguments: Any, deleting: list[Deferred[Answer]] = deleting
            ) -> None:
                def delete() -> Deferred[Answer]:
                    return self.server.user("delete_job", job_id=self.job_id)

                # The directory is not there yet when it is removed with its job.
                deleting.append(blockingCallFromThread(reactor, delete))  # type: ignore[arg-type]
                create(repositories, *arguments)

            with patch.object(Repositories, "create", late):
                answer = await self.ask("PUT", "a", b"1", **headers)
            self.assertEqual((answer.code, len(deleting)), (404, 1), answer.text)
            self.nothing()
            self.assertEqual(await self.used(), 0)

    async def test_half_made(self) -> None:
        """What a process left that was killed between the directory and its access file is mended."""
        self.directory.mkdir(parents=True)
        listed = await self.server.request(MARK, "GET", CONTENT + self.name)
        self.assertIn(ACCESS_FILE, listed.text)
        self.assertEqual((await self.ask("PUT", "a", who=STRANGER)).code, 403)
        self.assertEqual(os.listdir(self.directory), [])
        self.assertEqual((await self.ask("PUT", "a", b"1", who=FRIEND)).code, 200)
        self.assertEqual(self.made(), {ACCESS_FILE: WRITERS, "a": "1"})
        self.assertEqual(list((self.root / ".trash").iterdir()), [])

    async def test_half_made_and_deleted(self) -> None:
        self.directory.mkdir(parents=True)
        self.assertEqual((await self.server.user("delete_job", job_id=self.job_id)).value("state"), "deleted")
        self.nothing()

    async def test_in_the_way(self) -> None:
        """A disk that does not let it be made: the upload is refused, nothing changes, and it can be tried again."""
        self.directory.parent.write_bytes(b"")
        before = await self.state()
        self.assertEqual((await self.ask("PUT", "a", b"1")).code, 500)
        self.assertEqual(await self.state(), before)
        self.assertEqual(self.spooled(), [])
        self.directory.parent.unlink()
        self.assertEqual((await self.ask("PUT", "a", b"1")).code, 200)

    async def test_upload_that_is_cut(self) -> None:
        """What is left has no file, and takes the next."""
        path = f"repository/{self.name[-3:]}/{self.name}/a"
        protocol, _transport = self.server.connect(MARK)
        protocol.dataReceived(f"PUT /LGI/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n".encode())
        protocol.dataReceived(b"x" * 100_000)
        await self.server.until((self.directory / ACCESS_FILE).exists)
        self.server.hang_up(protocol)
        await self.server.until(lambda: not self.spooled())
        self.assertEqual((self.made(), await self.used()), ({ACCESS_FILE: WRITERS}, 0))
        self.assertEqual((await self.ask("PUT", "a", b"1")).code, 200)


class LimitTests(UnmadeCase):
    """What a repository and a user may have counts from its first file."""

    edits: ClassVar[dict[str, object]] = {"max_repository_size": 60, "max_user_size": 100}

    async def test_limits(self) -> None:
        for size, code in ((61, 413), (60, 200)):
            self.assertEqual((await self.ask("PUT", "a", b"x" * size)).code, code)
            self.assertEqual(await self.used(), size if code == 200 else 0)
        self.assertEqual((await self.ask("PUT", "b", b"x")).code, 413)
        await self.prepare()
        refused = await self.ask("PUT", "a", b"x" * 41)
        self.assertEqual((refused.code, await self.used()), (413, 60))
        self.assertIn("max_user_size", refused.text)
        self.assertEqual((await self.ask("PUT", "a", b"x" * 40, who=RESOURCE)).code, 200)
        self.assertEqual(await self.used(), 100)
        await self.server.user("delete_job", job_id=self.job_id)
        self.assertEqual(await self.used(), 60)
