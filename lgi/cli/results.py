"""The files of a job that is over, as `lgi submit --get` brings them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.threads import deferToThread

from lgi.cli.complaint import Complaint
from lgi.cli.screen import Screen, printable
from lgi.cli.session import Session, repository
from lgi.cli.show import size, tag
from lgi.client.places import Target
from lgi.client.repository import RepositoryClient
from lgi.client.settings import is_server_url
from lgi.client.transfer import Progress, no_progress
from lgi.client.tree import Problem, Stopped, Tree
from lgi.model import Job
from lgi.wire.specifics import REPOSITORY_URL


def repository_of(session: Session, job: Job) -> RepositoryClient:
    """The job's repository; raises Complaint."""
    url = tag(job, REPOSITORY_URL)
    if not is_server_url(url):
        raise Complaint(f"job {job.job_id} has no repository")
    return repository(session.reactor, session.http, url)


@attrs.frozen(kw_only=True)
class Fetched:
    """The files that came, for JSON, and whether any did not; tells the screen of each."""

    screen: Screen
    target: Path
    values: list[dict[str, Any]] = attrs.field(factory=list)
    problems: list[str] = attrs.field(factory=list)

    @property
    def failed(self) -> bool:
        """Whether something is missing."""
        return bool(self.problems)

    def started(self, _name: str, _size: int) -> Progress:
        """It is on its way."""
        return no_progress

    def done(self, name: str, count: int) -> None:
        """It is there."""
        path = str(self.target / name)
        self.values.append({"name": name, "size": count, "path": path})
        self.screen.line(printable(f"{path} {size(count) if self.screen.terminal else f'{count} bytes'}"))

    def failed_with(self, name: str, problem: BaseException) -> None:
        """It is not."""
        self.problems.append(name)
        expected = Complaint(str(problem)) if isinstance(problem, ValueError) else problem
        self.screen.complain(expected, name)


class _Told:
    """Who is told of each file, as transfers have it."""

    def __init__(self, fetched: Fetched) -> None:
        self.started = fetched.started
        self.done = fetched.done
        self._fetched = fetched

    def failed(self, name: str, problem: Problem) -> None:
        self._fetched.failed_with(name, problem)


async def fetch_results(session: Session, store: RepositoryClient, folder: Path) -> Fetched:
    """Download all files into `folder`, and say so; what goes wrong is said too."""
    fetched = Fetched(screen=session.screen, target=folder)
    files = await session.patience.ask(store.list)
    if not files:
        session.screen.note("there are no files in its repository")
        return fetched
    target = await deferToThread(Target, folder)
    try:
        await Tree(store=store, watcher=_Told(fetched)).get(files, target)
    except Stopped as stopped:
        fetched.failed_with(f"{stopped.left} files", stopped.why)
    finally:
        target.close()
    return fetched
