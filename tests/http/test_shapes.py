"""Every call answers in the shape that deployed clients were recorded with: same tags, same order, same spaces."""

from __future__ import annotations

import json
from pathlib import Path

from tests.http.case import ServerCase
from tests.http.memory import OTHER_RESOURCE, RESOURCE, Answer, Fields
from tests.shape import shape

SHAPES = json.loads((Path(__file__).parents[1] / "data" / "answer_shapes.json").read_text("utf-8"))


class ShapeTests(ServerCase):
    """Recorded shapes against ours."""

    def same(self, path: str, mode: str, answer: Answer) -> None:
        """Compare one answer."""
        self.assertEqual(answer.code, 200)
        self.assertEqual(shape(answer.text), SHAPES[path][mode])
        self.assertEqual(answer.headers["content-length"], str(len(answer.body)))

    async def test_submit(self) -> None:
        answer = await self.server.user(
            "submit_job",
            application="hello_world",
            target_resources="any, resource1@localhost",
            input="48656C6C6F",
            job_specifics="<x> 1 </x>",
        )
        self.same("interfaces/interface_submit_job.php", "ok", answer)
        refused = await self.server.user(
            "submit_job", application="hello_world", target_resources="any", input="61" * 65355
        )
        self.same("interfaces/interface_submit_job.php", "error", refused)
        self.assertEqual(refused.number(), 54)

    async def test_user_job_state(self) -> None:
        await self.server.submit()
        path = "interfaces/interface_job_state.php"
        self.same(path, "list", await self.server.user("job_state", limit=1))
        self.same(path, "count", await self.server.user("job_state", limit=0))
        detail = await self.server.user("job_state", job_id=1)
        # The recorded job had lost its repository.
        self.assertEqual(
            shape(detail.text).replace(
                '<file number="1"> <file_name> … </file_name> <size> … </size> <date> … </date> </file> ', ""
            ),
            SHAPES[path]["detail"],
        )

    async def test_delete(self) -> None:
        path = "interfaces/interface_delete_job.php"
        queued = await self.server.submit()
        self.same(path, "deleted", await self.server.user("delete_job", job_id=queued))
        running, _session = await self.server.running_job()
        answer = await self.server.user("delete_job", job_id=running)
        self.same(path, "aborting", answer)
        self.assertEqual(answer.value("state"), "aborting")
        self.same(path, "error", await self.server.user("delete_job", job_id=999))

    async def test_lists(self) -> None:
        self.same("interfaces/interface_project_server_list.php", "ok", await self.server.user("project_server_list"))
        path = "interfaces/interface_project_resource_list.php"
        answer = await self.server.user("project_resource_list")
        recorded = SHAPES[path]["ok"]
        for number in (4, 3):  # as many resources were recorded, we have two
            recorded = recorded[: recorded.index(f"<resource number='{number}'>")] + "</response> </LGI>"
        self.assertEqual(shape(answer.text), recorded)

    async def test_sessions(self) -> None:
        path = "resources/resource_signup_resource.php"
        answer = await self.server.resource("signup_resource", capabilities="<hello_world>  </hello_world> ")
        self.same(path, "ok", answer)
        session = answer.value("session_id")
        path = "resources/resource_signoff_resource.php"
        self.same(path, "ok", await self.server.resource("signoff_resource", session_id=session))
        self.same(path, "error", await self.server.resource("signoff_resource", session_id=session))

    async def test_work(self) -> None:
        path = "resources/resource_request_work.php"
        await self.server.submit()
        session = await self.server.session()
        count = await self.server.resource(
            "request_work", session_id=session, application="hello_world", limit=0, owners=""
        )
        self.same(path, "count", count)
        jobs = await self.server.resource(
            "request_work", session_id=session, application="hello_world", start=0, limit=1, owners=""
        )
        self.same(path, "jobs", jobs)
        none = await self.server.resource(
            "request_work", session_id=await self.server.session(), application="nosuchapp", owners=""
        )
        self.same(path, "no work", none)

    async def test_locked_job(self) -> None:
        job = await self.server.submit()
        session = await self.server.session()
        ours: Fields = {"session_id": session, "job_id": job}
        lock = await self.server.resource("lock_job", **ours)
        self.same("resources/resource_lock_job.php", "ok", lock)
        other: Fields = {
            "who": OTHER_RESOURCE,
            "session_id": await self.server.session(who=OTHER_RESOURCE),
            "job_id": job,
        }
        self.same("resources/resource_lock_job.php", "error", await self.server.resource("lock_job", **other))
        path = "resources/resource_request_job_details.php"
        self.same(path, "ok", await self.server.resource("request_job_details", **ours))
        self.same(path, "error", await self.server.resource("request_job_details", **other))
        path = "resources/resource_update_job.php"
        update = await self.server.resource("update_job", **ours, state="running", output="4f4b0a")
        self.same(path, "ok", update)
        path = "resources/resource_unlock_job.php"
        self.same(path, "error", await self.server.resource("unlock_job", **other))
        self.same(path, "ok", await self.server.resource("unlock_job", **ours))
        path = "resources/resource_job_state.php"
        self.same(path, "ok", await self.server.resource("job_state", job_id=job))
        self.same(path, "error", await self.server.resource("job_state", job_id=999))

    async def test_submit_of_resource(self) -> None:
        session = await self.server.session(who=RESOURCE)
        answer = await self.server.resource(
            "submit_job",
            session_id=session,
            state="queued",
            application="hello_world",
            owners="mark@localhost, theor",
            target_resources="any",
            input="61",
            files=[("file1.dat", bytes(range(256)))],
        )
        self.same("resources/resource_submit_job.php", "ok", answer)

    async def test_listing_of_a_repository(self) -> None:
        answer = await self.server.user("submit_job", application="hello_world", target_resources="any")
        name = answer.value("repository_url").rpartition("/")[2]
        listing = await self.server.request(
            "mark@localhost; theor; LGI", "GET", f"repository/repository_content.php?repository={name}"
        )
        self.same("repository/repository_content.php", "ok", listing)
