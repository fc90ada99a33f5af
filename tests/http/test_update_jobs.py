"""Changes of several jobs in one call: as if each had its own, but told together."""

from __future__ import annotations

from typing import Any

from lxml import etree
from sqlalchemy import Connection

from lgi.client.answers import JobAnswer, ServerRefused, read_response, read_updated
from lgi.db.consistency import check_counts, check_jobs
from lgi.db.jobs import update_job
from lgi.states import JobState
from tests.http.memory import OTHER_RESOURCE, Answer, Fields
from tests.http.test_work import WorkCase

PRIVATE = {"target_resources": "resource1@localhost"}


def of_each(*jobs: Fields) -> Fields:
    """The fields of a call about these jobs."""
    fields: Fields = {"number_of_jobs": len(jobs)}
    for number, job in enumerate(jobs, start=1):
        fields |= {f"{name}_{number}": value for name, value in job.items()}
    return fields


class UpdateJobsCase(WorkCase):
    """With jobs that a session holds locked."""

    async def locked(self, number: int, **fields: Any) -> list[int]:
        """Submit jobs and lock them for `self.session_id`, which is another one then."""
        jobs = [await self.server.submit(**fields) for _ in range(number)]
        self.session_id = await self.server.session()
        await self.work(self.session_id, limit=number)
        return jobs

    async def ask(self, *jobs: Fields, **fields: Any) -> Answer:
        """Make a call."""
        posted: Fields = {"session_id": self.session_id} | of_each(*jobs) | fields
        return await self.server.resource("update_jobs", **posted)

    async def outcomes(self, *jobs: Fields) -> list[JobAnswer | ServerRefused]:
        """Make a call that is taken, and return what a daemon reads in its answer."""
        answer = await self.ask(*jobs)
        response = read_response(answer.body)
        self.assertEqual(answer.value("number_of_jobs"), str(len(jobs)))
        self.assertEqual(
            [node.get("number") for node in response.findall("job")], [str(at + 1) for at in range(len(jobs))]
        )
        return read_updated(response, [int(job["job_id"]) for job in jobs])


