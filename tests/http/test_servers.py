"""Project servers among themselves, and what resources learn of each other."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlencode

from sqlalchemy import update
from twisted.internet.defer import gatherResults

from lgi.db.mysqltext import quoted
from lgi.db.schema import active_resources
from lgi.model import ServerFlag
from lgi.wire.fields import LONG
from tests.http.memory import OTHER_RESOURCE, PROJECT, RESOURCE, SERVER, Answer, certificate
from tests.http.servers import GET, RUN, SLAVE, SLAVE_URL, Peer, ServersCase, pushed, statement
from tests.shape import shape

SHAPES = json.loads((Path(__file__).parents[1] / "data" / "answer_shapes.json").read_text("utf-8"))


class ShapeTests(ServersCase):
    """The recorded shapes."""

    def same(self, path: str, mode: str, answer: Answer) -> None:
        self.assertEqual(answer.code, 200)
        self.assertEqual(shape(answer.text), SHAPES[path][mode])

    async def test_get_update(self) -> None:
        none = await self.peer(GET, version=0)
        self.same(GET, "ok", none)
        self.assertIn("<updates> 0 </updates> <update_version>  </update_version> ", none.text)
        self.same(GET, "error", await self.peer(GET, version="1234567890"))
        await self.record(self.server, statement("one"))
        await self.record(self.server, statement("two"), ("LGI@slave", "other@x"))
        first = await self.peer(GET, version=0)
        details = "<update_version> … </update_version> <target_servers> … </target_servers> "
        self.assertEqual(
            shape(first.text),
            SHAPES[GET]["ok"].replace(
                "<update_version> … </update_version> ", details + "<update_query> … </update_query> "
            ),
        )
        self.assertEqual((first.value("updates"), first.value("update_version")), ("2", "1"))
        self.assertEqual(bytes.fromhex(first.value("update_query")).decode(), statement("one"))
        self.assertEqual(first.value("requesting_project_server"), "LGI@slave")
        second = await self.peer(GET, version=1)
        self.assertEqual((second.value("updates"), second.value("update_version")), ("1", "2"))
        self.assertEqual(second.value("target_servers"), "LGI@slave, other@x")
        none = await self.peer(GET, version=2)
        self.same(GET, "ok", none)
        self.assertEqual((none.value("updates"), none.value("update_version")), ("0", "2"))

    async def test_run_update(self) -> None:
        fields = pushed(1, servers="LGI@localhost,other@x")
        answer = await self.peer(RUN, **fields)
        self.same(RUN, "ok", answer)
        self.assertEqual(answer.value("target_servers"), "LGI@localhost, other@x")
        self.assertEqual(answer.value("update_query"), fields["update"], "as it was posted")
        self.assertEqual(answer.value("did_update_cyle"), "0")
        self.assertEqual(await self.denied(), {"bad"})
        self.same(RUN, "error", await self.peer(RUN, **pushed(2, servers="x" * (LONG + 1))))
        self.server.others[SLAVE_URL] = Peer(self.another(), SERVER)
        cycled = await self.peer(RUN)
        recorded = SHAPES[RUN]["ok"]
        start = recorded.index("<update_version>")
        self.assertEqual(shape(cycled.text), recorded[:start] + recorded[recorded.index("<update>") :])
        self.assertEqual((cycled.value("did_update_cyle"), cycled.value("update_version")), ("1", "1"))

    async def test_resource_data(self) -> None:
        path = "resources/resource_request_resource_data.php"
        answer = await self.server.resource("request_resource_data", resource_name="resource2@localhost")
        # The old server closes the inner resource_url as url, which we do not copy.
        recorded = SHAPES[path]["ok"].replace("<resource_url> … </url>", "<resource_url> … </resource_url>")
        self.assertNotEqual(recorded, SHAPES[path]["ok"])
        self.assertEqual(shape(answer.text), recorded)
        data = answer.value("requested_resource_data")
        self.assertIn(
            f"<client_certificate> {certificate(OTHER_RESOURCE).encode().hex()} </client_certificate>", data
        )
        self.assertIn("<resource_url> resource2@localhost </resource_url>", data)
        other = await self.server.post(RESOURCE, path, {"resource_name": "LGI@slave"})
        self.assertIn(SLAVE_URL, other.value("requested_resource_data"), "the project need not be posted")
        await self.freeze()
        for number, fields in (
            (43, {}),
            (43, {"resource_name": " "}),
            (63, {"resource_name": "x" * 255}),
            (63, {"resource_name": b"\xff"}),
            (5, {"resource_name": "nobody@nowhere"}),
            (37, {"resource_name": "resource2@localhost", "project": "elsewhere"}),
        ):
            await self.refuses(number, self.server.resource("request_resource_data", **fields))
        await self.refuses(
            5, self.server.resource("request_resource_data", who="x@y; LGI", resource_name="resource2@localhost")
        )


class ErrorTests(ServersCase):
    """Who may call, and with what."""

    async def test_who(self) -> None:
        """A registered project server with its registered certificate, in a project of it; nobody else."""
        await self.record(self.server, statement("secret"))
        await self.freeze()
        for path, fields in ((GET, {"version": 0}), (RUN, pushed(2)), (RUN, {})):
            await self.refuses(39, self.peer(path, RESOURCE, **fields))
            await self.refuses(5, self.peer(path, "LGI@nowhere; LGI", **fields))
            await self.refuses(5, self.peer(path, "mark@localhost; theor; LGI", **fields))
            await self.refuses(2, self.peer(path, "LGI@slave; LGI, more", **fields), "another")
            await self.refuses(37, self.peer(path, "LGI@slave; elsewhere", **fields))
            await self.refuses(37, self.peer(path, **{**fields, "project": "elsewhere"}))
            await self.refuses(58, self.peer(path, **{**fields, "project": "x" * 255}))

    async def test_fields(self) -> None:
        await self.freeze()
        for fields in ({}, {"version": ""}, {"version": "one"}, {"version": "-1"}, {"version": "1.5"}):
            await self.refuses(40, self.peer(GET, **fields))
        for version in ("1" * 10, b"\xff", "1\x00"):
            await self.refuses(59, self.peer(GET, version=version))
            await self.refuses(59, self.peer(RUN, **(pushed(1) | {"version": version})))
        whole = pushed(1)
        for number, changes in (
            (40, {"version": ""}),
            (40, {"version": "x"}),
            (41, {"version": 0}),
            (41, {"servers": ""}),
            (41, {"servers": " , "}),
            (41, {"update": ""}),
            (60, {"servers": "x" * (LONG + 1)}),
            (60, {"servers": "x" * 255}),
            (60, {"servers": b"\xff"}),
            (61, {"update": "61" * (LONG + 1)}),
            (61, {"update": "6"}),
            (61, {"update": "zz"}),
            (41, {"update": b"\xff".hex()}),
            (41, {"update": "00"}),
        ):
            await self.refuses(number, self.peer(RUN, **(whole | changes)))
        for missing, number in (("version", 40), ("servers", 41), ("update", 41)):
            fields = {name: value for name, value in whole.items() if name != missing}
            await self.refuses(number, self.peer(RUN, **fields))

    async def test_hostile_updates(self) -> None:
        """Whoever they are for, they are refused and kept by nobody."""
        await self.freeze()
        for text in (
            "DROP TABLE job_queue",
            "DELETE FROM users_denied; DELETE FROM job_queue",
            "UPDATE job_queue SET owners='me'",
            "UPDATE users_denied SET user_name=(SELECT url FROM active_resources)",
            "INSERT INTO users_denied SELECT LOAD_FILE('/etc/passwd'), 1",
            "DELETE FROM users_denied /*! WHERE SLEEP(5) */",
        ):
            await self.refuses(41, self.peer(RUN, **pushed(1, text)))
            await self.refuses(41, self.peer(RUN, **pushed(1, text, "other@x")))
        await self.refuses(41, self.peer(RUN, **pushed(1, "DELETE FROM active_resources")), "0 master servers")

    async def test_not_one_master(self) -> None:
        await self.change(
            lambda connection: connection.execute(
                update(active_resources).values(project_server=2).where(active_resources.c.project_server == 1)
            )
        )
        await self.freeze()
        await self.refuses(6, self.peer(GET, version=0))
        await self.refuses(6, self.peer(RUN, **pushed(1)))


class UpdateTests(ServersCase):
    """What becomes of updates."""

    async def test_url_encoded(self) -> None:
        """As deployed servers post."""
        body = urlencode({"project": PROJECT, **pushed(1)}).encode()
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await self.server.request(SLAVE, "POST", RUN, body, kind)
        self.assertEqual(answer.value("did_update_cyle"), "0")
        self.assertEqual(await self.denied(), {"bad"})

    async def test_order(self) -> None:
        """The next version is taken, a known one is not, and one for others is only kept."""
        await self.peer(RUN, **pushed(1, statement("one")))
        again = await self.peer(RUN, **pushed(1, statement("other")))
        self.assertTrue(again.text.endswith("<update_version> 1 </update_version> </update> </response> </LGI>"))
        await self.peer(RUN, **pushed(2, statement("two"), "someone@else"))
        await self.peer(RUN, **pushed(3, statement("three"), "x@y, LGI@localhost"))
        self.assertEqual(await self.denied(), {"one", "three"})
        self.assertEqual([one.version for one in await self.known()], [1, 2, 3])

    async def test_the_same_version_at_once(self) -> None:
        """One wins, the other gets to know the highest version."""
        self.know(self.server, "LGI@third; LGI", "https://third.example/LGI", ServerFlag.SLAVE)
        answers = await gatherResults(
            [
                self.peer(RUN, who, **pushed(1, statement(who)))
                for who in (SLAVE, "LGI@third; LGI", SLAVE, "LGI@third; LGI")
            ]
        )
        self.assertEqual({answer.number() for answer in answers}, {None})
        self.assertEqual({answer.text.split("<update_version>")[-1].split()[0] for answer in answers}, {"1"})
        self.assertEqual(len(await self.known()), 1)
        self.assertEqual(len(await self.denied()), 1)

    async def test_version_ahead_starts_a_cycle(self) -> None:
        """What comes first is fetched, also the pushed one."""
        other = self.another()
        for name in ("one", "two", "three"):
            await self.record(other, statement(name))
        peer = self.server.others[SLAVE_URL] = Peer(other, SERVER)
        answer = await self.peer(RUN, **pushed(3, statement("three")))
        self.assertEqual(answer.value("did_update_cyle"), "1")
        self.assertTrue(answer.text.endswith("<update_version> 3 </update_version> </update> </response> </LGI>"))
        self.assertEqual(await self.known(), await self.known(other))
        self.assertEqual(await self.denied(), {"one", "two", "three"})
        self.assertEqual(peer.calls, [GET] * 4)
        # Nobody has what lies between: nothing is taken.
        answer = await self.peer(RUN, **pushed(9, statement("nine")))
        self.assertTrue(answer.text.endswith("<update_version> 3 </update_version> </update> </response> </LGI>"))
        self.assertEqual(len(await self.known()), 3)

    async def test_new_resource_works_at_once(self) -> None:
        """A resource that an update registers can sign up and take jobs; a description before its PEM is ignored."""
        name = "new@x; LGI"
        pem = "Certificate:\n    Data: for people\n" + certificate(name)
        row = f"resource_name='new@x', client_certificate={quoted(pem)}, url='new@x', project_server=0"
        await self.peer(
            RUN, **pushed(1, f"INSERT INTO active_resources SET {row}, resource_capabilities='<new_app> </new_app>'")
        )
        job = await self.server.submit(application="new_app")
        session = await self.server.session(who=name)
        work = await self.server.resource("request_work", who=name, session_id=session, application="new_app")
        self.assertEqual(work.value("job_id"), str(job))
