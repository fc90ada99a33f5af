"""The contract of the counts: they say what counting the jobs says, whatever has happened, by however many."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from lgi.admin.oversight import abort, purge
from lgi.admin.snapshots import snapshots
from lgi.db.consistency import check_counts
from lgi.db.counts import OWNERS, READERS, SLOTS, Recount, Tally, recounted, set_of, settle_counts
from lgi.db.jobs import count_owned, count_readable, delete_job, fetch_job, insert_job, update_job, withdraw
from lgi.db.locks import lock_job, unlock_jobs
from lgi.db.schema import access_sets, job_access, job_counts, job_queue
from lgi.db.trouble import contended
from lgi.lists import ANY
from lgi.repository.names import new_repository_name
from lgi.scheduler.work import see_to_lost_jobs
from lgi.states import JobState
from tests.contract.case import NOW, ContractCase, job

NAMES = ("mark", "piet", "theor", "admin", ANY)
APPLICATIONS = ("hello_world", "lj_md")
STATES = ("queued", "running", "aborting", "aborted", "finished")
ACTIONS = ("submit", "submit", "update", "delete", "abort", "lost", "purge", "lock", "rolled back")

LISTS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)
STEPS = st.lists(
    st.tuples(st.sampled_from(ACTIONS), LISTS, LISTS, st.sampled_from(APPLICATIONS), st.integers(0, 99)),
    min_size=1,
    max_size=12,
)


class _RolledBack(Exception):
    pass


def readable(connection: Connection, names: Sequence[str], state: str, application: str) -> int:
    """What `count_readable` should say, read from the jobs themselves."""
    found = (
        select(func.count(job_access.c.job_id.distinct()))
        .select_from(job_access.join(job_queue, job_queue.c.job_id == job_access.c.job_id))
        .where(job_access.c.kind == "r", job_access.c.name.in_([*names, ANY]))
    )
    if state != ANY:
        found = found.where(job_queue.c.state != state[1:] if state[0] == "!" else job_queue.c.state == state)
    if application != ANY:
        found = found.where(job_queue.c.application == application)
    return int(connection.scalar(found) or 0)


def owned(connection: Connection, owner: str, application: str) -> tuple[int, int]:
    """What `count_owned` should say, read from the jobs themselves."""
    found = (
        select(job_queue.c.state)
        .select_from(job_access.join(job_queue, job_queue.c.job_id == job_access.c.job_id))
        .where(job_access.c.kind == "o", job_access.c.name == owner)
    )
    if application != ANY:
        found = found.where(job_queue.c.application == application)
    states = list(connection.scalars(found))
    return sum(state in ("queued", "running") for state in states), len(states)


class CountsContract(ContractCase):
    """See `DatabaseContract`."""

    def assert_exact(self) -> None:
        """Every count is what the jobs say."""
        self.assertEqual(self.run_in(recounted), Recount(differences={}, sets={}))
        with self.engine.begin() as connection:
            for application in (*APPLICATIONS, ANY):
                for owner in NAMES:
                    self.assertEqual(
                        count_owned(connection, owner, application), owned(connection, owner, application)
                    )
                for names in (("mark",), ("mark", "theor"), ("nobody",), ("piet", "admin", "mark"), (ANY,)):
                    for state in (*STATES, "!queued", ANY):
                        number = count_readable(connection, names, state=state, application=application)
                        self.assertEqual(number, readable(connection, names, state, application), (names, state))

    def _step(self, action: str, owners: Sequence[str], readers: Sequence[str], application: str, seed: int) -> None:
        """One transaction, or none where there is nothing to do."""

        def act(connection: Connection) -> None:
            if action in ("submit", "rolled back"):
                new = job(
                    owners=tuple(owners),
                    read_access=tuple(readers),
                    application=application,
                    repository=new_repository_name(),
                )
                insert_job(connection, new, actor="mark")
                if action == "rolled back":
                    raise _RolledBack
                return
            numbers = list(connection.scalars(select(job_queue.c.job_id).order_by(job_queue.c.job_id)))
            if action == "lost":
                see_to_lost_jobs(connection, NOW + 100, 10)
            elif action == "purge":
                purge(connection, numbers, NOW + 1, NOW)
            elif numbers:
                found = fetch_job(connection, numbers[seed % len(numbers)], for_update=True)
                if found is None or found.lock_state:
                    return
                if action == "update":
                    # Also to the state that it has; as every caller does, who holds the job locked, without an offer.
                    withdraw(connection, [found.job_id])
                    update_job(connection, found, {"state": STATES[seed % len(STATES)]})
                elif action == "abort" and found.state in (JobState.QUEUED, JobState.RUNNING):
                    abort(connection, found.job_id, NOW)
                elif action == "delete":
                    delete_job(connection, found, actor="mark", now=NOW)

        try:
            if action == "lock":
                self._lock_and_unlock(seed)
            else:
                self.run_in(act)
        except _RolledBack:
            pass

    def _lock_and_unlock(self, seed: int) -> None:
        def both(connection: Connection) -> None:
            numbers = list(connection.scalars(select(job_queue.c.job_id).where(job_queue.c.lock_state == 0)))
            if numbers:
                job_id = numbers[seed % len(numbers)]
                lock_job(connection, job_id, resource_id=1, session_id=1, now=NOW)
                unlock_jobs(connection, [job_id])

        self.run_in(both)

    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
    )
    @given(STEPS)
    def test_counts_are_those_of_the_jobs_after_anything(
        self, steps: list[tuple[str, list[str], list[str], str, int]]
    ) -> None:
        for step in steps:
            self._step(*step)
        self.assert_exact()

    def test_counts_are_those_of_the_jobs_after_many_at_once(self) -> None:
        """Contention is repeated, as `Database` does; a deadlock of ours would show as one that never ends."""

        def work(index: int) -> None:
            chosen = random.Random(index)
            for number in range(12):
                # No purge and no lost jobs: they take many jobs in turn, and that is tested elsewhere.
                action = "submit" if number < 4 else chosen.choice(("submit", "update", "delete", "rolled back"))
                lists = (chosen.sample(NAMES, 2), chosen.sample(NAMES, 2))
                step = (action, *lists, chosen.choice(APPLICATIONS), chosen.randrange(99))
                for _attempt in range(20):
                    try:
                        self._step(*step)
                        break
                    except DBAPIError as problem:
                        if not contended(problem):
                            raise
                else:
                    raise AssertionError(f"{step} is never let through")

        self.at_once(4 if self.engine.dialect.name == "sqlite" else 8, work)
        self.assert_exact()

    def test_changes_of_one_set_at_once_do_not_deadlock(self) -> None:
        """More connections than slots, all with the same four counts."""
        numbers = [self.submit() for _ in range(2 * SLOTS)]

        def work(index: int) -> None:
            for state in ("running", "queued", "aborting", "queued", "finished"):
                found = self.fetch(numbers[index])
                self.assertTrue(self.run_in(update_job, found, {"state": state}))

        self.at_once(len(numbers) if self.engine.dialect.name != "sqlite" else 4, work)
        self.assert_exact()

    def test_a_set_is_its_names_in_any_order(self) -> None:
        self.assertEqual(set_of(("a", "b")), set_of(("b", "a", "b")))
        self.assertNotEqual(set_of(("a", "b")), set_of(("a, b", "")))
        self.assertEqual(len({set_of(names) for names in ((), ("a",), ("b",), ("A",), ("a", "b"))}), 5)
        self.submit(owners=("piet", "mark"), read_access=("b", "a"))
        self.submit(owners=("mark", "piet"), read_access=("a", "b"))
        self.assertEqual(len(self.run_in(lambda by: by.execute(select(access_sets)).all())), 4)
        self.assertEqual(self.run_in(count_owned, "piet", ANY), (2, 2))

    def test_a_tally_that_comes_to_nothing_writes_nothing(self) -> None:
        tally = Tally()
        tally.move(("a",), ("b",), "x", "queued", "running")
        tally.move(("a",), ("b",), "x", "running", "queued")
        self.run_in(tally.write)
        self.assertEqual(self.run_in(lambda by: by.execute(select(job_counts)).all()), [])

    def test_wrong_counts_are_found_and_mended(self) -> None:
        for readers in (("mark",), ("admin", "mark"), ("piet",)):
            self.submit(read_access=readers)
        mine, all_of_us = set_of(("mark",)), set_of(("mark", "theor"))

        def spoil(connection: Connection) -> None:
            of_mine = (job_counts.c.kind == READERS, job_counts.c.set_id == mine)
            connection.execute(update(job_counts).where(*of_mine).values(number=5))
            connection.execute(
                delete(job_counts).where(job_counts.c.kind == OWNERS, job_counts.c.set_id == all_of_us)
            )
            key = {"kind": "r", "set_id": set_of(("x",)), "application": "y", "state": "queued", "slot": 3}
            connection.execute(insert(job_counts), key | {"number": -2})
            connection.execute(delete(access_sets).where(access_sets.c.set_id == set_of(("piet",))))
            connection.execute(insert(access_sets), {"name": "y", "set_id": mine})
            connection.execute(insert(access_sets), {"name": "z", "set_id": "0" * 32})

        self.run_in(spoil)
        with snapshots(self.url) as look:
            found = look(check_counts)
        self.assertEqual([problem.table for problem, _mending in found], ["job_counts"] * 3 + ["access_sets"] * 3)
        off = [problem.text.rpartition(": ")[2] for problem, _mending in found[:3]]
        self.assertEqual(sorted(off), ["the count is +4 off", "the count is -2 off", "the count is -3 off"])
        # In between somebody else's change is kept.
        self.submit(read_access=("mark",))
        for _problem, mending in found:
            self.run_in(settle_counts, mending)
        self.assert_exact()
        with snapshots(self.url) as look:
            self.assertEqual(look(check_counts), [])
