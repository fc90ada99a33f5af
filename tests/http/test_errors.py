"""What is refused, by number, and that a refused call changes nothing."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, update
from twisted.internet.defer import Deferred

from lgi.db.schema import active_resources, groups_denied, running_sessions, users_allowed, users_denied
from lgi.lists import ANY
from lgi.wire.fields import LONG, RECEIVED_MAXIMUM
from tests.http.case import JOB, WHOLE, ServerCase, without
from tests.http.memory import MARK, OTHER_RESOURCE, PIET, RESOURCE, SERVER, Answer, Fields

USER_CALLS = ("submit_job", "job_state", "delete_job", "project_server_list", "project_resource_list")
RESOURCE_CALLS = (
    "signup_resource",
    "signoff_resource",
    "request_work",
    "request_job_details",
    "lock_job",
    "unlock_job",
    "update_job",
    "submit_job",
    "job_state",
)


class UserTests(ServerCase):
    """Who a user is, and in which project."""

    def call(self, call: str, fields: Fields, who: str = MARK) -> Deferred[Answer]:
        return self.server.post(who, f"interfaces/interface_{call}.php", fields)

    async def test_user_and_groups(self) -> None:
        """Every call of users wants both, as the certificate has them."""
        job_id = await self.server.submit()
        await self.freeze()
        whole: Fields = WHOLE | {"job_id": job_id}
        for call in USER_CALLS:
            await self.refuses(32, self.call(call, without(whole, "user")))
            await self.refuses(32, self.call(call, whole | {"user": "  "}))
            await self.refuses(31, self.call(call, without(whole, "groups")))
            await self.refuses(31, self.call(call, whole | {"groups": " , ,"}))
            await self.refuses(30, self.call(call, whole | {"user": "piet@localhost"}))
            await self.refuses(30, self.call(call, whole | {"user": "Mark@localhost"}))
            await self.refuses(38, self.call(call, whole | {"groups": "chem"}))
            await self.refuses(38, self.call(call, whole | {"groups": "any"}))
            await self.refuses(38, self.call(call, whole | {"groups": "piet@localhost, admin"}))

    async def test_project(self) -> None:
        """The certificate has to be for the project, and the server has to serve it."""
        job_id = await self.server.submit()
        await self.freeze()
        whole: Fields = WHOLE | {"job_id": job_id}
        wider = "mark@localhost; theor; LGI, elsewhere"
        for call in USER_CALLS:
            await self.refuses(37, self.call(call, whole | {"project": "elsewhere"}))
            await self.refuses(37, self.call(call, whole, "mark@localhost; theor; elsewhere"))
            await self.refuses(37, self.call(call, whole, "mark@localhost; theor; "))
            await self.refuses(4, self.call(call, whole | {"project": "elsewhere"}, wider), "elsewhere")
        answer = await self.call("project_server_list", without(whole, "project"))
        self.assertIsNone(answer.number())

    async def test_jobs_of_others(self) -> None:
        """Reading wants read access, deleting write access; groups that are not posted do not count."""
        plain = await self.server.submit()
        shown = await self.server.submit(read_access="chem")
        lent = await self.server.submit(write_access="piet@localhost")
        await self.freeze()
        piet = "piet@localhost; chem; LGI"
        await self.refuses(34, self.server.user("job_state", who=piet, job_id=plain))
        await self.refuses(34, self.server.user("job_state", who=piet, job_id=lent))
        await self.refuses(35, self.server.user("delete_job", who=piet, job_id=plain))
        await self.refuses(35, self.server.user("delete_job", who=piet, job_id=shown))
        chemist = WHOLE | {"user": "piet@localhost", "groups": "theor", "job_id": shown}
        await self.refuses(34, self.call("job_state", chemist, PIET))
        self.assertIsNone((await self.server.user("job_state", who=piet, job_id=shown)).number())
        for call in ("job_state", "delete_job"):
            await self.refuses(15, self.server.user(call, job_id=99))
        await self.refuses(19, self.server.user("delete_job"))
        await self.refuses(19, self.server.user("delete_job", job_id="one"))
        await self.refuses(19, self.server.user("delete_job", job_id="-1"))

    async def test_submissions(self) -> None:
        """What a new job may not be."""
        await self.freeze()
        refused: list[tuple[int, Fields]] = [
            (18, without(JOB, "application")),
            (27, without(JOB, "target_resources")),
            (27, JOB | {"target_resources": ","}),
            (70, JOB | {"application": "nosuchapp"}),
            (70, JOB | {"application": "any"}),
            (70, JOB | {"application": "Hello_world"}),
            (28, JOB | {"target_resources": "nobody@localhost"}),
            (28, {"application": "lj_md", "target_resources": "resource2@localhost"}),
            (72, JOB | {"job_specifics": "<a> no end"}),
            (72, JOB | {"job_specifics": "</job_specifics> <owners> x </owners> <job_specifics>"}),
            (72, JOB | {"job_specifics": "<!-- <repository> x </repository> -->"}),
            (72, JOB | {"job_specifics": "<a> &unknown; </a>"}),
            (72, JOB | {"job_specifics": "<a>" * 400 + "</a>" * 400}),
        ]
        for number, fields in refused:
            await self.refuses(number, self.server.user("submit_job", **fields))

    async def test_unknown_targets_are_named(self) -> None:
        for count, named in ((1, "t0@x"), (3, "t0@x, t1@x, t2@x"), (4, "t0@x, t1@x, t2@x, …")):
            targets = ",".join(f"t{number}@x" for number in range(count))
            answer = await self.server.user("submit_job", **(JOB | {"target_resources": targets}))
            self.assertIn(f"is known to run the application: hello_world at {named} </message>", answer.text)

    async def test_denied_and_not_granted(self) -> None:
        def deny(connection: Connection) -> None:
            connection.execute(insert(users_denied), {"user_name": "mark@localhost", "application": "hello_world"})
            connection.execute(insert(groups_denied), {"group_name": "theor", "application": "lj_md"})

        await self.change(deny)
        await self.freeze()
        await self.refuses(33, self.server.user("submit_job", **JOB), "hello_world")
        await self.refuses(33, self.server.user("submit_job", **JOB | {"application": "lj_md"}))
        await self.change(lambda connection: connection.execute(delete(users_allowed)))
        await self.freeze()
        await self.refuses(33, self.server.user("submit_job", who="piet@localhost; chem; LGI", **JOB))

    async def test_two_masters(self) -> None:
        """Without exactly one master nothing is answered, so nothing may be done either."""

        def another(connection: Connection, flag: int) -> None:
            connection.execute(
                update(active_resources)
                .where(active_resources.c.resource_name == "resource2@localhost")
                .values(project_server=flag)
            )

        await self.change(another, 1)
        await self.freeze()
        for call in USER_CALLS:
            await self.refuses(6, self.server.user(call, job_id=1, **JOB))
        await self.refuses(6, self.server.resource("signup_resource"))


class FieldTests(ServerCase):
    """Fields that are too big or of the wrong form, each with its own error."""

    async def test_of_users(self) -> None:
        long = "x" * 255
        many = ", ".join(f"n{number}" for number in range(1001))
        await self.freeze()
        submissions: list[tuple[int, str, str | bytes]] = [
            (57, "user", long),
            (58, "project", long),
            (56, "groups", long),
            (56, "groups", many),
            (46, "application", long),
            (46, "application", "hello\tworld"),
            (46, "application", b"hello\xff"),
            (46, "application", b"hello\x00world"),
            (50, "target_resources", "x" * (LONG + 1)),
            (50, "target_resources", many),
            (51, "read_access", f"a, {long}"),
            (51, "read_access", many),
            (52, "write_access", "x" * (LONG + 1)),
            (52, "write_access", b"caf\xe9"),
            (53, "job_specifics", "<a> " + "x" * LONG + " </a>"),
            (53, "job_specifics", "x" * (RECEIVED_MAXIMUM + 1)),
            (53, "job_specifics", b"<a> \x01 </a>"),
            (54, "input", "61" * (LONG + 1)),
            (54, "input", "6" * (RECEIVED_MAXIMUM + 1)),
            (54, "input", "616"),
            (54, "input", "xy"),
            (54, "input", "61 62"),
            (54, "input", "６１"),
            (55, "output", "0x61"),
        ]
        for number, name, value in submissions:
            await self.refuses(number, self.server.user("submit_job", **JOB | {name: value}))
        for number, name, value in (
            (45, "state", long),
            (46, "application", long),
            (48, "start", "1234567890"),
            (49, "limit", "x" * 10),
            (47, "job_id", "1" * 10),
        ):
            posted: Fields = {name: value}
            await self.refuses(number, self.server.user("job_state", **posted))
        await self.refuses(47, self.server.user("delete_job", job_id="0" * 10))

    async def test_largest(self) -> None:
        """What just fits is taken."""
        answer = await self.server.user(
            "submit_job",
            application="hello_world",
            target_resources="any",
            input="6" * (2 * LONG),
            job_specifics="<a> " + "x" * (LONG - 9) + " </a>",
            read_access=", ".join(f"n{number}" for number in range(1000)),
        )
        self.assertIsNone(answer.number(), answer.text[:1000])
        self.assertEqual(len(answer.value("input")), 2 * LONG)

    async def test_of_resources(self) -> None:
        session_id = await self.server.session()
        job_id = await self.server.submit()
        await self.server.resource("lock_job", session_id=session_id, job_id=job_id)
        await self.freeze()
        whole: Fields = {**JOB, "session_id": session_id, "job_id": job_id, "owners": "theor", "state": "queued"}
        for call in RESOURCE_CALLS:
            if call not in ("signup_resource", "job_state"):
                await self.refuses(8, self.server.resource(call, **without(whole, "session_id")))
                await self.refuses(8, self.server.resource(call, **whole | {"session_id": "one"}))
                await self.refuses(62, self.server.resource(call, **whole | {"session_id": "1" * 10}))
            if (call.endswith("_job") and call != "submit_job") or call in ("request_job_details", "job_state"):
                await self.refuses(19, self.server.resource(call, **without(whole, "job_id")))
                await self.refuses(47, self.server.resource(call, **whole | {"job_id": "1" * 10}))
        cases: list[tuple[int, str, Fields]] = [
            (69, "signup_resource", {"capabilities": "x" * (LONG + 1)}),
            (69, "signup_resource", {"capabilities": f"<{'x' * 255}> </{'x' * 255}>"}),
            (73, "signup_resource", {"capabilities": "<a>"}),
            (73, "signup_resource", {"capabilities": "<resource> <error> </error> </resource>"}),
            (18, "request_work", without(whole, "application")),
            (46, "request_work", whole | {"application": "x" * 255}),
            (48, "request_work", whole | {"start": "1" * 10}),
            (49, "request_work", whole | {"limit": "1" * 10}),
            (71, "request_work", whole | {"owners": "!" + "x" * 254}),
            (26, "submit_job", without(whole, "owners")),
            (71, "submit_job", whole | {"owners": "x" * (LONG + 1)}),
            (25, "submit_job", without(whole, "state")),
            (25, "submit_job", whole | {"state": "strange"}),
            (25, "submit_job", whole | {"state": "aborting"}),
            (25, "submit_job", whole | {"state": "aborted"}),
            (45, "submit_job", whole | {"state": "x" * 255}),
            (27, "submit_job", without(whole, "target_resources")),
            (72, "submit_job", whole | {"job_specifics": "<a>"}),
            (25, "update_job", whole | {"state": "strange"}),
            (25, "update_job", whole | {"state": "deleted"}),
            (25, "update_job", whole | {"state": "aborting"}),
            (50, "update_job", whole | {"target_resources": "x" * 255}),
            (54, "update_job", whole | {"input": "1"}),
            (55, "update_job", whole | {"output": "61" * (LONG + 1)}),
            (53, "update_job", whole | {"job_specifics": "x" * (LONG + 1)}),
            (72, "update_job", whole | {"job_specifics": "<a> <![CDATA[ x ]]> </a>"}),
        ]
        for number, call, fields in cases:
            await self.refuses(number, self.server.resource(call, **fields))


class ResourceTests(ServerCase):
    """Who a resource is, its sessions and its locks."""

    async def each(self, number: int, who: str, session_id: int, job_id: int, *without: str) -> None:
        for call in RESOURCE_CALLS:
            if call not in without:
                fields: Fields = {
                    **JOB,
                    "session_id": session_id,
                    "job_id": job_id,
                    "owners": "theor",
                    "state": "queued",
                }
                await self.refuses(number, self.server.resource(call, who=who, **fields))

    async def test_registered(self) -> None:
        """A user or an unknown resource is none of the project's resources."""
        session_id, job_id = await self.server.session(), await self.server.submit()
        await self.freeze()
        await self.each(5, MARK, session_id, job_id)
        await self.each(5, "stranger@localhost; LGI", session_id, job_id)
        await self.each(37, "resource1@localhost; elsewhere", session_id, job_id)

    async def test_registered_with_another_certificate(self) -> None:
        session_id, job_id = await self.server.session(), await self.server.submit()
        await self.freeze()
        # The same name, and another certificate than the one that was registered.
        await self.each(2, "resource1@localhost; LGI, more", session_id, job_id)

    async def test_sessions(self) -> None:
        job_id = await self.server.submit()
        ended = await self.server.session()
        await self.server.resource("signoff_resource", session_id=ended)
        foreign = await self.server.session(who=OTHER_RESOURCE)
        stale = await self.server.session()
        self.assertNotEqual(ended, foreign)
        statement = update(running_sessions).where(running_sessions.c.session_id == stale)
        await self.change(lambda connection: connection.execute(statement.values(session_time_stamp=1)))
        await self.freeze()
        for session_id in (ended, foreign, stale, 999):
            await self.each(16, RESOURCE, session_id, job_id, "signup_resource", "job_state")

    async def test_locks(self) -> None:
        job_id, free = await self.server.submit(), await self.server.submit()
        session_id = await self.server.session()
        work = await self.server.resource("request_work", session_id=session_id, application="hello_world", limit=1)
        self.assertEqual(work.value("number_of_jobs"), "1")
        second = await self.server.session()
        other = await self.server.session(who=OTHER_RESOURCE)
        await self.freeze()
        ours: Fields = {"session_id": session_id, "job_id": job_id}
        again: Fields = {"session_id": second, "job_id": job_id}
        theirs: Fields = {"who": OTHER_RESOURCE, "session_id": other, "job_id": job_id}
        for asked in (0, 1):
            await self.refuses(
                17,
                self.server.resource("request_work", session_id=session_id, application="hello_world", limit=asked),
            )
        for holder in (ours, again, theirs):
            await self.refuses(22, self.server.resource("lock_job", **holder))
        for stranger in (again, theirs):
            await self.refuses(14, self.server.resource("unlock_job", **stranger))
            await self.refuses(20, self.server.resource("request_job_details", **stranger))
            await self.refuses(20, self.server.resource("update_job", state="finished", **stranger))
        not_held: Fields = {"session_id": session_id, "job_id": free}
        await self.refuses(13, self.server.resource("unlock_job", **not_held))
        await self.refuses(20, self.server.resource("request_job_details", **not_held))
        await self.refuses(20, self.server.resource("update_job", state="running", **not_held))
        for call in ("lock_job", "request_job_details", "update_job", "job_state"):
            await self.refuses(15, self.server.resource(call, session_id=session_id, job_id=999))
        self.assertIsNone((await self.server.resource("unlock_job", **ours)).number())
        await self.freeze()
        await self.refuses(13, self.server.resource("unlock_job", **ours))

    async def test_targets(self) -> None:
        job_id = await self.server.submit(target_resources="resource1@localhost")
        session_id = await self.server.session(who=OTHER_RESOURCE)
        await self.freeze()
        await self.refuses(
            21, self.server.resource("lock_job", who=OTHER_RESOURCE, session_id=session_id, job_id=job_id)
        )
        await self.refuses(24, self.server.resource("job_state", who=OTHER_RESOURCE, job_id=job_id))

    async def test_owners(self) -> None:
        session_id = await self.server.session()

        def deny(connection: Connection) -> None:
            connection.execute(insert(users_denied), {"user_name": ANY, "application": "lj_md"})

        await self.change(deny)
        await self.freeze()
        await self.refuses(
            29,
            self.server.resource(
                "submit_job",
                session_id=session_id,
                state="queued",
                application="lj_md",
                owners="mark@localhost, theor",
                target_resources="any",
                files=[("a", b"a")],
            ),
        )

    async def test_a_server_is_no_user(self) -> None:
        await self.freeze()
        await self.refuses(
            38, self.server.user("submit_job", who="LGI@localhost; admin; LGI", **JOB | {"groups": "x"})
        )
        answer = await self.server.resource("signup_resource", who=SERVER)
        self.assertIsNone(answer.number())
