"""A full queue, and a project on it whose use cases are called as the HTTP side calls them."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, insert
from twisted.internet import reactor

from lgi.config import LimitsSection
from lgi.db.counts import recounted, settle_counts
from lgi.db.database import Database
from lgi.db.schema import job_access, job_offers, job_queue
from lgi.httpd.peer import Caller
from lgi.identity import parse_common_name
from lgi.repository.files import Repositories
from lgi.server.news import News
from lgi.server.project import Project
from tests.contract.case import APPLICATION, NOW, THREADS, ContractCase

MARKS = 20


def caller(name: str) -> Caller:
    """A resource that `ContractCase.register` has registered."""
    return Caller(identity=parse_common_name(f"{name}; LGI"), certificate=f"certificate of {name}")


def fill(connection: Connection, jobs: int, named: tuple[str, ...] = ()) -> None:
    """Add queued jobs in bulk; every third one is for one of `named`, if there are any.

    One in MARKS is mark's and of the group theor, the others belong to users with five jobs each.
    """

    def owner(number: int) -> str:
        return f"user{number // 5}" if number % MARKS else "mark"

    def group(number: int) -> str:
        return "chem" if number % MARKS else "theor"

    def target(number: int) -> str:
        return named[number % len(named)] if named and number % 3 == 0 else "any"

    numbers = range(1, jobs + 1)
    row = {
        "state": "queued",
        "application": APPLICATION,
        "input": b"",
        "output": b"",
        "job_specifics": "",
        "lock_state": 0,
        "state_time_stamp": NOW,
        "daemon_pulse": 0,
        "priority": NOW,
    }
    connection.execute(
        insert(job_queue),
        [
            row
            | {
                "job_id": number,
                "repository": f"JOB_bulk{number}",
                "target_resources": target(number),
                "owners": f"{owner(number)}, {group(number)}",
                "read_access": f"admin, {owner(number)}",
                "write_access": f"admin, {owner(number)}",
            }
            for number in numbers
        ],
    )
    connection.execute(
        insert(job_access),
        [
            {"kind": kind, "name": name, "job_id": number}
            for number in numbers
            for kind, name in (
                ("o", owner(number)),
                ("o", group(number)),
                ("r", "admin"),
                ("r", owner(number)),
                ("w", "admin"),
                ("w", owner(number)),
            )
        ],
    )
    connection.execute(
        insert(job_offers),
        [
            {"application": APPLICATION, "target": target(number), "priority": NOW, "job_id": number}
            for number in numbers
        ],
    )
    settle_counts(connection, recounted(connection))


class LoadCase(ContractCase):
    """A test with use cases; `time` is the second that they see."""

    def setUp(self) -> None:
        """Begin at NOW."""
        super().setUp()
        self.time = NOW

    def project(self) -> Project:
        """The project on the test's database as one server process has it."""
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
            now=lambda: self.time,
        )
