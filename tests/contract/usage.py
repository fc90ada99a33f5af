"""The contract of the accounts: what files take is counted with the job, and no limit is passed, by however many."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from lgi.db.jobs import delete_job
from lgi.db.schema import job_queue, user_usage
from lgi.db.usage import (
    AccountFull,
    Charge,
    charge,
    discharge,
    recount,
    reserve,
    settle_account,
    sums,
    used_by,
)
from tests.contract.case import NOW, THREADS, ContractCase

GIB = 1 << 30


class UsageContract(ContractCase):
    """See `DatabaseContract`."""

    def used(self, user: str = "mark") -> int:
        return self.run_in(used_by, user)

    def counted(self) -> dict[str, int]:
        """What each repository counts with."""
        columns = select(job_queue.c.repository, job_queue.c.repository_size)
        return self.run_in(lambda connection: {row[0]: row[1] for row in connection.execute(columns)})

    def with_files(self, size: int, owners: Sequence[str] = ("mark", "theor")) -> tuple[int, str]:
        """A job whose files are counted; its number and its repository."""
        job_id = self.submit(repository_size=size, owners=tuple(owners))
        self.run_in(charge, owners[0], size)
        return job_id, self.fetch(job_id).repository

    def test_an_account_begins_grows_and_shrinks(self) -> None:
        self.assertEqual(self.used(), 0)
        self.run_in(charge, "mark", 5 * GIB)
        self.run_in(charge, "mark", 2)
        self.run_in(charge, "Mark", 1)
        self.assertEqual((self.used(), self.used("Mark"), self.used("%")), (5 * GIB + 2, 1, 0))
        self.run_in(discharge, "mark", 3)
        self.assertEqual(self.used(), 5 * GIB - 1)
        self.run_in(discharge, "mark", 6 * GIB)
        self.assertEqual(self.used(), 0)
        self.run_in(discharge, "nobody", 1)
        self.assertEqual(self.used("nobody"), 0)

    def test_a_limit_is_reached_and_not_passed(self) -> None:
        self.assertRaises(AccountFull, self.run_in, charge, "mark", 11, 10)
        self.run_in(charge, "mark", 10, 10)
        self.assertRaises(AccountFull, self.run_in, charge, "mark", 1, 10)
        self.run_in(charge, "piet", 10, 10)
        self.run_in(charge, "mark", 1, 0)
        self.assertEqual((self.used(), self.used("piet")), (11, 10))

    def test_a_job_and_its_owner_are_counted_together(self) -> None:
        _job, repository = self.with_files(10)
        _other, others = self.with_files(1)
        self.assertEqual(self.run_in(reserve, repository, 5), Charge(user="mark", size=5))
        self.assertEqual((self.used(), self.counted()), (16, {repository: 15, others: 1}))
        self.assertEqual(self.run_in(reserve, repository, -7), Charge(user="mark", size=-7))
        self.assertEqual((self.used(), self.counted()), (9, {repository: 8, others: 1}))
        self.assertEqual(self.run_in(reserve, repository, 0), Charge(user="mark", size=0))
        self.assertRaises(AccountFull, self.run_in, reserve, repository, 2, user_limit=10)
        self.assertEqual((self.used(), self.counted()), (9, {repository: 8, others: 1}))
        # What shrinks is never refused, also where the limit was once higher.
        self.assertEqual(self.run_in(reserve, repository, -1, user_limit=3), Charge(user="mark", size=-1))

    def test_no_more_is_taken_off_than_was_counted(self) -> None:
        """As with files that were there before anything was counted."""
        _job, repository = self.with_files(3)
        self.run_in(charge, "mark", 10)
        self.assertEqual(self.run_in(reserve, repository, -100), Charge(user="mark", size=-3))
        self.assertEqual((self.used(), self.counted()), (10, {repository: 0}))

    def test_a_repository_without_a_job_is_not_counted(self) -> None:
        self.assertIsNone(self.run_in(reserve, "JOB_none", 5, user_limit=1))
        self.assertFalse(self.run_in(recount, "JOB_none", 5))
        self.assertEqual(self.run_in(sums), ({}, {}))

    def test_recounting(self) -> None:
        _job, repository = self.with_files(3)
        for size in (8, 8, 2, 0, 5):
            self.assertTrue(self.run_in(recount, repository, size))
            self.assertEqual((self.used(), self.counted()), (size, {repository: size}))

    def test_a_deleted_job_does_not_count(self) -> None:
        job_id, repository = self.with_files(10)
        kept, _others = self.with_files(4)
        self.run_in(reserve, repository, 5)
        self.assertTrue(self.run_in(delete_job, self.fetch(job_id), actor="mark", now=NOW))
        self.assertEqual(self.used(), 4)
        # What comes too late finds nothing.
        self.assertIsNone(self.run_in(reserve, repository, -5))
        self.assertTrue(self.run_in(delete_job, self.fetch(kept), actor="mark", now=NOW))
        self.assertEqual(self.run_in(sums), ({}, {}))

    def test_what_accounts_say_and_should_say(self) -> None:
        self.with_files(3, ("piet", "mark"))
        _job, repository = self.with_files(4)
        self.assertEqual(self.run_in(sums), ({"mark": 4, "piet": 3},) * 2)

        def spoil(connection: Connection) -> None:
            connection.execute(update(user_usage).where(user_usage.c.user_name == "piet").values(size=9))
            connection.execute(
                update(job_queue).where(job_queue.c.repository == repository).values(repository_size=6)
            )
            charge(connection, "jan", 2)

        self.run_in(spoil)
        said, due = self.run_in(sums)
        self.assertEqual((said, due), ({"mark": 4, "piet": 9, "jan": 2}, {"mark": 6, "piet": 3}))
        # In between somebody else's change is kept.
        self.run_in(charge, "mark", 100)
        for user in said.keys() | due.keys():
            self.run_in(settle_account, user, due.get(user, 0) - said.get(user, 0))
        self.assertEqual(self.run_in(sums), ({"mark": 106, "piet": 3}, due))

    def test_many_at_once_do_not_pass_the_limit_together(self) -> None:
        repositories = [self.with_files(1)[1] for _ in range(3)]
        limit = 3 + 5 * 10
        full: list[int] = []

        def upload(number: int) -> None:
            try:
                self.run_in(reserve, repositories[number % 3], 10, user_limit=limit)
            except AccountFull:
                full.append(number)

        self.at_once(THREADS, upload)
        self.assertEqual((len(full), self.used()), (THREADS - 5, limit))
        self.assertEqual(sum(self.counted().values()), limit)

    def test_an_account_is_opened_once(self) -> None:
        self.at_once(THREADS, lambda _number: self.run_in(charge, "mark", 1))
        self.assertEqual(self.used(), THREADS)
