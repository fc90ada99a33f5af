"""What files take, counted for the user whose job they are of, over HTTP."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.defer import Deferred, gatherResults

from lgi.db.usage import used_by
from tests.http.case import JOB, ServerCase
from tests.http.memory import MARK, PIET, RESOURCE, Answer, Fields

ME = MARK.partition(";")[0]


class UsageCase(ServerCase):
    """What the tests share."""

    def submit(self, *files: tuple[str, bytes], who: str = MARK, **fields: Any) -> Deferred[Answer]:
        posted: Fields = JOB | fields
        return self.server.user("submit_job", who=who, files=files, **posted)

    async def used(self, user: str = ME) -> int:
        size: int = await self.server.database.read("used", used_by, user)
        return size

    def put(self, answer: Answer, name: str, data: bytes, who: str = MARK) -> Deferred[Answer]:
        url = answer.value("repository_url").partition("/LGI/")[2]
        return self.server.request(who, "PUT", f"{url}/{name}", data)

    def delete(self, answer: Answer, name: str) -> Deferred[Answer]:
        url = answer.value("repository_url").partition("/LGI/")[2]
        return self.server.request(MARK, "DELETE", f"{url}/{name}")


class CountTests(UsageCase):
    """Without a limit they are counted too, so that there can be one later."""

    async def test_what_comes_and_goes(self) -> None:
        first = await self.submit(("a", b"x" * 10), ("b", b"y"))
        self.assertEqual(await self.used(), 11)
        for change, size in (
            (lambda: self.put(first, "c", b"12345"), 16),
            (lambda: self.put(first, "a", b"12"), 8),
            # Of a user's job it counts for him, whoever brings it.
            (lambda: self.put(first, "d", b"1234", RESOURCE), 8),
            (lambda: self.delete(first, "b"), 7),
            (lambda: self.delete(first, "no such file"), 7),
            (lambda: self.put(first, ".hidden", b"123"), 7),
            (lambda: self.put(first, "c", b"123", PIET), 7),
        ):
            await change()
            self.assertEqual(await self.used(), size)
        await self.submit(("a", b"123"), who=PIET, groups="theor")
        await self.server.user("delete_job", job_id=first.value("job_id"))
        self.assertEqual((await self.used(), await self.used("piet@localhost")), (0, 3))

    async def test_of_a_resource(self) -> None:
        session_id = await self.server.session()
        posted: Fields = JOB | {"session_id": session_id, "state": "queued", "owners": f"{ME}, theor"}
        await self.server.resource("submit_job", files=[("a", b"123")], **posted)
        self.assertEqual(await self.used(), 3)

    async def test_refused_submissions(self) -> None:
        for fields in ({"application": "none"}, {"groups": "chem"}, {"job_specifics": "<a>"}):
            self.assertIsNotNone((await self.submit(("a", b"123"), **fields)).number())
        self.assertIsNotNone((await self.submit(("a", b"123"), ("../b", b"1"))).number())
        self.assertEqual(await self.used(), 0)

    async def test_repeated_submission(self) -> None:
        for _ in range(2):
            await self.submit(("a", b"123"), submission_key="k")
        self.assertEqual(await self.used(), 3)


class LimitTests(UsageCase):
    """As much as a user may have, and not a byte more."""

    edits: ClassVar[dict[str, object]] = {"max_request_size": "1000000\nmax_user_size = 100"}

    async def test_submissions(self) -> None:
        first = await self.submit(("a", b"x" * 60), ("b", b"x" * 40))
        self.assertIsNone(first.number(), first.text)
        await self.freeze()
        await self.refuses(64, self.submit(("a", b"1")), "at most 100 bytes")
        self.assertIsNone((await self.submit()).number())
        self.assertIsNone((await self.submit(("a", b"1"), who=PIET, groups="theor")).number())
        await self.server.user("delete_job", job_id=first.value("job_id"))
        self.assertIsNone((await self.submit(("a", b"x" * 100))).number())

    async def test_uploads(self) -> None:
        answer = await self.submit(("a", b"x" * 60))
        refused = await self.put(answer, "b", b"x" * 41)
        self.assertEqual((refused.code, await self.used()), (413, 60))
        self.assertIn("100 bytes", refused.text)
        self.assertEqual((await self.put(answer, "b", b"x" * 40)).code, 200)
        self.assertEqual((await self.put(answer, "a", b"x" * 60)).code, 200)
        self.assertEqual((await self.put(answer, "a", b"x" * 61)).code, 413)
        self.assertEqual((await self.put(answer, "a", b"x")).code, 200)
        self.assertEqual(await self.used(), 41)

    async def test_at_once(self) -> None:
        answers = await gatherResults([self.submit() for _ in range(2)])
        uploads = [self.put(answer, f"f{number}", b"x" * 30) for answer in answers for number in range(4)]
        submissions = [self.submit(("a", b"x" * 30)) for _ in range(4)]
        codes = [answer.code for answer in await gatherResults(uploads)]
        numbers = [answer.number() for answer in await gatherResults(submissions)]
        self.assertEqual((codes.count(200) + numbers.count(None), await self.used()), (3, 90))
        self.assertEqual({*codes, *numbers} - {200, None}, {413, 64})
        there = [size for name, size in self.sizes().items() if not name.rpartition("/")[2].startswith(".")]
        self.assertEqual(sum(there), 90)

    def sizes(self) -> dict[str, int]:
        return {name: len(data) for name, data in self.stored().items()}
