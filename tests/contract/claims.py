"""The contract of offers: who gets which jobs in which order, and each job once."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import Connection

from lgi.db.jobs import insert_job, update_job
from lgi.db.locks import claim_offers, count_offers, fetch_lock, lock_job, unlock_jobs
from lgi.db.schema import job_offers, running_locks
from lgi.model import Job
from lgi.states import JobState
from tests.contract.case import APPLICATION, NOW, RESOURCE, THREADS, ContractCase, job, rows

JOBS = 400


class ClaimsContract(ContractCase):
    """See `DatabaseContract`."""

    def claim(self, **changes: Any) -> list[Job]:
        """Claim jobs for a resource."""
        values: dict[str, Any] = {
            "application": APPLICATION,
            "resource_name": RESOURCE,
            "resource_id": 1,
            "session_id": 1,
            "start": 0,
            "limit": 99,
            "now": NOW,
        }
        return self.run_in(claim_offers, **values | changes)

    def claimed(self, **changes: Any) -> list[int]:
        """Claim jobs and return their numbers in the order they came."""
        return [found.job_id for found in self.claim(**changes)]

    def count(self, **changes: Any) -> int:
        """Count jobs for a resource."""
        values: dict[str, Any] = {"application": APPLICATION, "resource_name": RESOURCE}
        return self.run_in(count_offers, **values | changes)

    def test_claimed_jobs_are_locked_and_given_out_once(self) -> None:
        job_id = self.submit(job_specifics="<a> 1 </a>", input=b"in")
        [found] = self.claim(resource_id=3, session_id=4, now=NOW + 7)
        self.assertEqual((found.job_id, found.job_specifics, found.state), (job_id, "<a> 1 </a>", JobState.QUEUED))
        lock = self.run_in(fetch_lock, job_id)
        assert lock is not None
        self.assertEqual((lock.resource_id, lock.session_id, lock.lock_time), (3, 4, NOW + 7))
        self.assertEqual(self.fetch(job_id).lock_state, 1)
        self.assertEqual(self.claim(session_id=5), [])

    def test_order_is_priority_then_number(self) -> None:
        late, first, second, early = (self.submit(priority=NOW + place) for place in (5, 2, 2, -5))
        self.assertEqual(self.claimed(), [early, first, second, late])

    def test_order_holds_across_offers_to_all_and_by_name(self) -> None:
        third = self.submit(priority=3)
        first = self.submit(priority=1, target_resources=(RESOURCE,))
        second = self.submit(priority=2)
        fourth = self.submit(priority=4, target_resources=("other@host", RESOURCE))
        self.assertEqual(self.claimed(limit=3), [first, second, third])
        self.assertEqual(self.claimed(), [fourth])

    def test_only_targets_get_a_job(self) -> None:
        mine = self.submit(target_resources=(RESOURCE, "other@host"))
        self.submit(target_resources=("other@host",))
        self.submit(target_resources=(RESOURCE.upper(),))
        everybodys = self.submit()
        self.assertEqual(self.count(), 2)
        self.assertEqual(self.claimed(), [mine, everybodys])

    def test_only_the_application_asked_for(self) -> None:
        self.submit(application="lj_md")
        self.submit(application="HELLO_WORLD")
        self.assertEqual((self.claimed(), self.count()), ([], 0))

    def test_only_queued_jobs_are_offered(self) -> None:
        for state in (JobState.RUNNING, JobState.ABORTING, JobState.ABORTED, JobState.FINISHED):
            self.submit(state=state)
        self.assertEqual((self.claimed(), self.count(), self.run_in(rows, job_offers)), ([], 0, 0))

    def test_job_that_changed_behind_its_offer_is_not_given_out(self) -> None:
        job_id = self.submit()
        self.run_in(update_job, self.fetch(job_id), {"state": "aborted"})
        self.assertEqual(self.claimed(), [])
        self.assertEqual(self.run_in(rows, running_locks), 0)

    def test_owners_filter(self) -> None:
        theors = self.submit(owners=("mark", "theor"))
        chems = self.submit(owners=("piet", "chem"))
        for owners, expected in (
            ((), [theors, chems]),
            (("any",), [theors, chems]),
            (("mark",), [theors]),
            (("chem", "nobody"), [chems]),
            (("Mark",), []),
            (("nobody",), []),
            (("!mark",), [chems]),
            (("! mark",), [chems]),
            (("!theor", "!chem"), []),
            (("!nobody",), [theors, chems]),
            (("any", "!piet"), [theors]),
            (("mark", "piet", "!chem"), [theors]),
            (("mark", "!theor"), []),
            (("!any",), []),
            (("mark", "!any"), []),
            (("%",), []),
        ):
            self.assertEqual(self.count(owners=owners), len(expected), owners)
            found = self.claimed(owners=owners)
            self.assertEqual(found, expected, owners)
            self.run_in(unlock_jobs, found)

    def test_start_and_limit_choose_a_page(self) -> None:
        ids = [self.submit(priority=number) for number in range(6)]
        self.assertEqual(self.claimed(start=2, limit=2), ids[2:4])
        self.assertEqual(self.claimed(start=3, limit=5), ids[5:6])
        self.assertEqual(self.claimed(start=3, limit=5), [])
        self.assertEqual(self.claimed(limit=1), ids[0:1])

    def test_filtered_jobs_do_not_count_for_start_and_limit(self) -> None:
        ids = [self.submit(owners=("mark" if number % 2 else "piet",)) for number in range(6)]
        self.assertEqual(self.claimed(owners=("mark",), start=1, limit=1), [ids[3]])

    def test_count_takes_in_queued_jobs_that_are_locked(self) -> None:
        held, running, others, _free = (
            self.submit(),
            self.submit(),
            self.submit(target_resources=("x",)),
            self.submit(),
        )
        for job_id in (held, running, others):
            self.run_in(lock_job, job_id, resource_id=1, session_id=1, now=NOW)
        self.run_in(update_job, self.fetch(running), {"state": "running"})
        self.assertEqual(self.count(), 2)
        self.assertEqual(self.count(owners=("mark",)), 2)
        self.assertEqual(self.count(owners=("!mark",)), 0)

    def test_sixteen_claim_four_hundred_jobs_and_each_is_given_out_once(self) -> None:
        def fill(connection: Connection) -> None:
            for number in range(JOBS):
                targets = ("any",) if number % 3 else (RESOURCE, "other@host")
                insert_job(connection, job(target_resources=targets, repository=f"JOB_{number}"), actor="mark")

        self.run_in(fill)
        given: list[tuple[int, list[int]]] = []

        def fight(index: int) -> None:
            while True:
                found = self.claimed(resource_id=index, session_id=index, limit=5)
                given.append((index, found))
                if not found and not self.run_in(rows, job_offers):
                    return

        self.at_once(THREADS, fight)
        times = Counter(job_id for _session, found in given for job_id in found)
        self.assertEqual(len(times), JOBS)
        self.assertEqual(set(times.values()), {1})
        locks = self.run_in(lambda connection: connection.execute(running_locks.select()).all())
        self.assertEqual(
            sorted((lock.session_id, lock.job_id) for lock in locks),
            sorted((session, job_id) for session, found in given for job_id in found),
        )
