"""Which repository a command is about, and with whose credentials it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs

from lgi.cli.complaint import Complaint
from lgi.cli.options import Options
from lgi.cli.screen import Screen
from lgi.cli.session import connected, repository, session
from lgi.cli.show import tag
from lgi.client.reference import JobReference, UnknownReference
from lgi.client.repository import RepositoryClient
from lgi.client.settings import is_server_url
from lgi.wire.dialect import MalformedXML
from lgi.wire.specifics import REPOSITORY_URL, read_tag

SPECIFICS = "LGI_job_specifics"
DAEMONS_OWN = "LGI_"  # how the names of the daemon's files in a job directory begin


@attrs.frozen(kw_only=True)
class JobDirectory:
    """The directory of a running job: the files in it are the resource's credentials for the job's repository."""

    path: Path

    @property
    def repository_url(self) -> str:
        """Where the repository is; raises Complaint."""
        file = self.path / SPECIFICS
        try:
            url = read_tag(file.read_text("utf-8"), REPOSITORY_URL)
        except (MalformedXML, UnicodeDecodeError) as problem:
            raise Complaint(f"{file}: not the specifics of a job: {problem}") from None
        if not is_server_url(url):
            raise Complaint(f"{file}: no https:// address in <{REPOSITORY_URL}>")
        return url

    @property
    def credentials(self) -> tuple[Path, Path, Path]:
        """Certificate, key and authority."""
        return (
            self.path / "LGI_certificate_file",
            self.path / "LGI_key_file",
            self.path / "LGI_ca_certificate_file",
        )


def job_directory(path: Path) -> JobDirectory | None:
    """The job directory at `path`, if it is one: it has the job's specifics."""
    return JobDirectory(path=path) if (path / SPECIFICS).is_file() else None


@asynccontextmanager
async def opened_repository(
    reactor: Any, screen: Screen, options: Options, job: str
) -> AsyncIterator[RepositoryClient]:
    """The repository that `job` stands for; raises Complaint, and what reading the credentials raises.

    With an address, a job directory that one stands in goes before `~/.LGI`, but not before --config (LGI 1.41,
    LGI_filetransfer).
    """
    directory: JobDirectory | None = None
    reference: JobReference | None = None
    url = ""
    if job.startswith("https://"):
        if not is_server_url(job):
            raise Complaint(f"{job} is no address of a repository")
        url = job
        directory = None if options.config else job_directory(Path())
    else:
        try:
            reference = JobReference.parse(job)
        except UnknownReference:
            directory = job_directory(Path(job))
            if directory is None:
                raise Complaint(
                    f"{job} is not the number of a job, not an https:// address and not a job directory "
                    f"(which has a file {SPECIFICS})"
                ) from None
            url = directory.repository_url
    if directory is not None:
        async with connected(reactor, *directory.credentials) as http:
            yield repository(reactor, http, url)
        return
    async with session(reactor, screen, options) as user:
        if reference is not None:
            try:
                found = await user.grid.job(reference)
            except UnknownReference as problem:
                raise Complaint(str(problem)) from None
            url = tag(found.answer.job, REPOSITORY_URL)
            if not is_server_url(url):
                raise Complaint(f"job {job} has no repository")
        yield repository(reactor, user.http, url)
