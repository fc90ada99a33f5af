"""Resources at work: who gets which job, and the life of a job from queued to gone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

from sqlalchemy import Connection, select, update
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from lgi.db.jobs import fetch_job
from lgi.db.log import entries_of_job
from lgi.db.schema import job_offers, job_queue, running_locks, running_sessions
from lgi.db.sessions import SESSION_SECONDS
from lgi.model import Job
from lgi.scheduler.work import end_stale_sessions
from lgi.states import JobState
from lgi.wire.dialect import parse_fragment, text_of
from tests.http.case import ServerCase
from tests.http.memory import MARK, OTHER_RESOURCE, PIET, RESOURCE, Answer, Fields


def job_ids(answer: Answer) -> list[int]:
    """The jobs in an answer, in its order."""
    root = parse_fragment(answer.text)
    return [int(text_of(job, "job_id")) for job in root.iterfind(".//response/job")]


class WorkCase(ServerCase):
    """What the tests of work share."""

    def work(self, session_id: int, *, who: str = RESOURCE, **fields: Any) -> Deferred[Answer]:
        wanted: Fields = {"application": "hello_world"} | fields
        return self.server.resource("request_work", who=who, session_id=session_id, **wanted)

    async def job(self, job_id: int) -> Job | None:
        found: Job | None = await self.change(fetch_job, job_id, blobs=True)
        return found

    async def history(self, job_id: int) -> list[tuple[str, str]]:
        return [(entry.from_state, entry.to_state) for entry in await self.change(entries_of_job, job_id)]

    async def rows(self, *columns: object) -> Sequence[object]:
        found: Sequence[object] = await self.change(
            lambda connection: [tuple(row) for row in connection.execute(select(*columns))]  # type: ignore[call-overload]
        )
        return found


class RequestTests(WorkCase):
    """resource_request_work."""

    async def test_order(self) -> None:
        """By priority, then by number; `start` passes over the first ones."""
        jobs = [await self.server.submit() for _ in range(4)]
        statement = update(job_offers).where(job_offers.c.job_id == jobs[2]).values(priority=1)
        await self.change(lambda connection: connection.execute(statement))
        session_id = await self.server.session()
        self.assertEqual(job_ids(await self.work(session_id, start=1, limit=2)), [jobs[0], jobs[1]])
        self.assertEqual(job_ids(await self.work(await self.server.session())), [jobs[2], jobs[3]])

    async def test_limits(self) -> None:
        """32 unless asked for, 256 at most, and nothing past the sixteenth page."""
        for _ in range(3):
            await gatherResults([Deferred.fromCoroutine(self.server.submit()) for _ in range(100)])
        first = await self.work(await self.server.session())
        self.assertEqual((first.value("limit"), first.value("number_of_jobs")), ("32", "32"))
        self.assertEqual(len(job_ids(first)), 32)
        past = await self.work(await self.server.session(), limit=2, start=32)
        self.assertEqual((past.value("number_of_jobs"), job_ids(past)), ("0", []))
        self.assertEqual(len(job_ids(await self.work(await self.server.session(), limit=2, start=31))), 2)
        most = await self.work(await self.server.session(), limit=999_999_999)
        self.assertEqual((most.value("limit"), len(job_ids(most))), ("256", 256))
        self.assertEqual(len(await self.rows(running_locks.c.lock_id)), 32 + 2 + 256)

    async def test_count(self) -> None:
        """`limit` 0 counts queued jobs, locked or not, and locks none."""
        for target in ("any", "any", "resource1@localhost", "resource2@localhost"):
            await self.server.submit(target_resources=target)
        await self.server.submit(application="lj_md")
        await self.server.running_job()
        other = await self.server.session(who=OTHER_RESOURCE)
        self.assertEqual(len(job_ids(await self.work(other, who=OTHER_RESOURCE, limit=1))), 1)
        locks = await self.rows(running_locks.c.job_id)
        session_id = await self.server.session()
        count = await self.work(session_id, limit=0)
        self.assertEqual((count.value("number_of_jobs"), job_ids(count)), ("3", []))
        self.assertEqual(await self.rows(running_locks.c.job_id), locks)

    async def test_owners(self) -> None:
        mine = await self.server.submit(who=MARK)
        his = await self.server.submit(who=PIET)
        session = self.server.session
        for owners, expected in (
            ("piet@localhost", [his]),
            ("theor", [mine, his]),
            ("chem, mark@localhost", [mine, his]),
            ("!piet@localhost", [mine]),
            ("!chem, theor", [mine]),
            ("!any", []),
            ("nobody", []),
            ("any", [mine, his]),
            ("", [mine, his]),
            ("pie", []),
            ("%", []),
        ):
            session_id = await session()
            self.assertEqual(
                (await self.work(session_id, limit=0, owners=owners)).value("number_of_jobs"), str(len(expected))
            )
            self.assertEqual(job_ids(await self.work(session_id, owners=owners)), expected, owners)
            await self.server.resource("signoff_resource", session_id=session_id)

    async def test_targets(self) -> None:
        anybody = await self.server.submit()
        first = await self.server.submit(target_resources="resource1@localhost")
        second = await self.server.submit(target_resources="resource2@localhost")
        both = await self.server.submit(target_resources="resource2@localhost, nobody@localhost, resource1@localhost")
        mixed = await self.server.submit(target_resources="resource2@localhost, any")
        session_id = await self.server.session()
        self.assertEqual(job_ids(await self.work(session_id)), [anybody, first, both, mixed])
        other = await self.server.session(who=OTHER_RESOURCE)
        self.assertEqual(job_ids(await self.work(other, who=OTHER_RESOURCE)), [second])

    async def test_no_job_twice(self) -> None:
        """Many resources at once: each job goes to one of them, and none is forgotten."""
        jobs = {await self.server.submit() for _ in range(60)}
        sessions = [
            (who, await self.server.session(who=who)) for who in (RESOURCE, OTHER_RESOURCE) for _ in range(10)
        ]
        answers = await gatherResults([self.work(session_id, who=who, limit=5) for who, session_id in sessions])
        taken = [job_id for answer in answers for job_id in job_ids(answer)]
        self.assertEqual(len(taken), len(set(taken)))
        self.assertEqual(set(taken), jobs)

    async def test_a_lock_for_one(self) -> None:
        """Many lock the same job at once: one has it."""
        job_id = await self.server.submit()
        sessions = [(who, await self.server.session(who=who)) for who in (RESOURCE, OTHER_RESOURCE) for _ in range(5)]
        answers = await gatherResults(
            [
                self.server.resource("lock_job", who=who, session_id=session_id, job_id=job_id)
                for who, session_id in sessions
            ]
        )
        self.assertEqual(sorted(answer.number() or 0 for answer in answers), [0] + [22] * 9)
        self.assertEqual(len(await self.rows(running_locks.c.job_id)), 1)


class LifeTests(WorkCase):
    """A job from queued to finished."""

    async def test_whole_life(self) -> None:
        job_id = await self.server.submit(input="696e", job_specifics="<nprocs> 2 </nprocs>")
        session_id = await self.server.session()
        ours: Fields = {"session_id": session_id, "job_id": job_id}
        self.assertEqual(job_ids(await self.work(session_id)), [job_id])
        details = await self.server.resource("request_job_details", **ours)
        self.assertEqual((details.value("input"), details.value("state")), ("696e", "queued"))
        started = await self.server.resource(
            "update_job", **ours, state="running", target_resources="resource1@localhost"
        )
        self.assertEqual((started.value("state"), started.value("input")), ("running", "696e"))
        unlocked = await self.server.resource("unlock_job", **ours)
        self.assertEqual(unlocked.value("job_id"), str(job_id))
        # A running job is offered to nobody.
        for who in (RESOURCE, OTHER_RESOURCE):
            self.assertEqual(job_ids(await self.work(await self.server.session(who=who), who=who)), [])
        self.assertEqual((await self.server.resource("job_state", job_id=job_id)).value("state"), "running")
        await self.server.resource("lock_job", **ours)
        done = await self.server.resource("update_job", **ours, state="finished", output="6F7574")
        self.assertEqual((done.value("state"), done.value("output")), ("finished", "6f7574"))
        await self.server.resource("unlock_job", **ours)
        seen = await self.server.user("job_state", job_id=job_id)
        self.assertEqual((seen.value("state"), seen.value("output")), ("finished", "6f7574"))
        self.assertEqual(await self.history(job_id), [("", "queued"), ("queued", "running"), ("running", "finished")])

    async def test_returned(self) -> None:
        """A running job that its resource gives back is offered again, to the targets it has then."""
        job_id, session_id = await self.server.running_job()
        ours: Fields = {"session_id": session_id, "job_id": job_id}
        await self.server.resource("lock_job", **ours)
        await self.server.resource("update_job", **ours, state="queued", target_resources="resource2@localhost, any")
        other = await self.server.session(who=OTHER_RESOURCE)
        self.assertEqual(job_ids(await self.work(other, who=OTHER_RESOURCE)), [])
        await self.server.resource("unlock_job", **ours)
        self.assertEqual(job_ids(await self.work(other, who=OTHER_RESOURCE)), [job_id])

    async def test_repeated_report(self) -> None:
        """A report whose answer was lost is answered again; the first one stands."""
        job_id, session_id = await self.server.running_job()
        ours: Fields = {"session_id": session_id, "job_id": job_id}
        await self.server.resource("lock_job", **ours)
        await self.server.resource("update_job", **ours, state="finished", output="61")
        await self.freeze()
        again = await self.server.resource(
            "update_job", **ours, state="finished", output="62", job_specifics="<x> y </x>", target_resources="any"
        )
        self.assertEqual((again.number(), again.value("output")), (None, "61"))
        self.assertEqual(await self.state(), self._frozen)
        for state in ("queued", "running", "aborted"):
            await self.refuses(25, self.server.resource("update_job", **ours, state=state))
        await self.server.resource("unlock_job", **ours)
        self.assertEqual(job_ids(await self.work(await self.server.session())), [])

    async def test_former_holder(self) -> None:
        """Who lets his session end has no say in the job any more, and somebody else gets it."""
        job_id = await self.server.submit()
        session_id = await self.server.session()
        self.assertEqual(job_ids(await self.work(session_id)), [job_id])
        statement = update(running_sessions).where(running_sessions.c.session_id == session_id)

        def later(connection: Connection) -> int:
            connection.execute(
                statement.values(session_time_stamp=running_sessions.c.session_time_stamp - SESSION_SECONDS)
            )
            return end_stale_sessions(connection, int(reactor.seconds()))

        self.assertEqual(await self.change(later), 1)
        other = await self.server.session(who=OTHER_RESOURCE)
        self.assertEqual(job_ids(await self.work(other, who=OTHER_RESOURCE)), [job_id])
        await self.freeze()
        for call in ("update_job", "unlock_job", "request_job_details", "lock_job"):
            await self.refuses(16, self.server.resource(call, session_id=session_id, job_id=job_id, state="running"))
        fresh = await self.server.session()
        await self.freeze()
        await self.refuses(20, self.server.resource("update_job", session_id=fresh, job_id=job_id, state="running"))

    async def test_signing_off_frees(self) -> None:
        job_id = await self.server.submit()
        session_id = await self.server.session()
        await self.work(session_id)
        await self.server.resource("signoff_resource", session_id=session_id)
        self.assertEqual(job_ids(await self.work(await self.server.session())), [job_id])

    async def test_pulse(self) -> None:
        """Asking for the state of a running job says that somebody looks after it."""
        job_id, _session = await self.server.running_job()
        statement = update(job_queue).values(daemon_pulse=1)
        await self.change(lambda connection: connection.execute(statement))
        await self.server.resource("job_state", job_id=job_id)
        # They are gathered, and what is left is written at the end.
        await self.server.site.drain()
        job = await self.job(job_id)
        assert job is not None
        self.assertGreater(job.daemon_pulse, 1)


class SpecificsTests(WorkCase):
    """Only the server says where a job's repository is."""

    EVIL: tuple[str, ...] = (
        "<repository> evil </repository>",
        "<repository_url> evil </repository_url> <nprocs> 2 </nprocs>",
        "<repository\n> evil </repository\t>",
        "<repository a='b'> evil </repository>",
        "<repository/> <a> <b> <repository> evil </repository> </b> </a>",
        "<repository> <repository> evil </repository> evil </repository> evil",
        "a <repository> x </repository> <repo> <repository_url> evil </repository_url> </repo>",
    )
    REFUSED: tuple[str, ...] = (
        "<a> <![CDATA[ <repository> evil </repository> ]]> </a>",
        "<a xmlns='urn:x'> <repository> evil </repository> </a>",
        "<a xmlns:x='urn:x'> <x:repository> evil </x:repository> </a>",
        "<x:repository> evil </x:repository>",
        "<?repository evil?>",
        "<!-- <repository> evil </repository> -->",
        "</job_specifics> <repository> evil </repository> <job_specifics>",
        "<job_specifics> </job_specifics> <repository> evil </repository>",
        "<job number='2'> <job_id> 7 </job_id> </job>",
        "<error> <number> 1 </number> <timeout> 99999 </timeout> </error>",
        "<!DOCTYPE a [<!ENTITY e 'evil'>]> <a> &e; </a>",
        "</fragment><repository> evil </repository><fragment>",
    )

    def own(self, answer: Answer) -> None:
        """Deployed readers take the first tag of a name, ours take elements; both have to see the server's."""
        root = parse_fragment(answer.text)
        for tag in ("repository", "repository_url"):
            self.assertEqual(len(root.findall(f".//{tag}")), 1, answer.text)
            self.assertIn("JOB_", answer.value(tag))
            self.assertNotIn("evil", answer.value(tag))
            self.assertEqual(len(re.findall(rf"<{tag}[\s>/]", answer.text)), 1)

    async def test_posted_by_a_user(self) -> None:
        for specifics in self.EVIL:
            answer = await self.server.user(
                "submit_job", application="hello_world", target_resources="any", job_specifics=specifics
            )
            self.assertIsNone(answer.number(), answer.text)
            self.own(answer)
        await self.freeze()
        for specifics in self.REFUSED:
            refused = self.server.user(
                "submit_job", application="hello_world", target_resources="any", job_specifics=specifics
            )
            await self.refuses(72, refused)

    async def test_posted_by_a_resource(self) -> None:
        job_id = await self.server.submit()
        session_id = await self.server.session()
        ours: Fields = {"session_id": session_id, "job_id": job_id}
        await self.work(session_id)
        location = (await self.server.resource("request_job_details", **ours)).value("repository")
        for specifics in self.EVIL:
            self.own(await self.server.resource("update_job", **ours, job_specifics=specifics))
        details = await self.server.resource("request_job_details", **ours)
        self.assertEqual(details.value("repository"), location)
        await self.freeze()
        for specifics in self.REFUSED:
            await self.refuses(72, self.server.resource("update_job", **ours, job_specifics=specifics))


