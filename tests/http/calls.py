"""Every call of the API with fields that are right, and what has to hold for an answer, whatever was posted."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from typing import Any

import attrs
from lxml import etree
from sqlalchemy import Connection, select
from twisted.internet.defer import Deferred

from lgi.db.schema import metadata
from lgi.errors import ErrorNumber
from tests.http.case import JOB, without_volatile
from tests.http.memory import MARK, PROJECT, RESOURCE, SERVER, Answer, Fields
from tests.http.servers import SLAVE, SLAVE_URL, Peer, ServersCase, pushed

_ENVELOPE = re.compile(
    r"<LGI> <API_version> [^<]* </API_version> <LGI_version> [^<]* </LGI_version> <CA_certificate> [^<]*"
    r" </CA_certificate> <server_max_field_size> 65355 </server_max_field_size>  <response> .* </response> </LGI>",
    re.DOTALL,
)
_ERROR = re.compile(
    r"<error> <number> (\d+) </number> <message> [^<>]* </message>(?:  <timeout> (\d+) </timeout>)? </error>"
)
Rows = dict[str, list[dict[str, Any]]]


@attrs.frozen(kw_only=True)
class Call:
    """A call that succeeds: by whom, and with which fields."""

    path: str
    who: str
    fields: Fields


def _rows(connection: Connection) -> Rows:
    return {
        table.name: [dict(row._mapping) for row in connection.execute(select(table))]
        for table in metadata.sorted_tables
    }


class CallsCase(ServersCase):
    """A server with a job that is locked, one that is not, and two sessions, of which one holds the lock."""

    timeout = 300
    changes = "[limits]\nlock_wait = 0\nwork_wait = 1\njob_wait = 1\n"

    def setUp(self) -> Deferred[object]:  # type: ignore[override]
        super().setUp()
        return self.run_now(self.prepare())

    async def prepare(self) -> None:
        """Fill the server, and write down every call with the numbers in it."""
        self.addCleanup(lambda: self.run_now(self.server.site.drain()))
        self.server.others[SLAVE_URL] = Peer(self.another(), SERVER)
        locked = await self.server.submit()
        holder = await self.server.session()
        work = await self.server.resource("request_work", session_id=holder, application="hello_world")
        self.assertEqual(work.value("job_id"), str(locked))
        free = await self.server.submit()
        idle = await self.server.session()
        user: Fields = {"project": PROJECT, "user": "mark@localhost", "groups": "theor"}
        held: Fields = {"session_id": holder, "job_id": locked}
        submission: Fields = JOB | {"job_specifics": "<a> 1 </a>", "input": "61", "output": "62"}
        submission |= {"read_access": "theor", "write_access": "theor"}
        resources: dict[str, Fields] = {
            "signup_resource": {"capabilities": "<hello_world> 1 </hello_world> <lj_md>  </lj_md>"},
            "signoff_resource": {"session_id": idle},
            "request_work": {
                "session_id": idle,
                "application": "hello_world",
                "owners": "any",
                "start": 0,
                "limit": 2,
                "wait": 0,
            },
            "request_job_details": held,
            "lock_job": {"session_id": idle, "job_id": free},
            "unlock_job": held,
            "update_job": held
            | {"state": "running", "target_resources": "any", "job_specifics": "<b> 1 </b>"}
            | {"input": "63", "output": "64"},
            "update_jobs": {"session_id": holder, "number_of_jobs": 1, "job_id_1": locked}
            | {"state_1": "running", "target_resources_1": "any", "job_specifics_1": "<b> 1 </b>", "output_1": "64"},
            "submit_job": submission | {"session_id": idle, "state": "queued", "owners": "mark@localhost"},
            "job_state": {"job_id": free},
            "request_resource_data": {"resource_name": "resource2@localhost"},
        }
        interfaces: dict[str, Fields] = {
            "submit_job": submission | {"submission_key": "key_1"},
            "job_state": {"job_id": free, "state": "any", "application": "any", "start": 0, "limit": 2, "wait": 0},
            "delete_job": {"job_id": free, "cancel": 0},
            "project_server_list": {},
            "project_resource_list": {},
        }
        servers: dict[str, Fields] = {"get_update": {"version": 0}, "run_update": pushed(1)}
        project: Fields = {"project": PROJECT}
        calls = [
            *(
                Call(path=f"resources/resource_{name}.php", who=RESOURCE, fields=project | fields)
                for name, fields in resources.items()
            ),
            *(
                Call(path=f"interfaces/interface_{name}.php", who=MARK, fields=user | fields)
                for name, fields in interfaces.items()
            ),
            *(
                Call(path=f"servers/server_{name}.php", who=SLAVE, fields=project | fields)
                for name, fields in servers.items()
            ),
        ]
        self.calls = {call.path: call for call in calls}
        waiting: Fields = project | {"session_id": idle, "wait": 1, "applications": "hello_world"}
        self.waiting = Call(path="resources/resource_request_work.php", who=RESOURCE, fields=waiting)
        watched: Fields = user | {"jobs": f"{free}:?, {locked}:queued, 999999:running", "wait": 1}
        self.watching = Call(path="interfaces/interface_job_state.php", who=MARK, fields=watched)
        self.free, self.locked = free, locked
        self._witness = sqlite3.connect(str(self.server.database.engine.url.database))
        self.addCleanup(self._witness.close)
        self._snapshot: tuple[int, Rows] = (-1, {})
        self._prepared = self.snapshot()
        self.changed = False

    def snapshot(self) -> Rows:
        """All rows of all tables, read again where somebody has written since."""
        with contextlib.closing(self._witness.execute("PRAGMA data_version")) as found:
            [version] = found.fetchone()
        if version != self._snapshot[0]:
            with self.server.database.engine.connect() as connection:
                self._snapshot = (version, _rows(connection))
        return self._snapshot[1]

    def restore(self) -> None:
        """Put all tables back as they were prepared."""
        with self.server.database.engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
            for table in metadata.sorted_tables:
                if self._prepared[table.name]:
                    connection.execute(table.insert(), self._prepared[table.name])

    def holds(self, answer: Answer, before: Rows, files: set[str], about: object) -> int | None:
        """Check what has to be so for every answer; returns the number of the error in it."""
        self.assertIn(answer.code, (200, 413), about)
        self.assertEqual(answer.headers["content-length"], str(len(answer.body)), about)
        text = answer.body.decode("utf-8")
        self.assertIsNotNone(_ENVELOPE.fullmatch(text), about)
        # By a reader that forgives nothing, and without what deployed readers do not know.
        etree.fromstring(answer.body)
        for unknown in ("<?", "<!", "/>", "Traceback"):
            self.assertNotIn(unknown, text, about)
        self.assertEqual(self.spooled(), [], about)
        self.assertEqual(self.flushLoggedErrors(), [], about)
        error = _ERROR.search(text)
        self.assertEqual("<error>" in text, error is not None, about)
        if error is None:
            return None
        number = ErrorNumber(int(error[1]))
        self.assertEqual(error[2] is not None, number is ErrorNumber.OVERLOADED, about)
        self.assertEqual(without_volatile(self.snapshot()), without_volatile(before), about)
        self.assertEqual(set(self.stored()), files, about)
        return int(number)

    async def posting(
        self, call: Call, fields: Fields, *, who: str | None = None, sent: Deferred[Answer] | None = None
    ) -> int | None:
        """Post a call, check its answer, and put back what it changed; returns the number of the error."""
        before, files = self._prepared, set(self.stored())
        answer = await (sent or self.server.post(call.who if who is None else who, call.path, fields))
        short = {name: value if len(str(value)) < 300 else f"{str(value)[:99]}…" for name, value in fields.items()}
        number = self.holds(answer, before, files, (call.path, who, short, answer.text[:2000]))
        after = self.snapshot()
        self.changed = without_volatile(after) != without_volatile(before)
        if after != before:
            self.restore()
        # What was submitted is not in the tables any more: without its files every later check stays as quick.
        for name in set(self.stored()) - files if number is None else ():
            if name.count("/") == 1:
                shutil.rmtree(self.root / name)
                with contextlib.suppress(OSError):  # of others too
                    (self.root / name).parent.rmdir()
        return number
