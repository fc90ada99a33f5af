"""`lgi admin` jobs, sessions, locks, events, log and check-db, on a real project."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
from sqlalchemy import delete, insert, select, update

from lgi.admin import usage
from lgi.admin.store import in_transaction, register_resource
from lgi.cli import admin_jobs
from lgi.config import load_config
from lgi.db.events import SCHEDULE_CYCLE
from lgi.db.jobs import fetch_job, insert_job
from lgi.db.locks import fetch_lock, lock_job
from lgi.db.log import entries_of_job, record
from lgi.db.schema import (
    event_queue,
    job_access,
    job_counts,
    job_log,
    job_offers,
    job_queue,
    running_locks,
    running_sessions,
)
from lgi.db.sessions import start_session
from lgi.db.upgrade import upgrade_schema
from lgi.db.usage import charge, recount, settle_account, used_by
from lgi.model import Job
from lgi.repository.files import Repositories
from lgi.repository.names import new_repository_name
from lgi.setup import repositories_of
from lgi.states import JobState
from tests.unit.cli.test_admin import PROGRAM, AdminCase

R = TypeVar("R")

NOW = 1_700_000_000
FIRST, SECOND = "r1@localhost", "r2@localhost"


class OversightCase(AdminCase):
    """With two resources, of which the second offers `other` only, and ways to fill the project."""

    def setUp(self) -> None:
        super().setUp()
        config = load_config(self.config)
        self.database = config.projects["LGI"].database
        self.repositories = repositories_of(config)
        self.repositories.prepare()
        for name, application in ((FIRST, "hello_world"), (SECOND, "other")):
            self.run_in(
                lambda by, name=name, application=application: register_resource(
                    by, name=name, certificate=b"c", url=name, applications=[application]
                )
            )

    def run_in(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Run a function in a transaction."""
        return in_transaction(self.database, lambda connection: function(connection, *args, **kwargs))

    def submit(self, **changes: Any) -> int:
        """Store a job with its repository."""
        name = new_repository_name()
        self.repositories.create(name, ["mark"], [])
        values: dict[str, Any] = {
            "job_id": 0,
            "state": JobState.QUEUED,
            "application": "hello_world",
            "target_resources": ("any",),
            "owners": ("mark", "theor"),
            "read_access": ("mark", "theor"),
            "write_access": ("mark",),
            "state_time_stamp": NOW,
            "priority": NOW,
            "repository": name,
        }
        return self.run_in(insert_job, Job(**values | changes), actor="mark")

    def lock(self, job_id: int) -> int:
        """Lock a job in a new session; returns its number."""
        session = self.run_in(start_session, 1, NOW)
        self.run_in(lock_job, job_id, resource_id=1, session_id=session, now=NOW)
        return session

    def job(self, job_id: int) -> Job:
        """A job that is there."""
        found = self.run_in(fetch_job, job_id)
        assert found is not None
        return found

    def offered(self, job_id: int) -> list[str]:
        """For whom a job is on offer."""
        return self.run_in(lambda by: list(by.scalars(select(job_offers.c.target).filter_by(job_id=job_id))))

    def tables(self) -> list[list[Any]]:
        """Everything there is of jobs."""
        tables = (job_queue, job_offers, job_access, job_log, running_locks, event_queue)
        return self.run_in(lambda by: [[tuple(row) for row in by.execute(select(table))] for table in tables])

    def refused(self, *arguments: str, saying: str) -> None:
        """A command that exits with an error and changes nothing."""
        before = self.tables()
        status, out, err = self.run_lgi("admin", *arguments)
        self.assertNotEqual(status, 0, out)
        self.assertIn(saying, err)
        self.assertEqual(self.tables(), before)

    def in_order(self) -> None:
        """The check finds nothing."""
        self.assertEqual(self.admin("check-db")["problems"], [])


