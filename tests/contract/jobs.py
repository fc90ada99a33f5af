"""The contract of jobs: stored, found, changed, listed, counted, removed."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import attrs
from sqlalchemy import Connection, select

from lgi.db.jobs import (
    count_owned,
    count_readable,
    delete_job,
    fetch_job,
    insert_job,
    insert_last_job,
    list_readable,
    update_job,
    without_pulse,
)
from lgi.db.locks import lock_job
from lgi.db.log import entries_of_job
from lgi.db.pulses import write_pulses
from lgi.db.schema import job_access, job_log, job_offers, job_queue
from lgi.errors import ErrorNumber, LGIError
from lgi.lists import encode_list
from lgi.states import JobState
from tests.contract.case import NOW, ContractCase, job, rows


class JobsContract(ContractCase):
    """See `DatabaseContract`."""

    def test_job_comes_back_as_it_was_stored(self) -> None:
        stored = job(
            target_resources=("r1@a", "r2@b"),
            owners=("mark", "theor"),
            read_access=("admin", "mark", "any"),
            write_access=("admin",),
            job_specifics="<nprocs> 2 </nprocs>",
            daemon_pulse=NOW + 3,
            priority=NOW + 9,
            input=b"in",
            output=b"out",
            repository="JOB_1",
        )
        job_id = self.run_in(insert_job, stored, actor="mark")
        found = self.fetch(job_id)
        self.assertEqual(found, attrs.evolve(stored, job_id=job_id))

    def test_job_that_is_the_last_of_its_transaction_comes_back_too(self) -> None:
        """With all that is held beside it, whatever its bytes are and however many."""
        for size in (1, 255, 20_000):
            one = job(
                owners=("mark", "theor"),
                input=bytes(range(256)) * size,
                output=b"'; COMMIT; END \\",
                job_specifics="<n> it's; END </n>",
                repository=f"JOB_{size}",
            )
            done: list[str] = []
            job_id = self.run_in(insert_last_job, one, actor="mark", complete=partial(done.append, "done"))
            self.assertEqual(done, ["done"])
            self.assertEqual(self.fetch(job_id), attrs.evolve(one, job_id=job_id))
            [entry] = self.run_in(entries_of_job, job_id)
            self.assertEqual((entry.job_id, entry.to_state, entry.actor), (job_id, "queued", "mark"))
            named = self.run_in(
                lambda connection, job_id=job_id: connection.scalars(
                    select(job_access.c.name).where(job_access.c.job_id == job_id, job_access.c.kind == "o")
                ).all()
            )
            self.assertEqual(sorted(named), ["mark", "theor"])
        self.assertEqual(self.run_in(rows, job_offers), 3)
        self.assertEqual(self.run_in(count_owned, "mark", "any"), (3, 3))

    def test_job_that_is_not_completed_is_not_stored(self) -> None:
        def refuse() -> None:
            raise LGIError(ErrorNumber.SUBMIT_REFUSED)

        for complete in (refuse, lambda: None):
            one = job(repository="JOB_1", input=b"x")
            with suppress(LGIError):
                self.run_in(insert_last_job, one, actor="mark", complete=complete)
            stored = 1 if complete is not refuse else 0
            for table in (job_queue, job_offers, job_log):
                self.assertEqual(self.run_in(rows, table), stored)

    def test_blobs_are_left_out_unless_they_are_asked_for(self) -> None:
        job_id = self.submit(input=b"in", output=b"out")
        found = self.run_in(fetch_job, job_id)
        assert found is not None
        self.assertEqual((found.input, found.output), (None, None))

    def test_absent_blobs_are_stored_empty(self) -> None:
        found = self.fetch(self.submit())
        self.assertEqual((found.input, found.output), (b"", b""))

    def test_unknown_job_is_none(self) -> None:
        self.assertIsNone(self.run_in(fetch_job, 1))
        self.assertIsNone(self.run_in(fetch_job, 10**18, blobs=True, for_update=True))

    def test_numbers_are_never_given_out_twice(self) -> None:
        first = self.submit()
        self.assertTrue(self.run_in(delete_job, self.fetch(first), actor="mark", now=NOW))
        self.assertGreater(self.submit(), first)

    def test_submission_that_fails_leaves_nothing(self) -> None:
        def fail(connection: Connection) -> None:
            insert_job(connection, job(repository="JOB_1"), actor="mark")
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.run_in, fail)
        for table in (job_queue, job_access, job_offers, job_log):
            self.assertEqual(self.run_in(rows, table), 0, table.name)

    def test_repository_belongs_to_one_job(self) -> None:
        self.run_in(insert_job, job(repository="JOB_1"), actor="mark")
        with self.assertRaisesRegex(Exception, "(?i)unique|duplicate"):
            self.run_in(insert_job, job(repository="JOB_1"), actor="mark")
        self.assertEqual(self.run_in(rows, job_queue), 1)

    def test_update_is_conditional_on_the_state(self) -> None:
        job_id = self.submit()
        before = self.fetch(job_id)
        self.assertTrue(self.run_in(update_job, before, {"state": "running", "state_time_stamp": NOW + 1}))
        self.assertFalse(self.run_in(update_job, before, {"state": "aborted", "output": b"late"}))
        after = self.fetch(job_id)
        self.assertEqual((after.state, after.state_time_stamp, after.output), (JobState.RUNNING, NOW + 1, b""))

    def test_update_that_changes_nothing_still_succeeds(self) -> None:
        # MariaDB counts rows that changed unless it is told to count rows that were found.
        found = self.fetch(self.submit())
        self.assertTrue(self.run_in(update_job, found, {"state": "queued"}))

    def test_update_of_a_job_that_is_gone_fails(self) -> None:
        found = self.fetch(self.submit())
        self.run_in(delete_job, found, actor="mark", now=NOW)
        self.assertFalse(self.run_in(update_job, found, {"state": "queued"}))

    def test_delete_removes_all_of_a_job_and_is_recorded(self) -> None:
        job_id = self.submit(target_resources=("r1@a", "r2@b"))
        self.assertTrue(self.run_in(delete_job, self.fetch(job_id), actor="piet", now=NOW + 5))
        for table in (job_queue, job_access, job_offers):
            self.assertEqual(self.run_in(rows, table), 0, table.name)
        last = self.run_in(entries_of_job, job_id)[-1]
        self.assertEqual(
            (last.from_state, last.to_state, last.actor, last.time), ("queued", "deleted", "piet", NOW + 5)
        )

    def test_delete_of_a_locked_or_changed_job_changes_nothing(self) -> None:
        locked, changed = self.submit(), self.submit()
        stale = self.fetch(changed)
        self.run_in(lock_job, locked, resource_id=1, session_id=1, now=NOW)
        self.run_in(update_job, stale, {"state": "running"})
        offers = self.run_in(rows, job_offers)
        self.assertFalse(self.run_in(delete_job, self.fetch(locked), actor="mark", now=NOW))
        self.assertFalse(self.run_in(delete_job, stale, actor="mark", now=NOW))
        self.assertEqual(self.run_in(rows, job_queue), 2)
        self.assertEqual(self.run_in(rows, job_offers), offers)
        self.assertEqual(len(self.run_in(entries_of_job, locked)), 1)

    def _ids(
        self, *names: str, state: str = "any", application: str = "any", start: int = 0, limit: int = 99
    ) -> list[int]:
        listed = self.run_in(list_readable, names, state=state, application=application, start=start, limit=limit)
        return [found.job_id for found in listed]

    def test_list_holds_what_any_of_the_names_may_read_once_each(self) -> None:
        marks = self.submit(read_access=("admin", "mark", "theor"))
        piets = self.submit(read_access=("piet",))
        everybodys = self.submit(read_access=("any", "mark"))
        self.assertEqual(self._ids("mark", "theor"), [marks, everybodys])
        self.assertEqual(self._ids("piet"), [piets, everybodys])
        self.assertEqual(self._ids("admin"), [marks, everybodys])
        self.assertEqual(self._ids("nobody"), [everybodys])
        self.assertEqual(self._ids("any"), [everybodys])

    def test_owning_or_writing_is_not_reading(self) -> None:
        self.submit(owners=("mark",), write_access=("mark",), read_access=("piet",))
        self.assertEqual(self._ids("mark"), [])

    def test_list_filters_by_state_and_application(self) -> None:
        queued = self.submit()
        running = self.submit(state=JobState.RUNNING)
        other = self.submit(application="lj_md")
        for state, application, expected in (
            ("any", "any", [queued, running, other]),
            ("", "", [queued, running, other]),
            ("queued", "any", [queued, other]),
            ("Queued", "any", [queued, other]),
            ("!queued", "any", [running]),
            ("! queued", "any", [running]),
            ("any", "lj_md", [other]),
            ("any", "!lj_md", [queued, running]),
            ("queued", "!lj_md", [queued]),
            ("running", "lj_md", []),
            ("no such state", "any", []),
            ("any", "LJ_MD", []),
            ("any", "%", []),
            ("any", "lj_m_", []),
            ("any", "' OR '1'='1", []),
        ):
            self.assertEqual(self._ids("mark", state=state, application=application), expected, (state, application))
            count = self.run_in(count_readable, ["mark"], state=state, application=application)
            self.assertEqual(count, len(expected), (state, application))

    def test_pages_follow_one_another_without_gaps(self) -> None:
        # Each job is readable by two of the names: pages count jobs, not rows.
        ids = [self.submit(read_access=("mark", "theor")) for _ in range(7)]
        pages = [self._ids("mark", "theor", start=start, limit=3) for start in (0, 3, 6, 9)]
        self.assertEqual(pages, [ids[0:3], ids[3:6], ids[6:7], []])
        self.assertEqual(self.run_in(count_readable, ["mark", "theor"], state="any", application="any"), 7)

    def test_listed_jobs_are_as_they_are_stored(self) -> None:
        job_id = self.submit(job_specifics="<a> 1 </a>", input=b"in")
        [listed] = self.run_in(list_readable, ["mark"], state="any", application="any", start=0, limit=1)
        job = self.run_in(fetch_job, job_id)
        assert job is not None
        lists = {"owners", "read_access", "write_access", "target_resources"}
        for name, value in listed._asdict().items():
            stored = getattr(job, name)
            self.assertEqual(value, encode_list(stored) if name in lists else stored, name)

    def test_owned_jobs_are_counted_by_state_and_application(self) -> None:
        for state in (JobState.QUEUED, JobState.RUNNING, JobState.ABORTING, JobState.ABORTED, JobState.FINISHED):
            self.submit(state=state)
        self.submit(application="lj_md")
        self.submit(owners=("piet",), read_access=("mark",), write_access=("mark",))
        self.assertEqual(self.run_in(count_owned, "mark", "hello_world"), (2, 5))
        self.assertEqual(self.run_in(count_owned, "mark", "any"), (3, 6))
        self.assertEqual(self.run_in(count_owned, "theor", "lj_md"), (1, 1))
        self.assertEqual(self.run_in(count_owned, "nobody", "any"), (0, 0))

    def test_jobs_without_a_pulse_are_running_or_aborting_and_not_locked(self) -> None:
        lost = self.submit(state=JobState.RUNNING, daemon_pulse=NOW - 1)
        aborting = self.submit(state=JobState.ABORTING, daemon_pulse=NOW - 1)
        fresh = self.submit(state=JobState.RUNNING, daemon_pulse=NOW)
        held = self.submit(state=JobState.RUNNING, daemon_pulse=NOW - 1)
        self.submit(daemon_pulse=NOW - 1)
        self.submit(state=JobState.FINISHED, daemon_pulse=NOW - 1)
        self.run_in(lock_job, held, resource_id=1, session_id=1, now=NOW)
        self.assertEqual({found.job_id for found in self.run_in(without_pulse, NOW, 99)}, {lost, aborting})
        self.assertEqual(len(self.run_in(without_pulse, NOW, 1)), 1)
        self.run_in(write_pulses, {lost: NOW}, {})
        self.assertEqual([found.job_id for found in self.run_in(without_pulse, NOW, 99)], [aborting])
        self.assertEqual(self.fetch(fresh).daemon_pulse, NOW)

    def test_the_record_says_what_happened_in_order(self) -> None:
        first, second = self.submit(), self.submit()
        self.run_in(delete_job, self.fetch(first), actor="piet", now=NOW + 1)
        entries = self.run_in(entries_of_job, first)
        self.assertEqual(
            [(entry.from_state, entry.to_state) for entry in entries], [("", "queued"), ("queued", "deleted")]
        )
        self.assertEqual([entry.actor for entry in entries], ["mark", "piet"])
        self.assertLess(entries[0].number, entries[1].number)
        self.assertEqual([entry.job_id for entry in self.run_in(entries_of_job, second)], [second])