class UpdateTests(UpdateJobsCase):
    """What is done."""

    async def test_announced(self) -> None:
        answer = await self.server.resource("signup_resource")
        self.assertTrue(answer.text.endswith("</work_wait> <update_jobs> 32 </update_jobs> </response> </LGI>"))

    async def test_several(self) -> None:
        """Jobs that begin, jobs that are over, and one of which something else changes, in any order."""
        first, second, third, fourth = await self.locked(4, input="696e", job_specifics="<n> 1 </n>")
        outcomes = await self.outcomes(
            {"job_id": third, "state": "running", **PRIVATE, "job_specifics": "<d> C </d>"},
            {"job_id": first, "state": "running", **PRIVATE, "job_specifics": "<d> A </d>"},
            {"job_id": fourth, "target_resources": "any, x", "output": "6F"},
            {"job_id": second, "state": "aborted", "output": "6e6f"},
        )
        found = [outcome.job for outcome in outcomes if isinstance(outcome, JobAnswer)]
        self.assertEqual([job.state.value for job in found], ["running", "running", "queued", "aborted"])
        # Only who begins with a job needs its input.
        self.assertEqual([job.input for job in found], [b"in", b"in", None, None])
        self.assertEqual([job.output for job in found], [None] * 4)
        stored = [await self.job(job_id) for job_id in (third, first, fourth, second)]
        assert all(stored)
        for job, kept in zip(found, stored, strict=True):
            assert kept is not None
            self.assertEqual((job.state, job.state_time_stamp), (kept.state, kept.state_time_stamp))
            self.assertEqual((job.target_resources, job.job_specifics), (kept.target_resources, kept.job_specifics))
            self.assertIn(kept.repository, kept.job_specifics)
            self.assertEqual(kept.input, b"in")
        kept_of = {job.job_id: job for job in stored if job is not None}
        self.assertIn("<d> A </d> <repository>", kept_of[first].job_specifics)
        self.assertIn("<d> C </d> <repository>", kept_of[third].job_specifics)
        self.assertEqual(kept_of[fourth].target_resources, ("any",))
        self.assertEqual(
            [kept_of[job_id].output for job_id in (first, second, third, fourth)], [b"", b"no", b"", b"o"]
        )
        self.assertGreater(kept_of[first].daemon_pulse, 0)
        self.assertEqual(await self.history(first), [("", "queued"), ("queued", "running")])
        self.assertEqual(await self.history(second), [("", "queued"), ("queued", "aborted")])
        self.assertEqual(await self.history(fourth), [("", "queued")])
        # And the end of those that have begun; what was running before comes without input.
        outcomes = await self.outcomes(
            *({"job_id": job, "state": "finished", "output": f"{job:04x}"} for job in (first, third))
        )
        self.assertEqual([one.job.input for one in outcomes if isinstance(one, JobAnswer)], [None, None])
        for job_id in (first, third):
            over = await self.job(job_id)
            assert over is not None
            self.assertEqual((over.state, over.output), (JobState.FINISHED, job_id.to_bytes(2, "big")))
        self.assertEqual(
            (await self.server.user("job_state", limit=0, state="finished")).value("number_of_jobs"), "2"
        )

    async def test_as_many_as_there_may_be(self) -> None:
        jobs = await self.locked(32)
        outcomes = await self.outcomes(*({"job_id": job, "state": "running"} for job in jobs))
        self.assertEqual({one.job.state for one in outcomes if isinstance(one, JobAnswer)}, {JobState.RUNNING})
        self.assertEqual(len(outcomes), 32)
        self.assertEqual(
            (await self.server.user("job_state", limit=0, state="running")).value("number_of_jobs"), "32"
        )
        self.assertEqual(await self.change(problems), [])

    async def test_same_as_one_by_one(self) -> None:
        """An answer differs from that of update_job in what is left out, and rows do not differ at all."""
        one, other = await self.locked(2, input="696e")
        fields: Fields = {"state": "running", **PRIVATE, "job_specifics": "<d> X </d>", "output": "6f"}
        alone = await self.server.resource("update_job", session_id=self.session_id, job_id=one, **fields)
        together = await self.ask({"job_id": other, **fields})
        head, job = alone.text.split("<job>")
        same = job.replace(" <output> 6f </output>", "").replace(f"<job_id> {one} <", f"<job_id> {other} <")
        jobs = [await self.job(job_id) for job_id in (one, other)]
        assert jobs[0] is not None
        assert jobs[1] is not None
        same = same.replace(jobs[0].repository, jobs[1].repository).replace(
            f"/{jobs[0].repository[-3:]}/", f"/{jobs[1].repository[-3:]}/"
        )
        self.assertEqual(together.text, f"{head}<number_of_jobs> 1 </number_of_jobs> <job number='1'>{same}")
        self.assertEqual(jobs[0].output, jobs[1].output)
        self.assertEqual(jobs[0].target_resources, jobs[1].target_resources)

    async def test_repeated_report(self) -> None:
        """A report whose answer was lost is answered again; the first one stands."""
        first, second = await self.locked(2)
        await self.outcomes({"job_id": first, "state": "finished", "output": "61"})
        await self.freeze()
        [outcome] = await self.outcomes({"job_id": first, "state": "finished", "output": "62", **PRIVATE})
        assert isinstance(outcome, JobAnswer)
        self.assertEqual((outcome.job.state, outcome.job.target_resources), (JobState.FINISHED, ("any",)))
        self.assertEqual(await self.state(), self._frozen)
        outcomes = await self.outcomes(
            {"job_id": second, "state": "finished"}, {"job_id": first, "state": "finished", "output": "62"}
        )
        self.assertEqual({one.job.state for one in outcomes if isinstance(one, JobAnswer)}, {JobState.FINISHED})
        stored = await self.job(first)
        assert stored is not None
        self.assertEqual(stored.output, b"a")

    async def test_told(self) -> None:
        """Who waits for a change of one of them is told."""
        first, second = await self.locked(2)
        waiting = self.server.user("job_state", jobs=f"{second}:queued", wait=30)
        await self.server.turn()
        self.assertFalse(waiting.called)
        await self.outcomes({"job_id": first, "state": "running"}, {"job_id": second, "state": "running"})
        self.assertEqual((await waiting).value("state"), "running")