class JobTests(OversightCase):
    """`lgi admin jobs`."""

    def test_list(self) -> None:
        first = self.submit()
        second = self.submit(application="other", owners=("frits",), state=JobState.RUNNING)
        third = self.submit(owners=("frits", "mark"))
        self.lock(third)
        for arguments, expected in (
            ([], [first, second, third]),
            (["--state", "queued"], [first, third]),
            (["--application", "other"], [second]),
            (["--owner", "frits"], [second, third]),
            (["--owner", "frits", "--state", "queued", "--application", "hello_world"], [third]),
            (["--owner", "fri"], []),
            (["--limit", "2"], [first, second]),
            (["--after", str(first), "--limit", "1"], [second]),
        ):
            self.assertEqual([job["job_id"] for job in self.admin("jobs", "list", *arguments)], expected, arguments)
        self.assertEqual([job["locked"] for job in self.admin("jobs", "list")], [False, False, True])
        status, out, err = self.run_lgi("admin", "jobs", "list", "--limit", "2")
        self.assertEqual((status, len(out.splitlines())), (0, 3))
        self.assertIn(f"--after {second}", err)
        self.refused("jobs", "list", "--state", "sleeping", saying="sleeping")

    def test_requeue(self) -> None:
        job = self.submit(state=JobState.RUNNING, target_resources=(FIRST,))
        status, out, _ = self.run_lgi("admin", "jobs", "requeue", str(job))
        self.assertEqual((status, out), (0, f"Job {job} is queued for {FIRST}\n"))
        self.assertEqual((self.job(job).state, self.offered(job)), (JobState.QUEUED, [FIRST]))
        self.assertGreater(self.job(job).state_time_stamp, NOW)
        last = self.run_in(entries_of_job, job)[-1]
        self.assertEqual(
            (last.from_state, last.to_state, last.actor, last.detail), ("running", "queued", "administrator", "")
        )
        self.in_order()

    def test_requeue_for_others(self) -> None:
        job = self.submit(state=JobState.RUNNING, target_resources=(FIRST,), application="other")
        status, out, _ = self.run_lgi("admin", "jobs", "requeue", str(job), "--target", SECOND)
        self.assertEqual(status, 0)
        self.assertIn(f"queued for {SECOND}; a daemon that still runs it is told that it is no longer its own", out)
        self.assertEqual((self.job(job).target_resources, self.offered(job)), ((SECOND,), [SECOND]))
        self.assertEqual(self.run_in(entries_of_job, job)[-1].detail, f"for {SECOND}")
        other = self.submit(state=JobState.RUNNING, target_resources=(FIRST,))
        (value,) = self.admin("jobs", "requeue", str(other), "--target", "any")
        self.assertEqual((value["state"], value["target_resources"]), ("queued", ["any"]))
        self.assertEqual(self.offered(other), ["any"])
        self.in_order()

    def test_not_requeued(self) -> None:
        for state in (JobState.QUEUED, JobState.ABORTING, JobState.ABORTED, JobState.FINISHED):
            job = self.submit(state=state)
            self.refused("jobs", "requeue", str(job), saying=f"job {job} is {state} and cannot be queued again")
        job = self.submit(state=JobState.RUNNING)
        self.refused("jobs", "requeue", str(job), "--target", "nobody", saying="nobody is not a resource")
        self.refused("jobs", "requeue", str(job), "--target", SECOND, saying=f"{SECOND} does not offer hello_world")
        self.refused("jobs", "requeue", "999", saying="there is no job 999")
        self.refused("jobs", "requeue", "x", saying="'x' is not a valid integer")
        self.lock(job)
        self.refused("jobs", "requeue", str(job), saying=f"job {job} is locked")

    def test_abort(self) -> None:
        queued, running, over = (
            self.submit(),
            self.submit(state=JobState.RUNNING),
            self.submit(state=JobState.FINISHED),
        )
        status, out, err = self.run_lgi("admin", "jobs", "abort", str(queued), str(over), str(running))
        self.assertEqual((status, out), (1, f"Job {queued} is aborted\nJob {running} is aborting\n"))
        self.assertIn(f"job {over} is finished and cannot be aborted", err)
        self.assertEqual(self.offered(queued), [])
        for job, before, after in ((queued, "queued", "aborted"), (running, "running", "aborting")):
            last = self.run_in(entries_of_job, job)[-1]
            self.assertEqual((last.from_state, last.to_state, last.actor), (before, after, "administrator"))
        self.assertEqual(len(self.run_in(entries_of_job, over)), 1)
        locked = self.submit()
        self.lock(locked)
        self.refused("jobs", "abort", str(locked), saying=f"job {locked} is locked")
        self.refused("jobs", "abort", str(queued), saying=f"job {queued} is aborted and cannot be aborted")
        self.in_order()

    def test_purge(self) -> None:
        self.patch(admin_jobs, "BATCH", 2)
        old = [self.submit(state=JobState.FINISHED) for _ in range(5)]
        aborted = self.submit(state=JobState.ABORTED)
        kept = [
            self.submit(),
            self.submit(state=JobState.RUNNING),
            self.submit(state=JobState.ABORTING),
            self.submit(state=JobState.FINISHED, state_time_stamp=NOW * 10),
            self.submit(state=JobState.FINISHED),
        ]
        self.lock(kept[-1])
        repository = self.job(old[0]).repository
        before = self.tables()
        dry = self.admin("jobs", "purge", "--older-than", "7", "--dry-run")
        self.assertEqual(dry, {"deleted": [], "would_delete": [*old, aborted]})
        self.assertEqual(self.tables(), before)
        self.assertTrue(self.repositories.is_there(repository))
        status, out, _ = self.run_lgi("admin", "jobs", "purge", "--older-than", "7", "--state", "finished")
        self.assertEqual((status, out), (0, "5 jobs deleted\n"))
        self.assertFalse(self.repositories.is_there(repository))
        self.assertEqual(self.admin("jobs", "purge", "--older-than", "0.5")["deleted"], [aborted])
        self.assertEqual([job["job_id"] for job in self.admin("jobs", "list")], kept)
        last = self.run_in(entries_of_job, old[0])[-1]
        self.assertEqual((last.from_state, last.to_state, last.actor), ("finished", "deleted", "administrator"))
        self.in_order()
        for arguments in (["--older-than", "-1"], ["--older-than", "7", "--state", "queued"], []):
            self.refused("jobs", "purge", *arguments, saying=(arguments or ["--older-than"])[-1])


