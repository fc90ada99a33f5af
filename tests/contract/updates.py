"""Updates: numbered without gaps, one transaction each, the same rows on every database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select

from lgi.db.events import REPOSITORY_RESOURCES, due
from lgi.db.mysqltext import Value, quoted
from lgi.db.resources import fetch_resource, register
from lgi.db.schema import active_resources, resource_applications, updates, users_allowed, users_denied
from lgi.db.updates import append_update, apply_update, highest_version, list_updates, next_update
from lgi.errors import ErrorNumber, LGIError
from lgi.model import ServerFlag, Update
from tests.contract.case import NOW, RESOURCE, ContractCase

OWN = "LGI@slave"
NASTY = (
    "it's",
    'say "hi"',
    "back\\slash\\",
    "\\' OR 1=1 -- ",
    "'; DROP TABLE users_denied; --",
    "50% _off_",
    "naïve ☃ 😀",
    "<x>&amp;</x>",
    "a`b",
    "${x} :v0 %s %(a)s ?",
)


def update(version: int, statement: str, servers: tuple[str, ...] = ("any",)) -> Update:
    """An update as another server has it."""
    return Update(version=version, servers=servers, query=statement.encode())


class UpdatesContract(ContractCase):
    """What `lgi.db.updates` promises."""

    def setUp(self) -> None:
        """With the project's master and this server."""
        super().setUp()
        for name, flag in (("LGI@master", ServerFlag.MASTER), (OWN, ServerFlag.SLAVE)):
            self.run_in(register, name=name, certificate=name, url=f"https://{name}/LGI", project_server=flag)

    def apply(self, version: int, statement: str, servers: tuple[str, ...] = ("any",)) -> int:
        """Apply one update; returns the highest version then."""
        _taken, highest = self.run_in(apply_update, update(version, statement, servers), OWN, NOW)
        return highest

    def rows(self, *columns: Any) -> list[tuple[Any, ...]]:
        """What stands in these columns, sorted."""
        return sorted(
            tuple(row) for row in self.run_in(lambda connection: connection.execute(select(*columns)).all())
        )

    def refused(self, version: int, statement: str, saying: str, servers: tuple[str, ...] = ("any",)) -> None:
        """Nothing is kept of a refused one."""
        before = self.rows(*updates.c), self.rows(*active_resources.c), self.rows(*users_allowed.c)
        with self.assertRaises(LGIError) as caught:
            self.apply(version, statement, servers)
        self.assertEqual(caught.exception.number, ErrorNumber.UPDATE_REFUSED)
        self.assertIn(saying, str(caught.exception))
        self.assertEqual((self.rows(*updates.c), self.rows(*active_resources.c), self.rows(*users_allowed.c)), before)

    def test_versions_have_no_gaps(self) -> None:
        self.assertEqual(self.run_in(highest_version), 0)
        self.assertEqual(self.run_in(next_update, 0), (0, None))
        self.refused(2, "DELETE FROM users_denied", "version 2 does not follow 0")
        self.assertEqual(self.apply(1, "INSERT INTO users_denied VALUES ('a', 'b')"), 1)
        self.assertEqual(self.apply(2, "INSERT INTO users_denied VALUES ('c', 'd')", ("other@x", "LGI@master")), 2)
        self.assertEqual(self.apply(3, "DELETE FROM users_denied WHERE user_name='a'", ("x@y", OWN)), 3)
        self.assertEqual(self.apply(2, "INSERT INTO users_denied VALUES ('e', 'f')"), 3, "it is known already")
        self.assertEqual(self.rows(*users_denied.c), [])
        self.assertEqual([one.version for one in self.run_in(list_updates)], [1, 2, 3])
        count, following = self.run_in(next_update, 1)
        self.assertEqual(count, 2)
        self.assertEqual(
            following, update(2, "INSERT INTO users_denied VALUES ('c', 'd')", ("other@x", "LGI@master"))
        )

    def test_refused_ones_leave_nothing(self) -> None:
        self.refused(1, "DROP TABLE job_queue", "DROP")
        self.refused(1, "UPDATE job_queue SET priority=0", "job_queue", ("other@x",))
        self.refused(1, "DELETE FROM active_resources", "0 master servers")
        self.refused(1, "UPDATE active_resources SET project_server=1", "2 master servers")
        self.refused(1, "UPDATE active_resources SET resource_name='a'", "the database does not take it")
        with self.assertRaises(LGIError):
            self.run_in(apply_update, Update(version=1, servers=("any",), query=b"\xff"), OWN, NOW)
        self.assertEqual(self.run_in(highest_version), 0)

    def test_values_arrive_as_they_are(self) -> None:
        expected = []
        for version, name in enumerate(NASTY, start=1):
            value = name.strip()
            self.apply(version, f"INSERT INTO users_denied SET user_name={quoted(value)}, application='any'")
            expected.append((value, "any"))
            self.assertEqual(self.rows(*users_denied.c), sorted(expected))
        for version, name in enumerate(NASTY, start=len(NASTY) + 1):
            self.apply(version, f"DELETE FROM users_denied WHERE user_name={quoted(name.strip())}")
            expected.remove((name.strip(), "any"))
            self.assertEqual(self.rows(*users_denied.c), sorted(expected))
        blob = bytes(range(256))
        self.apply(
            2 * len(NASTY) + 1,
            f"INSERT INTO active_resources SET resource_name='r', client_certificate={quoted(blob)}, "
            "resource_capabilities='<a> \\'\\\\ \\n </a>'",
        )
        columns = active_resources.c
        where = columns.resource_name == "r"
        found = self.run_in(
            lambda connection: connection.execute(
                select(columns.client_certificate, columns.resource_capabilities, columns.last_call_time).where(where)
            ).one()
        )
        self.assertEqual((bytes(found[0]), *found[1:]), (blob, "<a> '\\ \n </a>", 0))

    def test_conditions(self) -> None:
        rows = [
            ("mark", "hello", -5),
            ("Mark", "hello", 0),
            ("m%k", "a\\b", 5),
            ("m_k", "any", 10),
            ("any", "any", 1),
        ]
        for condition, expected in (
            ("user_name='mark'", {"mark"}),
            ("user_name LIKE 'm%k'", {"mark", "m%k", "m_k"}),
            ("user_name LIKE 'm\\%k'", {"m%k"}),
            ("user_name LIKE 'm\\_k'", {"m_k"}),
            ("user_name LIKE 'm_k'", {"m%k", "m_k"}),
            ("user_name NOT LIKE '%k'", {"any"}),
            ("application LIKE 'a\\\\\\\\b'", {"m%k"}),
            ("application = 'a\\\\b'", {"m%k"}),
            ("job_limit < 0", {"mark"}),
            ("5 <= job_limit", {"m%k", "m_k"}),
            ("job_limit BETWEEN 0 AND 5", {"Mark", "m%k", "any"}),
            ("job_limit IN (0, '10', -5)", {"mark", "Mark", "m_k"}),
            ("user_name NOT IN ('mark', 'any')", {"Mark", "m%k", "m_k"}),
            ("NOT (user_name='mark' OR application='any')", {"Mark", "m%k"}),
            ("user_name='any' OR user_name='mark' AND job_limit=0", {"any"}),
            ("application IS NULL", set()),
            ("application IS NOT NULL AND user_name>'mark'", set()),
        ):
            with self.engine.begin() as connection:
                connection.execute(users_allowed.delete())
                connection.execute(updates.delete())
                connection.execute(
                    insert(users_allowed),
                    [dict(zip(users_allowed.c.keys(), row, strict=True)) for row in rows],
                )
            self.apply(1, f"DELETE FROM users_allowed WHERE {condition}")
            left = {row[0] for row in self.rows(users_allowed.c.user_name)}
            self.assertEqual({row[0] for row in rows} - left, expected, condition)

    def test_rows_that_are_there(self) -> None:
        """A new row for a key that is there takes its place, and a resource keeps its number."""
        self.apply(1, "INSERT INTO users_allowed VALUES ('a', 'b', 5)")
        self.apply(2, "INSERT INTO users_allowed SET user_name='a', application='b'")
        self.assertEqual(self.rows(*users_allowed.c), [("a", "b", 5)])
        self.apply(3, "REPLACE INTO users_allowed SET user_name='a', application='b'")
        self.assertEqual(self.rows(*users_allowed.c), [("a", "b", 0)])
        self.apply(4, "REPLACE INTO users_allowed VALUES ('a', 'b', 7), ('c', 'd', 8)")
        self.assertEqual(self.rows(*users_allowed.c), [("a", "b", 7), ("c", "d", 8)])
        number = self.register()
        self.apply(
            5, f"REPLACE INTO active_resources SET resource_name='{RESOURCE}', url='u', client_certificate='c'"
        )
        found = self.run_in(fetch_resource, RESOURCE)
        assert found is not None
        self.assertEqual((found.resource_id, found.url, found.resource_capabilities), (number, "u", ""))

    def test_what_follows_from_resources(self) -> None:
        index = resource_applications.c
        self.register(applications=["hello_world", "gone"])
        self.assertNotIn((NOW, REPOSITORY_RESOURCES), self.run_in(due, NOW, 100))
        self.apply(
            1,
            "INSERT INTO active_resources SET resource_name='new@x', client_certificate='c', url='new@x', "
            "resource_capabilities='<hello_world> </hello_world> <lj_md> </lj_md>'",
        )
        self.assertIn((NOW, REPOSITORY_RESOURCES), self.run_in(due, NOW, 100))
        self.apply(
            2,
            "UPDATE active_resources SET resource_capabilities='<hello_world> </hello_world>' "
            f"WHERE resource_name='{RESOURCE}'",
        )
        self.assertEqual(
            self.rows(index.application, index.resource_name),
            sorted([("hello_world", "new@x"), ("lj_md", "new@x"), ("hello_world", RESOURCE)]),
        )
        self.apply(3, "DELETE FROM active_resources WHERE resource_name='new@x'")
        self.assertEqual(self.rows(index.application, index.resource_name), [("hello_world", RESOURCE)])

    def test_the_same_version_at_once(self) -> None:
        """One of many that push a version wins, and the others hear of it."""
        heard: list[tuple[bool, int]] = []

        def push(index: int) -> None:
            wanted = update(1, f"INSERT INTO users_denied VALUES ('user{index}', 'any')")
            heard.append(self.run_in(apply_update, wanted, OWN, NOW))

        self.at_once(8, push)
        self.assertEqual(sorted(heard), [(False, 1)] * 7 + [(True, 1)])
        self.assertEqual(len(self.rows(*users_denied.c)), 1)
        self.assertEqual(len(self.rows(updates.c.version)), 1)

    def test_administrators_at_once(self) -> None:
        """Each change gets a number of its own."""

        def change(index: int) -> None:
            statement = f"INSERT INTO users_denied VALUES ('user{index}', 'any')"
            self.run_in(append_update, ("any",), statement, OWN, NOW)

        self.at_once(8, change)
        self.assertEqual(self.rows(updates.c.version), [(number,) for number in range(1, 9)])
        self.assertEqual(len(self.rows(*users_denied.c)), 8)

    def test_a_change_ends_with_its_transaction(self) -> None:
        """Nothing is left of an update whose transaction does not end well."""

        def fail(connection: Connection) -> None:
            append_update(connection, ("any",), "INSERT INTO users_denied VALUES ('a', 'b')", OWN, NOW)
            raise KeyError

        with self.assertRaises(KeyError):
            self.run_in(fail)
        self.assertEqual((self.rows(*updates.c), self.rows(*users_denied.c)), ([], []))

    def test_too_big(self) -> None:
        value: Value = "<a> " + "x" * 66_000 + " </a>"
        with self.assertRaises(LGIError) as caught:
            self.run_in(append_update, ("any",), f"UPDATE active_resources SET url={quoted(value)}", OWN, NOW)
        self.assertEqual(caught.exception.number, ErrorNumber.UPDATE_TOO_BIG)
