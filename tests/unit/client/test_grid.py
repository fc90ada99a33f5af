"""A project of several servers: where jobs go, how they are found again, what goes on when one is down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lgi.client.answers import JobAnswer, ServerList, ServerRefused, ServerUnreachable
from lgi.client.grid import Grid, PlacedJob, SubmissionUnknown
from lgi.client.patience import Patience
from lgi.client.reference import JobReference, UnknownReference, named_server, server_names
from lgi.client.servers import KnownServers
from lgi.errors import ErrorNumber
from lgi.model import Job
from lgi.states import JobState

MASTER, SLAVE, THIRD = "https://master.org:8443/LGI", "https://slave.org:8443/LGI", "https://slave.org:9443/LGI"
DOWN = ServerUnreachable("connection refused")
CUT = ServerUnreachable("the connection was closed", maybe_done=True)
UNKNOWN = ServerRefused(ErrorNumber.JOB_UNKNOWN, "no such job")


def job(job_id: int, state: JobState = JobState.QUEUED) -> JobAnswer:
    return JobAnswer(
        job=Job(
            job_id=job_id,
            state=state,
            application="hello_world",
            target_resources=("any",),
            owners=("mark",),
            read_access=("mark",),
            write_access=("mark",),
            job_specifics="",
            state_time_stamp=0,
        )
    )


class FakeServer:
    """The calls of one server: jobs in a dictionary, and failures to come."""

    def __init__(self, url: str, slaves: tuple[str, ...], *, remembers: bool = True) -> None:
        self.url = url
        self.list = ServerList(this=url, master=MASTER, slaves=slaves, remembers_submissions=remembers)
        self.found: dict[int, JobAnswer] = {}
        self.keys: dict[str, int] = {}
        self.submissions = 0
        self.down: Exception | None = None
        self.failing: list[Exception] = []
        self.lose_answers = 0
        self.asked: list[tuple[Any, ...]] = []

    def _go(self) -> None:
        if self.down is not None:
            raise self.down
        if self.failing:
            raise self.failing.pop(0)

    async def servers(self) -> ServerList:
        self._go()
        return self.list

    async def submit(self, *, submission_key: str, **fields: Any) -> JobAnswer:
        self._go()
        self.submissions += 1
        job_id = self.keys.setdefault(submission_key, len(self.found) + 1) if self.list.remembers_submissions else 0
        job_id = job_id or len(self.found) + 1
        self.found[job_id] = job(job_id)
        if self.lose_answers:
            self.lose_answers -= 1
            raise CUT
        return self.found[job_id]

    async def job(self, job_id: int) -> JobAnswer:
        self._go()
        if job_id not in self.found:
            raise UNKNOWN
        return self.found[job_id]

    async def delete(self, job_id: int, *, cancel: bool = False) -> JobAnswer:
        self._go()
        self.asked.append((job_id, cancel))
        return self.found.pop(job_id)

    async def jobs(self, *, state: str, application: str, start: int, limit: int) -> list[JobAnswer]:
        self._go()
        return list(self.found.values())[start : start + min(limit, 2)]


class GridTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.notes: list[str] = []
        self.known = KnownServers(file=Path(self.mktemp()) / "servers")
        self.fakes = {url: FakeServer(url, (SLAVE, THIRD)) for url in (MASTER, SLAVE, THIRD)}
        self.order: list[str] = [MASTER, SLAVE, THIRD]

    def grid(self, *, alone: bool = False) -> Grid:
        return Grid(
            connect=lambda server: self.fakes[server],  # type: ignore[arg-type, return-value]
            server=f"{MASTER}/",
            patience=Patience(self.clock, busy=60, unreachable=5, chance=lambda: 0.0),
            known=self.known,
            alone=alone,
            shuffled=lambda servers: [server for server in self.order if server in servers],
        )

    def done(self, coroutine: Any, seconds: int = 100) -> Any:
        deferred = Deferred.fromCoroutine(coroutine)
        self.clock.pump([0.5] * 2 * seconds)
        return deferred

    def result(self, coroutine: Any) -> Any:
        return self.successResultOf(self.done(coroutine))

    def submit(self, grid: Grid) -> Any:
        return self.done(grid.submit(application="hello_world", note=self.notes.append))

    def test_all_servers_by_the_address_that_was_used(self) -> None:
        self.assertEqual(self.result(self.grid().servers()), (MASTER, SLAVE, THIRD))
        self.assertEqual(self.known.read(), (MASTER, SLAVE, THIRD))

    def test_a_server_named_by_the_user_is_alone(self) -> None:
        self.assertEqual(self.result(self.grid(alone=True).servers()), (MASTER,))
        self.assertEqual(self.known.read(), ())

    def test_servers_that_are_remembered_stand_in_for_one_that_is_down(self) -> None:
        self.result(self.grid().servers())
        self.fakes[MASTER].down = DOWN
        self.assertEqual(self.result(self.grid().servers()), (SLAVE, MASTER, THIRD))

    def test_none_answers(self) -> None:
        self.result(self.grid().servers())
        for fake in self.fakes.values():
            fake.down = ServerUnreachable(fake.url)
        self.assertEqual(str(self.failureResultOf(self.done(self.grid().servers())).value), MASTER)

    def test_a_submission_goes_on_to_the_next_server(self) -> None:
        grid = self.grid()
        self.order = [SLAVE, THIRD, MASTER]
        self.fakes[SLAVE].down = DOWN
        placed = self.successResultOf(self.submit(grid))
        self.assertEqual(placed.server, THIRD)
        self.assertEqual(self.notes, ["connection refused; trying another server"])

    def test_no_server_takes_it(self) -> None:
        grid = self.grid()
        self.result(grid.servers())
        for fake in self.fakes.values():
            fake.down = DOWN
        self.assertIs(self.failureResultOf(self.submit(grid)).value, DOWN)

    def test_a_lost_answer_makes_no_second_job(self) -> None:
        fake = self.fakes[MASTER]
        fake.lose_answers = 2
        placed = self.successResultOf(self.submit(self.grid()))
        self.assertEqual((placed.answer.job.job_id, len(fake.found), fake.submissions), (1, 1, 3))

    def test_nobody_knows_whether_the_database_kept_it(self) -> None:
        fake = self.fakes[MASTER]
        fake.failing = []
        grid = self.grid()
        self.result(grid.servers())
        fake.failing = [ServerRefused(ErrorNumber.DATABASE_UNREACHABLE, "lost")]
        self.assertEqual(self.successResultOf(self.submit(grid)).server, MASTER)

    def test_a_server_that_forgets_is_not_asked_twice(self) -> None:
        old = self.fakes[MASTER] = FakeServer(MASTER, (), remembers=False)
        old.lose_answers = 1
        problem = self.failureResultOf(self.submit(self.grid()), SubmissionUnknown).value
        assert isinstance(problem, SubmissionUnknown)
        self.assertEqual((old.submissions, problem.server, problem.remembered), (1, MASTER, False))

    def test_what_was_maybe_done_once_stays_so(self) -> None:
        """A server that dies after a lost answer: no other server may get the job."""
        fake = self.fakes[MASTER]
        grid = self.grid()
        self.result(grid.servers())
        fake.failing = [CUT, *([DOWN] * 50)]
        problem = self.failureResultOf(self.submit(grid), SubmissionUnknown).value
        assert isinstance(problem, SubmissionUnknown)
        self.assertTrue(problem.remembered)
        self.assertEqual(self.fakes[SLAVE].submissions + self.fakes[THIRD].submissions, 0)

    def test_a_refusal_is_no_reason_for_another_server(self) -> None:
        grid = self.grid()
        self.result(grid.servers())
        self.fakes[MASTER].failing = [ServerRefused(ErrorNumber.SUBMIT_REFUSED, "no")]
        self.failureResultOf(self.submit(grid), ServerRefused)

    def test_a_job_by_its_reference(self) -> None:
        grid = self.grid()
        for url in (SLAVE, THIRD):
            self.fakes[url].found[7] = job(7)
        for text, server in (("7@slave.org:8443", SLAVE), ("7@slave.org:9443", THIRD), (f"7@{SLAVE}", SLAVE)):
            placed = self.result(grid.job(JobReference.parse(text)))
            self.assertEqual(placed.server, server)
        reference = self.result(grid.reference(PlacedJob(server=SLAVE, answer=job(7))))
        self.assertEqual(str(reference), "7@slave.org:8443")

    def test_a_number_alone_where_it_means_one_job(self) -> None:
        grid = self.grid()
        self.fakes[THIRD].found[7] = job(7)
        self.assertEqual(self.result(grid.job(JobReference(job_id=7))).server, THIRD)
        self.result(grid.delete(JobReference(job_id=7), cancel=True))
        self.assertEqual(self.fakes[THIRD].asked, [(7, True)])

    def test_a_number_alone_that_means_two_jobs_means_none(self) -> None:
        grid = self.grid()
        self.fakes[MASTER].found[7] = self.fakes[THIRD].found[7] = job(7)
        problem = self.failureResultOf(self.done(grid.delete(JobReference(job_id=7))), UnknownReference).value
        self.assertEqual(str(problem), "job 7 may be 7@master.org or 7@slave.org:9443")
        self.assertEqual((len(self.fakes[MASTER].found), len(self.fakes[THIRD].found)), (1, 1))

    def test_a_number_alone_while_a_server_is_silent(self) -> None:
        grid = self.grid()
        self.result(grid.servers())
        self.fakes[MASTER].found[7] = job(7)
        self.fakes[SLAVE].down = DOWN
        problem = self.failureResultOf(self.done(grid.job(JobReference(job_id=7))), UnknownReference).value
        self.assertIn("slave.org:8443 does not answer", str(problem))
        self.assertEqual(self.result(grid.job(JobReference.parse("7@master.org"))).server, MASTER)

    def test_a_number_that_means_nothing(self) -> None:
        self.assertIs(self.failureResultOf(self.done(self.grid().job(JobReference(job_id=7)))).value, UNKNOWN)

    def test_jobs_of_all_servers_page_by_page(self) -> None:
        for number in range(1, 6):
            self.fakes[MASTER].found[number] = job(number)
        self.fakes[THIRD].found[1] = job(1)
        grid = self.grid()
        self.result(grid.servers())
        self.fakes[SLAVE].down = DOWN
        found = self.result(grid.jobs())
        self.assertEqual(
            [(placed.server, placed.answer.job.job_id) for placed in found.jobs],
            [*((MASTER, number) for number in range(1, 6)), (THIRD, 1)],
        )
        self.assertEqual(found.problems, ((SLAVE, DOWN),))
        self.assertEqual(len(self.result(grid.jobs(limit=3)).jobs), 3)

    def test_no_server_lists(self) -> None:
        grid = self.grid()
        self.result(grid.servers())
        for fake in self.fakes.values():
            fake.down = DOWN
        self.assertIs(self.failureResultOf(self.done(grid.jobs())).value, DOWN)


class ReferenceTests(SynchronousTestCase):
    def test_names_are_as_short_as_they_can_be(self) -> None:
        self.assertEqual(
            server_names([MASTER, SLAVE, THIRD]),
            {MASTER: "master.org", SLAVE: "slave.org:8443", THIRD: "slave.org:9443"},
        )
        two = ["https://a.org:8443/LGI", "https://a.org:8443/other"]
        self.assertEqual(server_names(two), {url: url for url in two})

    def test_names_that_are_none(self) -> None:
        for name, why in (
            ("slave.org", "may be any of"),
            ("nowhere", "none of the project's servers"),
            ("", "none of"),
        ):
            with self.assertRaises(UnknownReference) as caught:
                named_server(name, [MASTER, SLAVE, THIRD])
            self.assertIn(why, str(caught.exception))

    def test_what_is_no_reference(self) -> None:
        for text in ("", "x", "-1", "0", "1@", "1x", "٣", "1234567890", "@a.org", "1.5", "1 2"):
            with self.assertRaises(UnknownReference):
                JobReference.parse(text)

    @given(st.integers(1, 10**9 - 1), st.sampled_from(["", "a.org", "a.org:8443", MASTER]))
    def test_written_and_read_again(self, job_id: int, server: str) -> None:
        reference = JobReference(job_id=job_id, server=server)
        self.assertEqual(JobReference.parse(str(reference)), reference)


class KnownServersTests(SynchronousTestCase):
    def test_nothing_usable_is_nothing(self) -> None:
        known = KnownServers(file=Path(self.mktemp()))
        self.assertEqual(known.read(), ())
        known.file.write_bytes(b"\xff\nhttp://plain.org/LGI\nrubbish\n")
        self.assertEqual(known.read(), ())
        known.file.write_text(f"http://plain.org/LGI\n{SLAVE}\n{SLAVE}\n")
        self.assertEqual(known.read(), (SLAVE,))

    def test_a_place_that_cannot_be_written_harms_nobody(self) -> None:
        file = Path(self.mktemp())
        file.write_text("")
        KnownServers(file=file / "below" / "a file").write([MASTER])