class SessionTests(OversightCase):
    """`lgi admin sessions`, `locks` and `events`."""

    def test_sessions(self) -> None:
        job = self.submit()
        session = self.lock(job)
        resource = self.run_in(fetch_lock, job)
        assert resource is not None
        (found,) = self.admin("sessions", "list")
        self.assertEqual((found["session_id"], found["session_time_stamp"], found["locks"]), (session, NOW, 1))
        self.assertEqual(found["resource_name"], "LGI@localhost", "the first that was registered")
        self.assertEqual(self.run_lgi("admin", "sessions", "list")[0], 0)
        self.refused("sessions", "end", str(session + 1), saying=f"there is no session {session + 1}")
        self.assertEqual(self.admin("sessions", "end", str(session)), [{"session_id": session, "unlocked": [job]}])
        self.assertEqual(self.admin("sessions", "list"), [])
        self.assertEqual(self.offered(job), ["any"])
        self.in_order()

    def test_locks(self) -> None:
        job = self.submit()
        session = self.lock(job)
        (found,) = self.admin("locks", "list")
        self.assertEqual((found["job_id"], found["session_id"], found["lock_time"]), (job, session, NOW))
        self.assertEqual(len(self.run_lgi("admin", "locks", "list")[1].splitlines()), 2)
        status, out, _ = self.run_lgi("admin", "locks", "clear", str(job))
        self.assertEqual((status, out), (0, f"Job {job} is not locked any more; session {session} held it\n"))
        self.assertEqual((self.job(job).lock_state, self.offered(job)), (0, ["any"]))
        self.refused("locks", "clear", str(job), saying=f"job {job} is not locked")
        self.in_order()

    def test_events(self) -> None:
        self.run_in(lambda by: by.execute(delete(event_queue)))
        self.admin("events", "add", SCHEDULE_CYCLE, "--at", "1800000000")
        made = self.admin("events", "add", "update_cycle", "--at", "2030-12-31T23:59:00+00:00")
        self.assertEqual(made["event_time_stamp"], 1924991940)
        self.admin("events", "add", "update_servers")
        self.assertEqual(
            [event["event"] for event in self.admin("events", "list")],
            ["update_servers", SCHEDULE_CYCLE, "update_cycle"],
        )
        self.assertEqual(len(self.run_lgi("admin", "events", "list")[1].splitlines()), 4)
        self.refused("events", "add", "nonsense", saying="nonsense")
        for time in ("tomorrow", "-1", "9" * 30):
            self.refused("events", "add", SCHEDULE_CYCLE, f"--at={time}", saying=time)


