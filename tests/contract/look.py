"""The contract of what programs look at while they wait, and of the servers that tell each other."""

from __future__ import annotations

import attrs
from sqlalchemy import Connection

from lgi.db import look
from lgi.db.bells import ServerBell, beat, leave, others
from lgi.db.jobs import update_job
from lgi.db.locks import lock_job
from lgi.db.log import GAP_SECONDS, record
from lgi.db.look import MOST_MISSING, Follower, still_offered
from lgi.model import Changes
from lgi.states import JobState
from tests.contract.case import APPLICATION, NOW, RESOURCE, ContractCase
from tests.contract.statements import listening, send_now

ANYWHERE, HERE = (APPLICATION, "any"), (APPLICATION, RESOURCE)


def _write(connection: Connection, job_id: int, state: str = "running") -> None:
    record(connection, job_id=job_id, from_state="", to_state=state, actor="mark", now=NOW)
    send_now(connection)


class LookContract(ContractCase):
    """On all databases."""

    def follow(self, follower: Follower, now: float = 0.0, *, offers: bool = True) -> tuple[Changes, bool]:
        """What the follower finds at a moment."""
        with self.engine.connect().execution_options(lgi_reading=True) as connection, connection.begin():
            return follower.read(connection, now, offers=offers)

    def test_from_now_on(self) -> None:
        first = self.submit()
        follower = Follower()
        self.assertEqual(self.follow(follower), (Changes(), False))
        self.assertEqual(self.follow(follower), (Changes(), False))
        job_id, other = self.submit(), self.submit(target_resources=(RESOURCE, "é"))
        found, more = self.follow(follower)
        self.assertEqual((found.jobs, more), ({job_id, other}, False))
        self.assertEqual(found.offers, {ANYWHERE, HERE, (APPLICATION, "é")})
        self.assertEqual(self.follow(follower), (Changes(), False))
        self.run_in(_write, first)
        self.assertEqual(self.follow(follower)[0], Changes(jobs=frozenset([first])))

    def test_what_was_taken_is_not_on_offer(self) -> None:
        follower = Follower()
        self.follow(follower)
        job_id = self.submit()
        self.run_in(lock_job, job_id, resource_id=1, session_id=2, now=NOW)
        self.assertEqual(self.follow(follower)[0], Changes(jobs=frozenset([job_id])))

    def test_offers_that_nobody_waits_for(self) -> None:
        follower = Follower()
        self.follow(follower)
        job_id = self.submit()
        with listening(self.engine) as statements:
            found, _more = self.follow(follower, offers=False)
        self.assertEqual(found, Changes(jobs=frozenset([job_id])))
        self.assertEqual(len(statements), 1)

    def test_skipped(self) -> None:
        follower = Follower()
        self.run_in(follower.skip)
        self.submit()
        self.run_in(follower.skip)
        job_id = self.submit()
        self.assertEqual(self.follow(follower)[0].jobs, {job_id})

    def test_many(self) -> None:
        """In pieces, each with few statements."""
        self.patch(look, "MOST", 300)
        follower = Follower()
        self.follow(follower)

        def write(connection: Connection) -> None:
            for job_id in range(700):
                _write(connection, 1000 + job_id, "queued")

        self.run_in(write)
        found: set[int] = set()
        numbers: list[int] = []
        more = True
        while more:
            with listening(self.engine) as statements:
                changes, more = self.follow(follower)
            self.assertLessEqual(len(statements), 4)
            found |= changes.jobs
            numbers.append(len(changes.jobs))
        self.assertEqual((len(found), numbers), (700, [300, 300, 100]))

    def test_still_offered(self) -> None:
        self.submit(target_resources=(RESOURCE,))
        taken = self.submit(application="lj_md")
        offers = {ANYWHERE, HERE, ("lj_md", "any"), ("lj_md", RESOURCE)}
        self.assertEqual(self.run_in(still_offered, offers), {HERE, ("lj_md", "any")})
        job = self.fetch(taken)
        self.run_in(lock_job, taken, resource_id=1, session_id=2, now=NOW)
        self.run_in(update_job, job, {"state": JobState.RUNNING.value})
        many = {(f"application{number}", "any") for number in range(100)}
        self.assertEqual(self.run_in(still_offered, offers | many), {HERE})
        self.assertEqual(self.run_in(still_offered, ()), set())

    def test_bells(self) -> None:
        mine, its = (
            ServerBell(bell_id=f"{number:016x}", address=f"127.0.0.1:{number}", bell_key="00" * 32, beat=1)
            for number in (1, 2)
        )
        self.assertEqual(self.run_in(beat, mine, ()), [])
        self.assertEqual(self.run_in(beat, its, ()), [mine])
        later = attrs.evolve(mine, beat=2)
        self.assertEqual(self.run_in(beat, later, ()), [its])
        self.assertEqual(self.run_in(others, its.bell_id), [later])
        # It has beaten since it was thought to be dead.
        self.assertEqual(self.run_in(beat, attrs.evolve(its, beat=2), [mine]), [later])
        self.assertEqual(self.run_in(beat, attrs.evolve(its, beat=3), [later]), [])
        # Who was thought to be dead comes back.
        self.assertEqual(len(self.run_in(beat, attrs.evolve(mine, beat=3), ())), 1)
        self.run_in(leave, mine.bell_id)
        self.run_in(leave, mine.bell_id)
        self.assertEqual(self.run_in(others, its.bell_id), [])

    def test_key_is_not_shown(self) -> None:
        bell = ServerBell(bell_id="1", address="127.0.0.1:1", bell_key="5ec4e7", beat=1)
        self.assertNotIn("5ec4e7", repr(bell))


class LateLookContract(LookContract):
    """On a database server, where writers do not take turns."""

    def test_late_and_never(self) -> None:
        """A number that commits late is not skipped, one that never comes is not asked for forever."""
        late, never = self.engine.connect(), self.engine.connect()
        self.addCleanup(late.close)
        self.addCleanup(never.close)
        follower = Follower()
        self.follow(follower)
        _write(late, 2)
        _write(never, 3)
        self.run_in(_write, 4)
        self.assertEqual(self.follow(follower, 10)[0].jobs, {4})
        late.commit()
        never.rollback()
        self.assertEqual(self.follow(follower, 11)[0].jobs, {2})
        self.assertEqual(self.follow(follower, 12)[0].jobs, frozenset())
        for now, statements_of_a_look in ((9 + GAP_SECONDS, 2), (10 + GAP_SECONDS, 2), (11 + GAP_SECONDS, 1)):
            with listening(self.engine) as statements:
                self.assertEqual(self.follow(follower, now)[0], Changes())
            self.assertEqual(len(statements), statements_of_a_look, now)

    def test_many_that_never_come(self) -> None:
        follower = Follower()
        self.follow(follower)
        with self.engine.connect() as never:
            for job_id in range(MOST_MISSING + 50):
                _write(never, job_id)
            self.run_in(_write, 1)
            self.assertEqual(self.follow(follower, 10)[0].jobs, {1})
            never.commit()
        # The newest of them are asked for.
        self.assertEqual(len(self.follow(follower, 11)[0].jobs), MOST_MISSING)