class DeleteTests(WorkCase):
    """interface_delete_job, and looking at a job that is locked."""

    changes = "[limits]\nlock_wait = 2\nback_off = 7\n"

    FILES: ClassVar = [("a", b"1")]

    def repositories_left(self) -> int:
        return len(list(self.root.glob("*/JOB_*"))) + len(list((self.root / ".trash").iterdir()))

    async def test_queued(self) -> None:
        job_id = await self.server.submit(files=self.FILES)
        self.assertEqual(self.repositories_left(), 1)
        answer = await self.server.user("delete_job", job_id=job_id)
        self.assertEqual(answer.value("state"), "deleted")
        self.assertEqual(self.repositories_left(), 0)
        self.assertIsNone(await self.job(job_id))
        self.assertEqual(await self.history(job_id), [("", "queued"), ("queued", "deleted")])
        self.assertEqual(job_ids(await self.work(await self.server.session())), [])
        await self.freeze()
        await self.refuses(15, self.server.user("delete_job", job_id=job_id))

    async def test_running(self) -> None:
        """First aborting, then, when its resource has aborted it, deleted."""
        job_id, session_id = await self.server.running_job(files=self.FILES)
        ours: Fields = {"session_id": session_id, "job_id": job_id}
        for _ in range(2):
            self.assertEqual((await self.server.user("delete_job", job_id=job_id)).value("state"), "aborting")
        self.assertEqual((await self.server.resource("job_state", job_id=job_id)).value("state"), "aborting")
        await self.server.resource("lock_job", **ours)
        answer = await self.server.resource("update_job", **ours, state="aborted")
        self.assertEqual(answer.value("state"), "aborted")
        await self.server.resource("unlock_job", **ours)
        self.assertEqual(self.repositories_left(), 1)
        self.assertEqual((await self.server.user("delete_job", job_id=job_id)).value("state"), "deleted")
        self.assertEqual(self.repositories_left(), 0)
        self.assertEqual(
            await self.history(job_id),
            list(pairwise(["", "queued", "running", "aborting", "aborted", "deleted"])),
        )

    async def test_cancelling(self) -> None:
        """What is cancelled is kept with its files, whatever it was."""
        queued = await self.server.submit(files=self.FILES)
        self.assertEqual((await self.server.user("delete_job", job_id=queued, cancel=1)).value("state"), "aborted")
        self.assertEqual(job_ids(await self.work(await self.server.session())), [])
        running, session_id = await self.server.running_job(files=self.FILES)
        for _ in range(2):
            answer = await self.server.user("delete_job", job_id=running, cancel=1)
            self.assertEqual(answer.value("state"), "aborting")
        ours: Fields = {"session_id": session_id, "job_id": running}
        await self.server.resource("lock_job", **ours)
        await self.server.resource("update_job", **ours, state="finished", output="61")
        await self.server.resource("unlock_job", **ours)
        await self.freeze()
        for job_id, state in ((queued, "aborted"), (running, "finished")):
            answer = await self.server.user("delete_job", job_id=job_id, cancel=1)
            self.assertEqual(answer.value("state"), state)
        self.assertEqual(await self.history(queued), list(pairwise(["", "queued", "aborted"])))
        self.assertEqual(self.repositories_left(), 2)

    async def test_aborting_that_finishes(self) -> None:
        """A job that was done before the abort reached it has finished."""
        job_id, session_id = await self.server.running_job()
        await self.server.user("delete_job", job_id=job_id)
        ours: Fields = {"session_id": session_id, "job_id": job_id}
        await self.server.resource("lock_job", **ours)
        await self.freeze()
        for state in ("queued", "running"):
            await self.refuses(25, self.server.resource("update_job", **ours, state=state))
        answer = await self.server.resource("update_job", **ours, state="finished", output="61")
        self.assertEqual(answer.value("state"), "finished")

    async def test_waits_for_the_lock(self) -> None:
        """Whoever waits is answered as soon as the job is unlocked."""
        job_id = await self.server.submit()
        session_id = await self.server.session()
        await self.work(session_id)
        looking = self.server.user("job_state", job_id=job_id)
        deleting = self.server.user("delete_job", job_id=job_id)
        await deferLater(reactor, 0.3)
        self.assertFalse(looking.called or deleting.called)
        await self.server.resource("unlock_job", session_id=session_id, job_id=job_id)
        looked, deleted = await gatherResults([looking, deleting])
        self.assertEqual(deleted.value("state"), "deleted")
        # The one that looked came first, or the job was gone.
        self.assertIn(looked.number(), (None, 15))

    async def test_stays_locked(self) -> None:
        job_id = await self.server.submit()
        session_id = await self.server.session()
        await self.work(session_id)
        await self.freeze()
        calls = [self.server.user(call, job_id=job_id) for call in ("delete_job", "job_state")]
        for answering in calls:
            answer = await self.refuses(1, answering, "locked")
            self.assertEqual(answer.value("timeout"), "7")

    async def test_listing_waits_for_nothing(self) -> None:
        job_id = await self.server.submit()
        await self.work(await self.server.session())
        answer = await self.server.user("job_state")
        self.assertEqual((answer.value("number_of_jobs"), answer.value("job_id")), ("1", str(job_id)))

    async def test_stopping_waits_for_nobody(self) -> None:
        """A server that stops answers those who wait, and tells new ones to come back."""
        job_id = await self.server.submit()
        await self.work(await self.server.session())
        waiting = self.server.user("delete_job", job_id=job_id)
        await deferLater(reactor, 0.1)
        draining = self.run_now(self.server.site.drain())
        self.assertEqual((await waiting).number(), 1)
        await draining
        late = await self.server.user("job_state")
        self.assertEqual((late.number(), late.value("timeout")), (1, "7"))

    async def test_files_that_cannot_be_removed(self) -> None:
        """The job is deleted all the same; the log says what is left."""
        job_id = await self.server.submit(files=self.FILES)
        (self.root / ".trash").rmdir()
        (self.root / ".trash").write_bytes(b"in the way")
        self.assertEqual((await self.server.user("delete_job", job_id=job_id)).value("state"), "deleted")
        self.assertIsNone(await self.job(job_id))
        self.assertEqual([path.name for path in self.root.glob("*/JOB_*/a")], ["a"])