class LogTests(OversightCase):
    """`lgi admin log`."""

    def test_log(self) -> None:
        first, second = self.submit(), self.submit()
        self.admin("jobs", "abort", str(first))
        entries = self.admin("log")
        self.assertEqual(
            [(entry["job_id"], entry["to_state"]) for entry in entries],
            [(first, "queued"), (second, "queued"), (first, "aborted")],
        )
        self.assertEqual(self.admin("log", "--job", str(first)), [entries[0], entries[2]])
        self.assertEqual(self.admin("log", "--since", str(entries[0]["number"])), entries[1:])
        status, out, _ = self.run_lgi("admin", "log", "--job", str(first))
        self.assertEqual(status, 0)
        self.assertIn(f"job {first}: new -> queued, by mark\n", out)
        self.assertIn(f"job {first}: queued -> aborted, by administrator\n", out)

    def test_follow(self) -> None:
        """What is there, then what comes, until it is interrupted."""
        job = self.submit()
        process = subprocess.Popen(
            [str(PROGRAM), "--json", "admin", "log", "--follow"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(os.environ),
        )
        try:
            assert process.stdout is not None
            self.assertEqual(json.loads(process.stdout.readline())["to_state"], "queued")
            for detail in ("a", "b"):
                self.run_in(record, job_id=job, from_state="x", to_state="y", actor="test", detail=detail, now=NOW)
                self.assertEqual(json.loads(process.stdout.readline())["detail"], detail)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
            self.assertEqual((process.returncode, out, err.strip()), (130, b"", b""))
        finally:
            process.kill()
            process.wait()


class CheckTests(OversightCase):
    """`lgi admin check-db`."""

    def problems(self, *arguments: str, status: int = 1) -> list[tuple[int, str, bool]]:
        """What the check finds: job, table, and whether it was repaired."""
        found, out, err = self.run_lgi("--json", "admin", "check-db", *arguments)
        self.assertEqual(found, status, err)
        return [(problem["job_id"], problem["table"], problem["repaired"]) for problem in json.loads(out)["problems"]]

    def test_in_order(self) -> None:
        for state in JobState:
            if state is not JobState.DELETED:
                self.submit(state=state, target_resources=(FIRST, SECOND))
        self.lock(self.submit())
        job = self.submit()
        self.run_in(lock_job, job, resource_id=-1, session_id=0, now=NOW)
        status, out, err = self.run_lgi("admin", "check-db")
        self.assertEqual((status, out, err), (0, "The database of project LGI is in order\n", ""))

    def test_jobs_that_are_counted_wrongly(self) -> None:
        self.submit()
        self.run_in(lambda by: by.execute(update(job_counts).where(job_counts.c.kind == "r").values(number=7)))
        self.assertEqual(self.problems(), [(0, "job_counts", False)])
        self.assertEqual(self.problems("--repair", status=0), [(0, "job_counts", True)])
        self.assertEqual(self.problems(status=0), [])

    def test_each_problem(self) -> None:
        """One thing is broken at a time, found in its table, and mended again."""
        job, gone = self.submit(), 10_000
        held = self.submit()
        session = self.lock(held)
        lock = {"job_id": job, "resource_id": 1, "lock_time": NOW, "session_id": session}
        offer = {"application": "a", "target": "any", "priority": 1}
        access = {"kind": "r", "name": "x"}
        entry = {"time": NOW, "from_state": "", "actor": "x", "detail": ""}
        for statement, job_id, tables in (
            (insert(running_locks).values(lock), job, {"running_locks"}),
            (insert(running_locks).values(lock | {"job_id": gone}), gone, {"running_locks"}),
            (delete(running_locks), held, {"running_locks"}),
            (delete(running_sessions), held, {"running_locks"}),
            (update(running_sessions).values(resource_id=5), held, {"running_locks"}),
            (update(running_locks).values(session_id=0), held, {"running_locks"}),
            (
                update(job_queue).where(job_queue.c.job_id == job).values(lock_state=2),
                job,
                {"job_queue", "job_offers"},
            ),
            (delete(job_offers), job, {"job_offers"}),
            (insert(job_offers).values(job_id=job, **offer), job, {"job_offers"}),
            (insert(job_offers).values(job_id=held, **offer), held, {"job_offers"}),
            (insert(job_offers).values(job_id=gone, **offer), gone, {"job_offers"}),
            (update(job_offers).values(priority=1), job, {"job_offers"}),
            (insert(job_access).values(job_id=job, **access), job, {"job_access"}),
            (insert(job_access).values(job_id=gone, **access), gone, {"job_access"}),
            (delete(job_access).filter_by(job_id=held), held, {"job_access"}),
            (update(job_queue).where(job_queue.c.job_id == job).values(repository="../x"), job, {"job_queue"}),
            (delete(job_log).filter_by(job_id=job), job, {"job_log"}),
            (insert(job_log).values(job_id=job, to_state="running", **entry), job, {"job_log"}),
            (insert(job_log).values(job_id=gone, to_state="queued", **entry), gone, {"job_log"}),
        ):
            file = Path(self.database.removeprefix("sqlite:///"))
            whole = self._copy(file)
            self.run_in(lambda by, statement=statement: by.execute(statement))
            self.assertEqual({(job_id, table, False) for table in tables}, set(self.problems()), str(statement))
            repairable = tables <= {"job_offers", "job_access"}
            after = self.problems("--repair", status=0 if repairable else 1)
            self.assertEqual({(job_id, table, table in ("job_offers", "job_access")) for table in tables}, set(after))
            if repairable:
                self.in_order()
            self._put_back(file, whole)
        self.in_order()

    def test_files(self) -> None:
        """They are missed where there should be some; a job without any needs no directory."""
        with_files, without = self.submit(repository_size=3), self.submit()
        self.run_in(charge, "mark", 3)
        for job in (with_files, without):
            self.repositories.remove(self.job(job).repository)
        self.assertEqual(self.problems("--repair"), [(with_files, "job_queue", False)])

    def test_files_that_are_counted_wrongly(self) -> None:
        """As after an upgrade, or where a server was killed: found, counted anew, and in order after that."""
        self.patch(usage, "SETTLE_SECONDS", 0.0)
        first, second, right = self.submit(), self.submit(owners=("piet",)), self.submit()
        for job, size in ((first, 70), (second, 30), (right, 5)):
            (Path(self.repositories.path(self.job(job).repository)) / "a").write_bytes(b"x" * size)
        self.run_in(recount, self.job(right).repository, 5)
        self.run_in(recount, self.job(second).repository, 31)
        self.run_in(charge, "jan", 9)
        # What one uploads at this moment counts before it is there.
        self.patch(usage, "size_of", self.grows(usage.size_of, self.job(right).repository))
        wrong = [(first, "job_queue"), (second, "job_queue"), (0, "user_usage")]
        self.assertEqual(self.problems(), [(*problem, False) for problem in wrong])
        _, _, err = self.run_lgi("admin", "check-db", "--repair")
        repository = self.job(first).repository
        self.assertIn(
            f"job {first}: job_queue: the files of {repository} take 70 bytes, 0 are counted; repaired", err
        )
        self.assertIn("user_usage: the jobs of jan count with 0 bytes, his account has 9; repaired", err)
        self.in_order()
        self.assertEqual([self.run_in(used_by, user) for user in ("mark", "piet", "jan")], [75, 30, 0])
        self.run_in(settle_account, "mark", -3)
        self.assertEqual(self.problems("--repair", status=0), [(0, "user_usage", True)])
        self.assertEqual(self.run_in(used_by, "mark"), 75)

    def grows(self, size_of: Callable[..., int | None], repository: str) -> Callable[..., int | None]:
        """How large repositories are, of which one has been smaller a moment ago."""
        seen: list[str] = []

        def now(repositories: Repositories, name: str) -> int | None:
            size = size_of(repositories, name)
            seen.append(name)
            return size - 1 if size and name == repository and seen.count(name) % 2 else size

        return now

    def test_repositories_without_a_job(self) -> None:
        """They are reported and removed when they are old; a submission under way has a young one."""
        other = f"sqlite:///{self.config.parent / 'other.sqlite'}"
        in_transaction(other, upgrade_schema, checked=False)
        self.config.write_text(f"{self.config.read_text()}\n[projects.OTHER]\ndatabase = '{other}'\n")
        mine = self.job(self.submit()).repository
        theirs, young, old = (new_repository_name() for _ in range(3))
        for name in (theirs, young, old):
            self.repositories.create(name, ["mark"], [])
        in_transaction(
            other, lambda by: insert_job(by, attrs.evolve(self.job(1), job_id=0, repository=theirs), actor="x")
        )
        for name in (mine, theirs, old):
            os.utime(self.repositories.path(name), (NOW, NOW))
        for arguments, status in (([], 1), (["--repair"], 0)):
            found, out, err = self.run_lgi("--json", "--project", "LGI", "admin", "check-db", *arguments)
            self.assertEqual(found, status, err)
            self.assertEqual(json.loads(out)["orphans"], [{"repository": old, "repaired": bool(arguments)}])
        there = [name for name in (mine, theirs, young, old) if self.repositories.is_there(name)]
        self.assertEqual(there, [mine, theirs, young])
        found, out, _err = self.run_lgi("--json", "--project", "LGI", "admin", "check-db")
        self.assertEqual((found, json.loads(out)["orphans"]), (0, []))

    def test_in_batches(self) -> None:
        """Problems on both sides of a batch's end are all found, and no job is looked at twice."""
        from lgi.cli import admin_check_db

        self.patch(admin_check_db, "BATCH", 2)
        jobs = [self.submit() for _ in range(7)]
        self.run_in(lambda by: by.execute(delete(job_offers)))
        self.run_in(lambda by: by.execute(insert(job_access).values(job_id=500, kind="r", name="x")))
        self.assertEqual(self.problems(), [(job, "job_offers", False) for job in jobs] + [(500, "job_access", False)])
        _, _, err = self.run_lgi("admin", "check-db", "--repair")
        self.assertEqual(err.count("; repaired"), 8)
        self.in_order()

    def _copy(self, file: Path) -> bytes:
        self.run_in(lambda _by: None)
        self.assertFalse(file.with_name(f"{file.name}-wal").exists(), "all is in the file")
        return file.read_bytes()

    def _put_back(self, file: Path, content: bytes) -> None:
        self.assertFalse(file.with_name(f"{file.name}-wal").exists(), "all is in the file")
        file.write_bytes(content)


class TerminalTests(OversightCase):
    """On a terminal."""

    def test_purge_on_a_terminal(self) -> None:
        self.submit(state=JobState.FINISHED)
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        process = subprocess.Popen(
            [str(PROGRAM), "admin", "jobs", "purge", "--older-than", "1"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(theirs)
        self.assertEqual(process.wait(30), 0)
        self.assertIn(b"1 job deleted", os.read(ours, 65536))