def problems(connection: Connection) -> list[object]:
    """What is not as it should be of jobs, locks, offers, the record and the counts."""
    return [*check_jobs(connection, 1, 1000)[0], *check_counts(connection)]


class RefusedTests(UpdateJobsCase):
    """What is refused for one job is told of that job."""

    async def test_each_for_itself(self) -> None:
        mine, over, running, last = await self.locked(4)
        await self.outcomes(
            {"job_id": over, "state": "finished", "output": "61"}, {"job_id": running, "state": "running"}
        )
        held_by_another = await self.server.submit()
        other = await self.server.session(who=OTHER_RESOURCE)
        await self.work(other, who=OTHER_RESOURCE)
        free = await self.server.submit()
        before = {job: await self.job(job) for job in (over, running, held_by_another, free)}
        histories = {job: await self.history(job) for job in before}
        outcomes = await self.outcomes(
            {"job_id": free, "state": "running"},
            {"job_id": over, "state": "running", "output": "62"},
            {"job_id": 999_999_999, "state": "running"},
            {"job_id": mine, "state": "running"},
            {"job_id": held_by_another, "state": "finished"},
            {"job_id": running, "state": "finished", "job_specifics": "<a>"},
            {"job_id": last, "state": "running"},
        )
        self.assertEqual(
            [one.number if isinstance(one, ServerRefused) else one.job.state.value for one in outcomes],
            [20, 25, 15, "running", 20, 72, "running"],
        )
        for outcome, saying in zip(outcomes, ("locked", "finished", "no such", "", "locked", "XML"), strict=False):
            self.assertIn(saying, str(outcome))
        for job, stored in before.items():
            self.assertEqual(await self.job(job), stored)
            self.assertEqual(await self.history(job), histories[job])
        self.assertEqual(await self.history(mine), [("", "queued"), ("queued", "running")])

    async def test_fields_of_one_job(self) -> None:
        """Each is refused with its number, and nothing of that job is changed, of the others all."""
        for wrong, number in (
            ({"state": "strange"}, 25),
            ({"state": "deleted"}, 25),
            ({"state": "x" * 300}, 45),
            ({"target_resources": "x" * 300}, 50),
            ({"job_specifics": "x" * 65_355}, 53),
            ({"job_specifics": "<error> <number> 1 </number> </error>"}, 72),
            ({"output": "6"}, 55),
            ({"output": "61" * 65_355}, 55),
        ):
            bad, good = await self.locked(2)
            before = await self.job(bad)
            fields: Fields = {"job_id": bad, "state": "running", "output": "62"}
            refused, taken = await self.outcomes(fields | wrong, {"job_id": good, "state": "running"})
            assert isinstance(refused, ServerRefused)
            assert isinstance(taken, JobAnswer)
            self.assertEqual((refused.number, taken.job.state), (number, JobState.RUNNING), wrong)
            self.assertEqual(await self.job(bad), before)
            await self.outcomes({"job_id": bad, "state": "aborted"}, {"job_id": good, "state": "aborted"})

    async def test_none_that_is_taken(self) -> None:
        """No error of the call, and nothing changed."""
        free = await self.server.submit()
        self.session_id = await self.server.session()
        await self.freeze()
        outcomes = await self.outcomes({"job_id": free, "state": "running"}, {"job_id": 77, "output": "x"})
        self.assertEqual([one.number for one in outcomes if isinstance(one, ServerRefused)], [20, 55])
        self.assertEqual(await self.state(), self._frozen)

    async def test_aborted_by_its_user_meanwhile(self) -> None:
        """A job that is to be aborted does not begin any more, and may finish."""
        first, second = await self.locked(2)
        await self.outcomes({"job_id": first, "state": "running"}, {"job_id": second, "state": "running"})
        for job_id in (first, second):
            job = await self.job(job_id)
            self.assertTrue(await self.change(update_job, job, {"state": "aborting"}))
        outcomes = await self.outcomes({"job_id": first, "state": "running"}, {"job_id": second, "state": "finished"})
        self.assertEqual(
            [one.number if isinstance(one, ServerRefused) else one.job.state.value for one in outcomes],
            [25, "finished"],
        )
        self.assertEqual((await self.history(second))[-1], ("aborting", "finished"))

    async def test_form(self) -> None:
        """As it was agreed on."""
        self.session_id = await self.server.session()
        answer = await self.ask({"job_id": 12, "state": "running"})
        said = "<job number='1'> <job_id> 12 </job_id> <error> <number> 15 </number> <message> there is no such job "
        self.assertIn(f"<number_of_jobs> 1 </number_of_jobs> {said}</message> </error> </job> </resp", answer.text)
        self.assertIsNone(etree.fromstring(answer.body).find("response/error"))


