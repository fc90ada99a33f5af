"""A user's calls that old servers know nothing of."""

from __future__ import annotations

from lgi.client.answers import AnswerMalformed
from lgi.client.user import UserClient
from lgi.states import JobState
from tests.unit.client.fakes import STATE, SUBMIT, WHO, ServerTestCase, answer, job, listed, submitted

LIST = "interfaces/interface_project_server_list.php"


class UserTests(ServerTestCase):
    """Waiting for changes, and submission keys."""

    def told(self, content: str) -> bytes:
        return answer(f"{WHO}<number_of_jobs> 1 </number_of_jobs> {content} <job_wait> 240 </job_wait>")

    @property
    def client(self) -> UserClient:
        return self.user

    async def test_changed(self) -> None:
        self.fake.script[STATE] = [
            self.told(f"{job(7, 'running', input=None)} <gone> 3, 12 </gone>"),
            self.told("<gone>  </gone>"),
        ]
        found = await self.client.changed({7: JobState.QUEUED, 3: None, 12: JobState.FINISHED}, 5)
        self.assertEqual([(one.job.job_id, one.job.state) for one in found.jobs], [(7, JobState.RUNNING)])
        self.assertEqual((found.gone, found.jobs[0].job.input, found.jobs[0].files), ((3, 12), None, None))
        posted = self.fake.calls[0][1]
        self.assertEqual((posted["jobs"], posted["wait"]), ("7:queued, 3:?, 12:finished", "5"))
        found = await self.client.changed({7: None}, 0)
        self.assertEqual((found.jobs, found.gone), ((), ()))

    async def test_changed_on_a_server_that_does_not_know_it(self) -> None:
        self.fake.script[STATE] = [listed(job(7, input=None)), self.told("<gone> 1, x </gone>")]
        for said in ("does not say which jobs are gone", "no numbers of jobs"):
            with self.assertRaisesRegex(AnswerMalformed, said):
                await self.client.changed({7: None}, 0)

    async def test_job_wait(self) -> None:
        self.fake.script[LIST] = [answer(WHO), answer(f"{WHO}<job_wait> 30 </job_wait>"), answer("<job_wait> x")]
        self.assertEqual([(await self.client.servers()).job_wait for _ in range(2)], [0, 30])
        with self.assertRaises(AnswerMalformed):
            await self.client.servers()

    async def test_submission_key(self) -> None:
        known = submitted(8).replace(b"</job>", b"<submission_key> k </submission_key> </job>")
        self.fake.script[SUBMIT] = [known, submitted(9)]
        self.assertEqual((await self.client.submit(application="a", submission_key="k")).submission_key, "k")
        self.assertEqual((await self.client.submit(application="a")).submission_key, "")
        self.assertEqual([fields.get("submission_key") for _path, fields in self.fake.calls], ["k", None])
