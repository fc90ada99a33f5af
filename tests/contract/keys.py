"""The contract of submission keys: a job is submitted once with each, whoever comes when."""

from __future__ import annotations

import attrs
from sqlalchemy.exc import IntegrityError
from twisted.internet.defer import Deferred, gatherResults

from lgi.db.grants import allow_user
from lgi.db.jobs import delete_job, fetch_submitted, insert_last_job, key_of
from lgi.db.schema import job_log, job_queue
from lgi.model import Grant
from lgi.server import submit
from lgi.server.members import User
from tests.contract.case import APPLICATION, NOW, THREADS, job, rows
from tests.contract.load import LoadCase

POSTED = submit.Submission(application=APPLICATION, target_resources=("any",), submission_key="k")


class KeysContract(LoadCase):
    """See `DatabaseContract`."""

    def keyed(self, user: str, key: str, repository: str) -> int:
        return self.run_in(
            insert_last_job,
            job(repository=repository, input=b"in"),
            actor=user,
            submission_key=key_of(user, key),
            complete=lambda: None,
        )

    def found(self, user: str, key: str) -> int | None:
        job = self.run_in(fetch_submitted, key_of(user, key))
        return None if job is None else job.job_id

    def test_a_job_is_found_by_its_users_key(self) -> None:
        first = self.keyed("mark", "k", "JOB_1")
        others = [
            self.keyed(*who, f"JOB_{who}") for who in (("mark", "K"), ("Mark", "k"), ("piet", "k"), ("m", "k_"))
        ]
        self.submit()
        self.submit()
        self.assertEqual(self.run_in(fetch_submitted, key_of("mark", "k")), self.fetch(first))
        self.assertEqual(
            [self.found(*who) for who in (("mark", "K"), ("Mark", "k"), ("piet", "k"), ("m", "k_"))], others
        )
        for who in (("mark", "kk"), ("mark", ""), ("", "k"), ("mark", "%"), ("jan", "k")):
            self.assertIsNone(self.found(*who), who)

    def test_longest(self) -> None:
        user, key = "é" * 127 + "x" * 127, "k" * 64
        job_id = self.keyed(user, key, "JOB_1")
        self.assertEqual(self.found(user, key), job_id)
        self.assertIsNone(self.found(user, key[:-1]))

    def test_a_second_job_is_refused_and_leaves_nothing(self) -> None:
        self.keyed("mark", "k", "JOB_1")
        with self.assertRaises(IntegrityError):
            self.keyed("mark", "k", "JOB_2")
        self.assertEqual((self.run_in(rows, job_queue), self.run_in(rows, job_log)), (1, 1))

    def test_the_key_goes_with_the_job(self) -> None:
        first = self.keyed("mark", "k", "JOB_1")
        self.assertTrue(self.run_in(delete_job, self.fetch(first), actor="mark", now=NOW))
        self.assertIsNone(self.found("mark", "k"))
        self.assertGreater(self.keyed("mark", "k", "JOB_2"), first)

    def test_one_of_many_at_once(self) -> None:
        refused: list[int] = []

        def submit(number: int) -> None:
            try:
                self.keyed("mark", "k", f"JOB_{number}")
            except IntegrityError:
                refused.append(number)

        self.at_once(THREADS, submit)
        self.assertEqual((len(refused), self.run_in(rows, job_queue)), (THREADS - 1, 1))

    async def test_all_who_come_at_once_get_the_one_job(self) -> None:
        """From two servers, with the last room under a limit, and each with other content."""
        self.register()
        self.run_in(allow_user, Grant(name="mark", application=APPLICATION, job_limit=1))
        servers, user = [self.project() for _ in range(2)], User(name="mark", groups=("theor",))
        found = await gatherResults(
            [
                Deferred.fromCoroutine(
                    submit.submit_of_user(server, user, attrs.evolve(POSTED, input=b"%d" % number), [])
                )
                for number in range(THREADS // 2)
                for server in servers
            ]
        )
        self.assertEqual({job for job, _files in found}, {self.fetch(found[0][0].job_id)})
        self.assertEqual(self.run_in(rows, job_queue), 1)
