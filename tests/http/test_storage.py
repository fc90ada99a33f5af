"""Jobs for file_storage, which the project server itself keeps (LGI 1.41, Storage within LGI)."""

from __future__ import annotations

from sqlalchemy import Connection

from lgi.db.resources import fetch_resource, set_capabilities
from lgi.scheduler import work
from tests.http.case import ServerCase
from tests.http.memory import MARK, PIET, RESOURCE, SERVER, Answer

SERVER_NAME = SERVER.partition(";")[0]


class StorageTests(ServerCase):
    """From the announcement to the end of the job."""

    async def announce(self, capabilities: str) -> None:
        """Let the server offer something."""

        def change(connection: Connection) -> None:
            server = fetch_resource(connection, SERVER_NAME)
            assert server is not None
            set_capabilities(connection, server, capabilities)

        await self.change(change)

    async def submit(self, target: str = SERVER_NAME) -> Answer:
        """Submit a storage job with a file."""
        answer: Answer = await self.server.user(
            "submit_job", application="file_storage", target_resources=target, files=[("data", b"kept")]
        )
        return answer

    async def test_not_announced(self) -> None:
        self.assertEqual((await self.submit()).number(), 70)
        self.assertEqual((await self.submit("any")).number(), 70)

    async def test_kept(self) -> None:
        """Files are put, got, listed and removed for as long as the job is there, and nobody runs it."""
        await self.announce("<file_storage>  </file_storage>")
        for target in (SERVER_NAME, "any"):
            answer = await self.submit(target)
            self.assertEqual(answer.value("state"), "queued", answer.text)
            job_id, name = int(answer.value("job_id")), answer.value("repository_url").rpartition("/")[2]
            folder = f"repository/{name[-3:]}/{name}"
            self.assertEqual((await self.server.request(MARK, "PUT", f"{folder}/more", b"x" * 5000)).code, 200)
            self.assertEqual((await self.server.request(PIET, "PUT", f"{folder}/more", b"other")).code, 403)
            self.assertEqual((await self.server.request(MARK, "GET", f"{folder}/data")).body, b"kept")
            self.assertEqual((await self.server.request(MARK, "GET", f"{folder}/more")).body, b"x" * 5000)
            listing = await self.server.request(MARK, "GET", f"repository/repository_content.php?repository={name}")
            for kept in ("data", "more"):
                self.assertIn(f"<file_name> {kept} </file_name>", listing.text)
            # No resource gets it that does not offer the application, and no time ends it.
            session_id = await self.server.session(who=RESOURCE)
            work_answer = await self.server.resource("request_work", session_id=session_id, application="hello_world")
            self.assertEqual(work_answer.value("number_of_jobs"), "0")
            await self.change(work.end_stale_sessions, 1 << 40)
            await self.change(work.see_to_lost_jobs, 1 << 40, 10)
            state = await self.server.user("job_state", job_id=job_id)
            self.assertEqual(state.value("state"), "queued")
            self.assertEqual((await self.server.request(MARK, "DELETE", f"{folder}/data")).code, 200)
            self.assertEqual((await self.server.request(MARK, "GET", f"{folder}/data")).code, 404)
            self.assertEqual((await self.server.user("delete_job", job_id=job_id)).value("state"), "deleted")
            self.assertEqual((await self.server.request(MARK, "GET", f"{folder}/more")).code, 404)

    async def test_withdrawn(self) -> None:
        """A server that offers it no longer takes no new job, and keeps those that it has."""
        await self.announce("<file_storage>  </file_storage>")
        answer = await self.submit()
        await self.announce("")
        self.assertEqual((await self.submit()).number(), 70)
        name = answer.value("repository_url").rpartition("/")[2]
        self.assertEqual(
            (await self.server.request(MARK, "GET", f"repository/{name[-3:]}/{name}/data")).body, b"kept"
        )
