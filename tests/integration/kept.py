"""Whether what clients were promised was kept: their ledger against the database and the repositories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from pathlib import Path

from sqlalchemy import Connection, select
from twisted.trial.unittest import TestCase

from lgi.admin.store import in_transaction
from lgi.config import load_config
from lgi.db.schema import job_log, job_queue, running_locks
from lgi.repository.files import Repositories
from lgi.setup import repositories_of
from lgi.states import JobState
from tests.integration.grid import Grid
from tests.integration.load import FILE, Ledger


def _contents(connection: Connection) -> list[tuple[int, str, bytes, bytes, str]]:
    """Of each job: its number, state, input, output and repository."""
    rows = connection.execute(select(job_queue))
    return [(row.job_id, row.state, row.input, row.output, row.repository) for row in rows]


def _history(connection: Connection) -> list[tuple[int, str, str, str]]:
    """The record: job, state before, state after, actor."""
    rows = connection.execute(select(job_log).order_by(job_log.c.number))
    return [(row.job_id, row.from_state, row.to_state, row.actor) for row in rows]


def _locks(connection: Connection) -> int:
    return len(connection.execute(select(running_locks)).all())


def verify(test: TestCase, grid: Grid, ledger: Ledger) -> None:
    """Compare what was promised with what is there, and have `lgi admin check-db` look at it; takes a second."""
    config = load_config(grid.config)
    database = config.projects["LGI"].database
    repositories = repositories_of(config)
    jobs = {job[0]: job[1:] for job in in_transaction(database, _contents)}
    test.assertEqual(ledger.submitted.keys() - jobs.keys(), set(), "acknowledged, and lost")
    for job_id, text in ledger.submitted.items():
        test.assertEqual(jobs[job_id][1], text, f"job {job_id}")
    for job_id, output in ledger.finished.items():
        test.assertEqual((jobs[job_id][0], jobs[job_id][2]), (JobState.FINISHED.value, output), f"job {job_id}")
    for job_id, (_state, text, _output, repository) in jobs.items():
        test.assertEqual(_stored(repositories, repository), ledger.sent[text], f"the file of job {job_id}")
    twice = [text for text, number in Counter(job[1] for job in jobs.values()).items() if number > 1]
    test.assertEqual(twice, [], "submitted once, and there twice")
    _check_history(test, database, jobs.keys())
    test.assertEqual(in_transaction(database, _locks), 0)
    report = grid.lgi("admin", "--config", str(grid.config), "check-db")
    test.assertIn("in order", report)


def _stored(repositories: Repositories, name: str) -> bytes | None:
    path = Path(repositories.path(name)) / FILE
    # A job without files has no directory; where there is one, it is whole.
    assert not path.parent.exists() or repositories.writers(name), f"nobody may change {name}"
    return path.read_bytes() if path.exists() else None


def _check_history(test: TestCase, database: str, jobs: Set[int]) -> None:
    """Each job was taken once, until it was put back by who had it."""
    owner: dict[int, str] = {}
    state: dict[int, str] = {}
    for job_id, before, after, actor in in_transaction(database, _history):
        test.assertEqual(state.get(job_id, ""), before, f"job {job_id}")
        state[job_id] = after
        if before == JobState.RUNNING.value:
            test.assertEqual(owner.pop(job_id), actor, f"job {job_id}")
        if after == JobState.RUNNING.value:
            owner[job_id] = actor
    test.assertEqual(state.keys(), jobs)
