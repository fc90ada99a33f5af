"""A test case with a job and its repository."""

from __future__ import annotations

from urllib.parse import quote

from twisted.internet.defer import Deferred

from tests.http.case import ServerCase
from tests.http.memory import MARK, Answer

NOBODY = "nobody@localhost; chem; LGI"


class RepositoryCase(ServerCase):
    """A job of mark's with a repository, which the group `friends` may change, and its resource list."""

    def setUp(self) -> Deferred[object]:  # type: ignore[override]
        super().setUp()
        return self.run_now(self.prepare())

    async def prepare(self) -> None:
        answer = await self.server.user(
            "submit_job",
            application="hello_world",
            target_resources="any",
            write_access="friends",
            files=[("one.txt", b"first\n"), ("two words & more.dat", bytes(range(256)))],
        )
        self.name = answer.value("repository_url").rpartition("/")[2]
        self.directory = self.root / self.name[-3:] / self.name
        self.server.repositories.write_resource_list(["resource1@localhost", "LGI@localhost"])

    def path(self, name: str) -> str:
        return f"repository/{self.name[-3:]}/{self.name}/{quote(name)}"

    def ask(
        self, method: str, name: str, body: bytes = b"", *, who: str = MARK, headers: dict[str, str] | None = None
    ) -> Deferred[Answer]:
        return self.server.request(who, method, self.path(name), body, headers)

    def raw(self, method: str, path: bytes, *, who: str = MARK) -> Deferred[Answer]:
        """A request for exactly this path."""
        return self.server.send(
            who,
            method.encode() + b" " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
            head_only=method == "HEAD",
        )

    async def status(self, code: int, answering: Deferred[Answer]) -> Answer:
        """Check the status, in the line and in the body."""
        answer = await answering
        self.assertEqual((answer.code, answer.value("number")), (code, str(code)), answer.text)
        self.assertEqual(answer.headers["content-length"], str(len(answer.body)))
        return answer

    async def unchanged(self, code: int, answering: Deferred[Answer]) -> None:
        """Check the status, and that nothing is different from `freeze`."""
        await self.status(code, answering)
        self.assertEqual(await self.state(), self._frozen)
        self.assertEqual(self.spooled(), [])