class ListTests(WorkCase):
    """interface_job_state without a job."""

    async def test_filters(self) -> None:
        queued, other = await self.server.submit(), await self.server.submit(application="lj_md")
        hidden = await self.server.submit(who=PIET)
        running, _session = await self.server.running_job()
        for fields, expected in (
            ({}, [queued, other, running]),
            ({"state": "running"}, [running]),
            ({"state": "RUNNING"}, [running]),
            ({"state": "!running"}, [queued, other]),
            ({"application": "lj_md"}, [other]),
            ({"application": "!lj_md"}, [queued, running]),
            ({"state": "any", "application": "any"}, [queued, other, running]),
            ({"start": 1, "limit": 1}, [other]),
            ({"start": 3}, []),
            ({"job_id": "none"}, [queued, other, running]),
        ):
            answer = await self.server.user("job_state", **fields)
            self.assertEqual(job_ids(answer), sorted(expected), fields)
            self.assertEqual(answer.value("number_of_jobs"), str(len(expected)))
        self.assertEqual((await self.server.user("job_state", limit=0)).value("number_of_jobs"), "3")
        everything = await self.server.user("job_state", who="boss@localhost; admin; LGI", limit=10_000)
        self.assertEqual(job_ids(everything), sorted([queued, other, hidden, running]))
        self.assertEqual(everything.value("limit"), "4096")
        self.assertNotIn(JobState.DELETED.value, everything.text)