class CallTests(UpdateJobsCase):
    """What is wrong with the call changes nothing of any job."""

    async def test_how_many(self) -> None:
        [job] = await self.locked(1)
        await self.freeze()
        good: Fields = {"job_id": job, "state": "running"}
        for number, expected in ((0, 49), (33, 49), (999_999_999, 49), ("1" * 10, 49), ("x", 19), ("", 19), (-1, 19)):
            await self.refuses(expected, self.posting(good, number_of_jobs=number), "number_of_jobs")
        without: dict[str, Any] = {"session_id": self.session_id, "job_id_1": job, "state_1": "running"}
        await self.refuses(19, self.server.resource("update_jobs", **without), "number_of_jobs")
        # More than were posted.
        await self.refuses(19, self.posting(good, number_of_jobs=2), "job_id_2")
        # Fewer: nobody reads what is behind them.
        await self.outcomes(good)
        answer = await self.ask(good, {"job_id": 77, "state": "x"}, number_of_jobs=1)
        self.assertEqual((answer.number(), answer.value("number_of_jobs")), (None, "1"))

    def posting(self, *jobs: Fields, **fields: Any) -> Any:
        """Make a call, for `refuses`."""
        return self.server.resource("update_jobs", **({"session_id": self.session_id} | of_each(*jobs) | fields))

    async def test_job_twice(self) -> None:
        first, second = await self.locked(2)
        await self.freeze()
        good: Fields = {"job_id": first, "state": "running"}
        for again in (first, f"00{first}", f" {first} "):
            jobs: tuple[Fields, ...] = (good, {"job_id": second}, {"job_id": again, "state": "finished"})
            await self.refuses(47, self.posting(*jobs), f"job {first} ")

    async def test_number_of_a_job(self) -> None:
        [job] = await self.locked(1)
        await self.freeze()
        good: Fields = {"job_id": job, "state": "running"}
        for wrong, number in (("", 19), ("x", 19), ("1" * 10, 47)):
            await self.refuses(number, self.posting(good, {"job_id": wrong}), "job_id_2")

    async def test_session(self) -> None:
        [job] = await self.locked(1)
        good: Fields = {"job_id": job, "state": "running"}
        other = await self.server.session(who=OTHER_RESOURCE)
        await self.freeze()
        for session_id, number in (("", 8), (0, 9), (77_777, 16), (other, 16)):
            await self.refuses(number, self.posting(good, session_id=session_id))
        fields: Fields = {"session_id": self.session_id} | of_each(good)
        await self.refuses(16, self.server.resource("update_jobs", who=OTHER_RESOURCE, **fields))
        await self.refuses(5, self.server.resource("update_jobs", who="nobody; LGI", **fields))
        await self.refuses(37, self.posting(good, project="other"))
        # Also where all jobs are refused.
        await self.refuses(16, self.posting({"job_id": job, "state": "x"}, session_id=77_777))
