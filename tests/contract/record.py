"""The contract of the record of jobs: a following reader sees each entry once, those of a job in their order."""

from __future__ import annotations

from collections import Counter
from threading import Event

from sqlalchemy import Connection

from lgi.db.jobs import fetch_job
from lgi.db.log import GAP_SECONDS, LogReader, record, record_changes
from lgi.model import LogEntry
from tests.contract.case import NOW, ContractCase
from tests.contract.statements import send_now

WRITERS = 8
JOBS = 4
TIMES = 24


class _RolledBack(Exception):
    """Ends a writer's transaction."""


class RecordContract(ContractCase):
    """On all databases."""

    def follow(self, reader: LogReader, now: float = 0.0, limit: int = 1000) -> list[LogEntry]:
        """What the reader finds at a moment."""
        with self.engine.connect().execution_options(lgi_reading=True) as connection, connection.begin():
            return reader.read(connection, now, limit)

    def write(self, job_id: int, detail: str) -> None:
        """Add an entry."""
        self.run_in(_write, job_id, detail)

    def test_from_the_beginning_and_on(self) -> None:
        reader = LogReader()
        self.assertEqual(self.follow(reader), [])
        for detail in "abc":
            self.write(7, detail)
        self.assertEqual([entry.detail for entry in self.follow(reader, limit=2)], ["a", "b"])
        self.assertEqual([entry.detail for entry in self.follow(reader, limit=2)], ["c"])
        self.assertEqual(self.follow(reader), [])
        self.run_in(
            record_changes, [(8, "x"), (9, "y")], to_state="deleted", actor="administrator", detail="d", now=NOW
        )
        found = self.follow(reader)
        self.assertEqual([(entry.job_id, entry.from_state) for entry in found], [(8, "x"), (9, "y")])
        again = LogReader(since=found[0].number)
        self.assertEqual(self.follow(again), found[1:])

    def test_one_job(self) -> None:
        for job_id, detail in ((1, "a"), (2, "b"), (1, "c")):
            self.write(job_id, detail)
        reader = LogReader(job_id=1)
        self.assertEqual([entry.detail for entry in self.follow(reader, limit=1)], ["a"])
        self.assertEqual([entry.detail for entry in self.follow(reader)], ["c"])
        self.assertEqual(self.follow(reader), [])

    def test_eight_writers(self) -> None:
        jobs = [self.submit() for _ in range(JOBS)]
        engine = self.new_engine(WRITERS)
        reader = LogReader()
        followed: list[LogEntry] = []
        done = Event()
        left = list(range(WRITERS))

        def write(index: int) -> None:
            try:
                for turn in range(TIMES):
                    job_id = jobs[(index + turn) % JOBS]
                    try:
                        with engine.begin() as connection:
                            # What changes a job holds it.
                            assert fetch_job(connection, job_id, for_update=True) is not None
                            _write(connection, job_id, f"{index}.{turn}")
                            if (index + turn) % 5 == 0:
                                raise _RolledBack
                    except _RolledBack:
                        pass
            finally:
                left.pop()
                if not left:
                    done.set()

        def run(index: int) -> None:
            if index < WRITERS:
                write(index)
                return
            while not done.is_set():
                followed.extend(self.follow(reader, limit=7))
            while more := self.follow(reader, limit=7):
                followed.extend(more)

        self.at_once(WRITERS + 1, run)
        wanted = Counter(f"{index}.{turn}" for index in range(WRITERS) for turn in range(TIMES) if (index + turn) % 5)
        self.assertEqual(Counter(entry.detail for entry in followed if entry.detail), wanted)
        self.assertEqual(len(followed), wanted.total() + JOBS)
        for job_id in jobs:
            numbers = [entry.number for entry in followed if entry.job_id == job_id]
            self.assertEqual(numbers, sorted(numbers))
            mine = [entry.detail for entry in followed if entry.job_id == job_id]
            for index in range(WRITERS):
                turns = [int(detail.split(".")[1]) for detail in mine if detail.startswith(f"{index}.")]
                self.assertEqual(turns, sorted(turns))


class LateContract(RecordContract):
    """On a database server, where writers do not take turns."""

    def test_late_and_never(self) -> None:
        """A number that commits late is not skipped, one that never comes is not waited for forever."""
        late, never = self.engine.connect(), self.engine.connect()
        self.addCleanup(late.close)
        self.addCleanup(never.close)
        self.write(1, "first")
        (first,) = self.follow(LogReader())
        reader = LogReader(since=first.number)
        _write(late, 2, "late")
        _write(late, 2, "later")
        _write(never, 3, "never")
        self.write(4, "last")
        self.assertEqual([entry.detail for entry in self.follow(reader, 10)], ["last"])
        self.assertEqual(reader.settled, first.number)
        self.assertEqual(self.follow(reader, 11), [])
        late.commit()
        never.rollback()
        self.assertEqual([entry.detail for entry in self.follow(reader, 12, limit=1)], ["late"])
        self.assertEqual([entry.detail for entry in self.follow(reader, 12)], ["later"])
        self.assertEqual(reader.settled, first.number + 2)
        self.assertEqual(self.follow(reader, 10 + GAP_SECONDS - 1), [])
        self.assertEqual(reader.settled, first.number + 2)
        self.assertEqual(self.follow(reader, 10 + GAP_SECONDS), [])
        self.assertEqual(reader.settled, first.number + 4)

    def test_at_the_last_moment(self) -> None:
        """What commits just before its time is up is seen, also when nobody looked in between."""
        reader = LogReader()
        with self.engine.connect() as late:
            _write(late, 2, "late")
            self.write(4, "last")
            self.assertEqual([entry.detail for entry in self.follow(reader)], ["last"])
            late.commit()
        self.assertEqual([entry.detail for entry in self.follow(reader, 10 * GAP_SECONDS)], ["late"])
        self.assertEqual(self.follow(reader, 10 * GAP_SECONDS), [])


def _write(connection: Connection, job_id: int, detail: str) -> None:
    record(connection, job_id=job_id, from_state="a", to_state="b", actor="test", detail=detail, now=NOW)
    send_now(connection)
