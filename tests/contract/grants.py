"""The contract of grants and resources: rows are found exactly, and a job limit holds for all who come at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import blockingCallFromThread, deferToThread

from lgi.access import Grants, denied_groups, leaves_room, permits
from lgi.config import LimitsSection
from lgi.db.database import Database
from lgi.db.grants import allow_user, fetch_grants
from lgi.db.jobs import count_owned, fetch_job, update_job
from lgi.db.resources import (
    fetch_resource,
    list_names,
    list_resources,
    list_servers,
    register,
    set_capabilities,
    touch,
)
from lgi.db.schema import (
    groups_allowed,
    groups_denied,
    job_access,
    job_counts,
    job_offers,
    job_queue,
    running_locks,
    users_allowed,
    users_denied,
)
from lgi.db.sessions import start_session
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.identity import Identity
from lgi.model import Denial, Grant, ServerFlag
from lgi.repository.files import Repositories
from lgi.server.members import User
from lgi.server.news import News
from lgi.server.project import Project
from lgi.server.submit import Submission, submit_of_resource, submit_of_user
from lgi.states import JobState
from tests.contract.case import APPLICATION, NOW, RESOURCE, ContractCase
from tests.strategies import few_people, grants

THREADS = 8
LIMIT = 5
SUBMISSIONS = 6


class GrantsContract(ContractCase):
    """See `DatabaseContract`."""

    def test_rows_that_may_concern_a_submission_are_found(self) -> None:
        def fill(connection: Connection) -> None:
            for name, application, limit in (
                ("mark", APPLICATION, -3),
                ("mark", "any", 0),
                ("mark", "lj_md", 1),
                ("any", "any", 7),
                ("piet", "any", 2),
                ("Mark", "any", 9),
            ):
                allow_user(connection, Grant(name=name, application=application, job_limit=limit))
            connection.execute(
                insert(groups_allowed),
                [
                    {"group_name": name, "application": APPLICATION, "job_limit": limit}
                    for name, limit in (("theor", 4), ("chem", 5), ("any", 6), ("mark", 8))
                ],
            )
            connection.execute(insert(users_denied), [{"user_name": "any", "application": "lj_md"}])
            connection.execute(insert(groups_denied), [{"group_name": "theor", "application": "any"}])

        self.run_in(fill)
        found = self.run_in(fetch_grants, ["mark"], ["theor", "bio"], APPLICATION)
        self.assertEqual(
            {(row.name, row.application, row.job_limit) for row in found.users_allowed},
            {("mark", APPLICATION, -3), ("mark", "any", 0), ("any", "any", 7)},
        )
        self.assertEqual({(row.name, row.job_limit) for row in found.groups_allowed}, {("theor", 4), ("any", 6)})
        self.assertEqual(found.users_denied, ())
        self.assertEqual(found.groups_denied, (Denial(name="theor", application="any"),))
        self.assertEqual(
            self.run_in(fetch_grants, ["nobody"], [], "lj_md").users_denied,
            (Denial(name="any", application="lj_md"),),
        )

    def test_nothing_is_granted_in_a_fresh_database(self) -> None:
        self.assertEqual(self.run_in(fetch_grants, ["mark"], ["theor"], APPLICATION), Grants())

    def test_grant_is_replaced(self) -> None:
        for limit in (3, 4):
            self.run_in(allow_user, Grant(name="mark", application="any", job_limit=limit))
        found = self.run_in(fetch_grants, ["mark"], [], APPLICATION)
        self.assertEqual([row.job_limit for row in found.users_allowed], [4])

    def project(self) -> Project:
        """The project on this database as one server process has it."""
        database = Database(reactor, self.new_engine(THREADS), threads=THREADS)
        database.start()
        self.addCleanup(database.stop)
        repositories = Repositories.local(
            root=Path(self.mktemp()).absolute(), location="LGI@localhost", url="https://h/r"
        )
        repositories.prepare()
        return Project(
            name="LGI",
            database=database,
            repositories=repositories,
            news=News(reactor),
            limits=LimitsSection(),
            url="https://localhost/LGI",
            now=lambda: NOW,
        )

    async def submitted(self, projects: list[Project], users: list[User], times: int) -> int:
        """Let all users submit at the same time through all processes; returns how many were let through."""

        async def one(project: Project, user: User) -> int:
            posted = Submission(application=APPLICATION, target_resources=("any",))
            try:
                await submit_of_user(project, user, posted, [])
            except LGIError as problem:
                self.assertEqual(problem.number, ErrorNumber.SUBMIT_REFUSED)
                return 0
            return 1

        attempts = [
            Deferred.fromCoroutine(one(project, user)) for _ in range(times) for project in projects for user in users
        ]
        return sum(await gatherResults(attempts, consumeErrors=True))

    async def _limit_holds(self, limit: int, users: list[User], owner: str, application: str = APPLICATION) -> None:
        self.register()
        # Two processes with eight threads each.
        projects = [self.project(), self.project()]
        self.assertEqual(await self.submitted(projects, users, 8 // len(users)), LIMIT)
        self.assertEqual(self.run_in(count_owned, owner, application), (LIMIT, LIMIT))
        self.run_in(finish_two)
        room = await self.submitted(projects, users, 2)
        # A negative limit counts what is queued or running, a positive one everything.
        self.assertEqual(room, 2 if limit < 0 else 0)
        active, total = self.run_in(count_owned, owner, application)
        self.assertEqual((active, total), (LIMIT, LIMIT + 2) if limit < 0 else (LIMIT - 2, LIMIT))

    async def test_limit_on_all_jobs_of_a_user_is_never_passed(self) -> None:
        self.run_in(allow_user, Grant(name="mark", application=APPLICATION, job_limit=LIMIT))
        await self._limit_holds(LIMIT, [User(name="mark", groups=("theor",))], "mark")

    async def test_limit_on_active_jobs_of_a_user_is_never_passed(self) -> None:
        self.run_in(allow_user, Grant(name="mark", application="any", job_limit=-LIMIT))
        await self._limit_holds(-LIMIT, [User(name="mark", groups=("theor",))], "mark", "any")

    async def test_limit_of_a_group_holds_for_all_its_users_together(self) -> None:
        def fill(connection: Connection) -> None:
            row = {"group_name": "theor", "application": APPLICATION, "job_limit": -LIMIT}
            connection.execute(insert(groups_allowed), [row])

        self.run_in(fill)
        users = [User(name=name, groups=("theor",)) for name in ("mark", "piet", "anna", "joke")]
        await self._limit_holds(-LIMIT, users, "theor")

    async def test_limits_of_groups_that_are_posted_in_any_order(self) -> None:
        self.register()

        def fill(connection: Connection) -> None:
            for name in ("theor", "chem"):
                row = {"group_name": name, "application": "any", "job_limit": 3}
                connection.execute(insert(groups_allowed), [row])

        self.run_in(fill)
        users = [User(name="mark", groups=("theor", "chem")), User(name="piet", groups=("chem", "theor"))]
        # Each job is owned by both groups, so that both limits are reached at once.
        self.assertEqual(await self.submitted([self.project(), self.project()], users, 4), 3)
        for name in ("theor", "chem"):
            self.assertEqual(self.run_in(count_owned, name, "any"), (3, 3))

    async def test_limit_of_the_any_user_holds_for_each_user(self) -> None:
        self.register()
        self.run_in(allow_user, Grant(name="any", application="any", job_limit=LIMIT))
        users = [User(name=name, groups=("theor",)) for name in ("mark", "piet")]
        self.assertEqual(await self.submitted([self.project(), self.project()], users, 5), 2 * LIMIT)
        for name in ("mark", "piet"):
            self.assertEqual(self.run_in(count_owned, name, "any"), (LIMIT, LIMIT))

    def sessions(self, number: int) -> list[int]:
        """Sessions of the resource, so that its calls do not wait for each other."""
        resource = self.run_in(fetch_resource, RESOURCE)
        assert resource is not None
        return [self.run_in(start_session, resource.resource_id, NOW) for _ in range(number)]

    async def handed_in(self, projects: list[Project], owners: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        """Let the resource submit for each of these owners at the same time; returns the owners of the jobs."""
        caller = Caller(identity=Identity(name=RESOURCE), certificate=f"certificate of {RESOURCE}")

        async def one(number: int, session_id: int, asked: Sequence[str]) -> tuple[str, ...]:
            posted = Submission(application=APPLICATION, target_resources=("any",))
            try:
                _resource, job, _files = await submit_of_resource(
                    projects[number % len(projects)], caller, session_id, JobState.QUEUED, tuple(asked), posted, []
                )
            except LGIError as problem:
                self.assertEqual(problem.number, ErrorNumber.NO_OWNER_MAY_SUBMIT)
                return ()
            return job.owners

        attempts = [
            Deferred.fromCoroutine(one(number, session_id, asked))
            for number, (session_id, asked) in enumerate(zip(self.sessions(len(owners)), owners, strict=True))
        ]
        return [found for found in await gatherResults(attempts, consumeErrors=True) if found]

    async def test_limit_holds_for_the_owners_that_resources_name(self) -> None:
        self.register()
        for name, limit in (("mark", LIMIT), ("piet", -LIMIT + 2)):
            self.run_in(allow_user, Grant(name=name, application=APPLICATION, job_limit=limit))
        # In both orders, since whoever holds one row wants the other then.
        owners = [("mark", "piet"), ("piet", "mark")] * LIMIT
        found = await self.handed_in([self.project(), self.project()], owners)
        self.assertEqual(len(found), LIMIT)
        self.assertEqual(self.run_in(count_owned, "mark", APPLICATION), (LIMIT, LIMIT))
        self.assertEqual(self.run_in(count_owned, "piet", APPLICATION), (LIMIT - 2, LIMIT - 2))

    async def test_limit_holds_for_users_and_resources_together(self) -> None:
        self.register()
        self.run_in(allow_user, Grant(name="mark", application="any", job_limit=LIMIT))
        projects = [self.project(), self.project()]
        of_users = Deferred.fromCoroutine(self.submitted(projects, [User(name="mark", groups=("theor",))], 3))
        of_resources = Deferred.fromCoroutine(self.handed_in(projects, [("mark",), ("nobody", "mark")] * 3))
        self.assertEqual(await of_users + len(await of_resources), LIMIT)
        self.assertEqual(self.run_in(count_owned, "mark", "any"), (LIMIT, LIMIT))

    def grant(self, rows: Grants) -> None:
        """Replace all rows of the four tables, and delete all jobs."""

        def fill(connection: Connection) -> None:
            for table in (job_queue, job_access, job_offers, job_counts, running_locks):
                connection.execute(delete(table))
            for table, found in (
                (users_allowed, rows.users_allowed),
                (groups_allowed, rows.groups_allowed),
                (users_denied, rows.users_denied),
                (groups_denied, rows.groups_denied),
            ):
                connection.execute(delete(table))
                for row in found:
                    connection.execute(insert(table).values(attrs.astuple(row)))

        self.run_in(fill)

    async def test_denied_wins_and_no_limit_is_passed(self) -> None:
        """Whatever the rows: at once, users and resources get exactly what they would get one after the other."""
        self.register()
        projects = [self.project(), self.project()]
        here: Any = reactor

        async def check(rows: Grants, user: str, groups: tuple[str, ...]) -> None:
            self.grant(rows)
            taken = await self.submitted(projects, [User(name=user, groups=groups)], SUBMISSIONS // 2)
            self.assertEqual(taken, len(expected(rows, [[(user, groups)]] * SUBMISSIONS)))
            self.grant(rows)
            owners = (user, *(group for group in groups if group != user))
            found = await self.handed_in(projects, [owners] * SUBMISSIONS)
            each = [(owner, (owner,)) for owner in owners]
            self.assertCountEqual(found, expected(rows, [each] * SUBMISSIONS))

        @settings(max_examples=15)
        @given(grants, few_people, st.lists(few_people, min_size=1, max_size=3, unique=True))
        def test(rows: Grants, user: str, groups: list[str]) -> None:
            checked: Any = lambda: Deferred.fromCoroutine(check(rows, user, tuple(groups)))  # noqa: E731
            blockingCallFromThread(here, checked)

        await deferToThread(test)

    def test_resource_comes_back_as_it_was_registered(self) -> None:
        number = self.register(applications=("hello_world", "lj_md"))
        found = self.run_in(fetch_resource, RESOURCE)
        assert found is not None
        self.assertEqual((found.resource_id, found.resource_name, found.url), (number, RESOURCE, RESOURCE))
        self.assertEqual(found.client_certificate, f"certificate of {RESOURCE}")
        self.assertEqual(found.resource_capabilities, "<hello_world>  </hello_world> <lj_md>  </lj_md>")
        self.assertEqual((found.project_server, found.last_call_time), (ServerFlag.NONE, 0))
        self.assertIsNone(self.run_in(fetch_resource, RESOURCE.upper()))
        self.run_in(touch, found, NOW)
        touched = self.run_in(fetch_resource, RESOURCE)
        assert touched is not None
        self.assertEqual(touched.last_call_time, NOW)

    def test_registering_again_keeps_the_number_and_the_capabilities(self) -> None:
        number = self.register()
        again = self.run_in(
            register, name=RESOURCE, certificate="new", url="u", project_server=ServerFlag.SLAVE, capabilities=""
        )
        found = self.run_in(fetch_resource, RESOURCE)
        assert found is not None
        self.assertEqual((again, found.client_certificate, found.url), (number, "new", "u"))
        self.assertEqual(found.resource_capabilities, "<hello_world>  </hello_world>")
        self.assertEqual(self.offering(APPLICATION), {RESOURCE})

    def test_servers_and_resources_are_listed_apart(self) -> None:
        first, second = self.register("z@host"), self.register("a@host")
        for name, flag in (("m@host", ServerFlag.MASTER), ("s@host", ServerFlag.SLAVE)):
            self.run_in(register, name=name, certificate="c", url=f"https://{name}/LGI", project_server=flag)
        self.assertEqual([found.resource_id for found in self.run_in(list_resources)], [first, second])
        self.assertEqual([found.project_server for found in self.run_in(list_servers)], [1, 2])
        self.assertEqual(self.run_in(list_names), ["a@host", "m@host", "s@host", "z@host"])

    def offering(self, application: str) -> frozenset[str]:
        """Which resources offer an application."""
        return self.run_in(fetch_grants, [], [], application).offered_by

    def test_what_is_offered_follows_the_capabilities(self) -> None:
        self.register("r1", ("hello_world", "lj_md"))
        self.register("r2", ("hello_world",))
        self.assertEqual(self.offering("hello_world"), {"r1", "r2"})
        self.assertEqual(self.offering("lj_md"), {"r1"})
        self.assertEqual(self.offering("LJ_MD"), set())
        resource = self.run_in(fetch_resource, "r1")
        assert resource is not None
        self.run_in(set_capabilities, resource, "<new> <lj_md> 1 </lj_md> </new> <new> twice </new>")
        self.assertEqual(self.offering("lj_md"), set())
        self.assertEqual(self.offering("new"), {"r1"})
        self.run_in(set_capabilities, resource, "")
        self.assertEqual(self.offering("new"), set())

    def test_capabilities_that_cannot_be_kept_are_refused_whole(self) -> None:
        self.register("r1")
        resource = self.run_in(fetch_resource, "r1")
        assert resource is not None
        name = "a" * 255
        error = self.assertRaises(LGIError, self.run_in, set_capabilities, resource, f"<{name}> 1 </{name}>")
        self.assertEqual(error.number, ErrorNumber.CAPABILITIES_TOO_BIG)
        self.assertEqual(self.run_in(fetch_resource, "r1"), resource)
        self.assertEqual(self.offering(APPLICATION), {"r1"})


def finish_two(connection: Connection) -> None:
    """Let the first two jobs be finished."""
    first = connection.scalars(select(job_queue.c.job_id).order_by(job_queue.c.job_id).limit(2)).all()
    for job_id in first:
        job = fetch_job(connection, job_id)
        assert job is not None
        update_job(connection, job, {"state": "finished"})


def expected(rows: Grants, submissions: Sequence[Sequence[tuple[str, tuple[str, ...]]]]) -> list[tuple[str, ...]]:
    """The owners of the jobs that come of these submissions, one after the other.

    Of each its users with their groups: a resource names several owners, each a user of his own group.
    """
    jobs: list[tuple[str, ...]] = []
    for submission in submissions:
        owners: dict[str, None] = {}
        for user, groups in submission:
            for permit in permits(user, groups, APPLICATION, rows):
                held = sum(permit.owner in job for job in jobs)
                if leaves_room(permit.grant, held, held):
                    denied = denied_groups(groups, APPLICATION, rows)
                    owners |= dict.fromkeys((user, *(group for group in groups if group not in denied)))
                    break
        if owners:
            jobs.append(tuple(owners))
    return jobs
