"""Which project a call is for, and which servers it has."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lgi.config import LimitsSection
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.httpd.router import Call
from lgi.identity import parse_common_name
from lgi.model import Resource, ServerFlag
from lgi.server.members import User, posted_user
from lgi.server.project import SERVERS_SECONDS, Project, Projects
from lgi.wire.fields import PostedFields


def call(common_name: str, **fields: str) -> Call:
    caller = Caller(identity=parse_common_name(common_name), certificate="")
    return Call(caller=caller, fields=PostedFields(values={name: value.encode() for name, value in fields.items()}))


class Table:
    """A database whose one answer is a list of servers."""

    def __init__(self) -> None:
        self.flags = [ServerFlag.MASTER]
        self.asked = 0

    async def read(self, _name: str, _function: object) -> list[Resource]:
        self.asked += 1
        return [
            Resource(resource_id=number, resource_name=f"s{number}", project_server=flag, url=f"https://s{number}")
            for number, flag in enumerate(self.flags)
        ]


class ProjectTests(SynchronousTestCase):
    """Projects and users."""

    def setUp(self) -> None:
        self.table, self.now = Table(), 1000
        unused: Any = None
        self.project = Project(
            name="LGI",
            database=self.table,  # type: ignore[arg-type]
            repositories=unused,
            news=unused,
            limits=LimitsSection(),
            url="https://this",
            now=lambda: self.now,
        )

    def refused(self, projects: Projects, posted: Call) -> ErrorNumber:
        number: ErrorNumber = self.assertRaises(LGIError, projects.of, posted).number
        return number

    def test_one_project(self) -> None:
        projects = Projects(by_name={"LGI": self.project})
        for common_name in ("mark; theor; LGI", "mark; theor; any", "host.example", "mark; theor; A, LGI"):
            self.assertIs(projects.of(call(common_name, project="LGI")), self.project)
            self.assertIs(projects.of(call(common_name)), self.project)
        self.assertEqual(self.refused(projects, call("mark; theor; A")), ErrorNumber.PROJECT_REFUSED)
        self.assertEqual(self.refused(projects, call("mark; theor; A", project="A")), ErrorNumber.NO_PROJECT_DATABASE)
        self.assertEqual(self.refused(projects, call("mark; theor; LGI", project="A")), ErrorNumber.PROJECT_REFUSED)
        self.assertEqual(self.refused(projects, call("mark; theor; LGI", project="lgi")), ErrorNumber.PROJECT_REFUSED)
        self.assertEqual(
            self.refused(projects, call("mark; theor; any", project="any")), ErrorNumber.NO_PROJECT_DATABASE
        )

    def test_several_projects(self) -> None:
        """Then the field has to be there."""
        projects = Projects(by_name={"LGI": self.project, "A": self.project})
        self.assertEqual(self.refused(projects, call("mark; theor; LGI")), ErrorNumber.PROJECT_REFUSED)
        self.assertEqual(self.refused(projects, call("mark; theor; any", project=" ")), ErrorNumber.PROJECT_REFUSED)

    def test_servers(self) -> None:
        """Looked up again after a while, and at once when there was no good answer."""
        self.table.flags = [ServerFlag.SLAVE, ServerFlag.MASTER, ServerFlag.SLAVE]
        servers = self.result_of(self.project.servers())
        self.assertEqual((servers.master, servers.this), ("https://s1", "https://this"))
        self.assertEqual(servers.slaves, ("https://s0", "https://s2"))
        self.table.flags = [ServerFlag.MASTER]
        self.now += SERVERS_SECONDS - 1
        self.assertIs(self.result_of(self.project.servers()), servers)
        self.assertEqual(self.table.asked, 1)
        self.now += 1
        self.assertEqual(self.result_of(self.project.servers()).master, "https://s0")
        for flags in ([], [ServerFlag.MASTER, ServerFlag.MASTER], [ServerFlag.SLAVE]):
            self.now += SERVERS_SECONDS
            self.table.flags = flags
            for _ in range(2):
                with self.assertRaises(LGIError) as caught:
                    self.result_of(self.project.servers())
                self.assertEqual(caught.exception.number, ErrorNumber.NOT_ONE_MASTER)

    def result_of(self, coroutine: Any) -> Any:
        """Run a coroutine that waits for nothing."""
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("it waits for something")

    def test_users(self) -> None:
        user = posted_user(call("mark; a, b; LGI", user="mark", groups="b, c, mark, b"))
        self.assertEqual(user, User(name="mark", groups=("b", "mark")))
        self.assertEqual(user.names, ("mark", "b"))
        everybody = posted_user(call("mark; any; LGI", user="mark", groups="x, any, y"))
        self.assertEqual(everybody.groups, ("x", "y"))
        for groups in ("any", "c", "A"):
            posted = call("mark; a, b; LGI", user="mark", groups=groups)
            self.assertEqual(self.assertRaises(LGIError, posted_user, posted).number, ErrorNumber.GROUPS_REFUSED)
