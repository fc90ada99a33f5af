"""`lgi files`: the repository of a job, for users and in job scripts (LGI 1.41, Repositories)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import attrs
import click

from lgi.cli.bars import Bar, bars
from lgi.cli.complaint import Complaint
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import Screen, printable
from lgi.cli.session import connected, repository, run, session
from lgi.cli.show import file_value, moment, size, tag
from lgi.cli.submit import checked_files
from lgi.client.answers import ServerRefused
from lgi.client.repository import RepositoryClient
from lgi.client.settings import is_server_url
from lgi.model import RepositoryFile
from lgi.wire.dialect import MalformedXML
from lgi.wire.specifics import REPOSITORY_URL, read_tag

SPECIFICS = "LGI_job_specifics"
DAEMONS_OWN = "LGI_"  # how the names of the daemon's files in a job directory begin


@click.group()
def files() -> None:
    """List, download, upload or remove files of a job.

    JOB is the number of a job, the https:// address of a repository, or a job directory: a job script says ".".
    """


_names = click.argument("names", metavar="[NAME]...", nargs=-1)
_job = click.argument("job", metavar="JOB")


@files.command("ls")
@_job
@common_options
@pass_options
def list_command(options: Options, job: str) -> int:
    """List the files."""
    return _with_repository(options, job, list_files)


@files.command("get")
@_job
@_names
@click.option(
    "--to", "target", metavar="DIR", default=".", type=click.Path(path_type=Path), help="Where to put them."
)
@common_options
@pass_options
def get_command(options: Options, job: str, names: tuple[str, ...], target: Path) -> int:
    """Download files by NAME or pattern ("*.csv"), all of them if there is none.

    A local file of the same name is replaced, once the new one is whole.
    """
    return _with_repository(options, job, lambda screen, store: get_files(screen, store, names, target))


@files.command("put")
@_job
@click.argument("local", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@common_options
@pass_options
def put_command(options: Options, job: str, local: tuple[Path, ...]) -> int:
    """Upload files, in place of any of the same name."""
    checked = checked_files(local)
    return _with_repository(options, job, lambda screen, store: put_files(screen, store, checked))


@files.command("rm")
@_job
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common_options
@pass_options
def remove_command(options: Options, job: str, names: tuple[str, ...]) -> int:
    """Remove files by NAME or pattern."""
    return _with_repository(options, job, lambda screen, store: remove_files(screen, store, names))


def _with_repository(options: Options, job: str, action: Callable[[Screen, RepositoryClient], Awaitable[int]]) -> int:
    async def work(reactor: Any, screen: Screen) -> int:
        async with opened_repository(reactor, screen, options, job) as store:
            return await action(screen, store)

    return run(options, work)


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
    url = ""
    if job.startswith("https://"):
        if not is_server_url(job):
            raise Complaint(f"{job} is no address of a repository")
        url = job
        directory = None if options.config else job_directory(Path())
    elif not _is_number(job):
        directory = job_directory(Path(job))
        if directory is None:
            raise Complaint(
                f"{job} is not the number of a job, not an https:// address and not a job directory "
                f"(which has a file {SPECIFICS})"
            )
        url = directory.repository_url
    if directory is not None:
        async with connected(reactor, *directory.credentials) as http:
            yield repository(reactor, http, url)
        return
    async with session(reactor, screen, options) as user:
        if not url:
            answer = await user.patience.ask(user.user.job, int(job))
            url = tag(answer.job, REPOSITORY_URL)
            if not is_server_url(url):
                raise Complaint(f"job {job} has no repository")
        yield repository(reactor, user.http, url)


def _is_number(job: str) -> bool:
    return job.isascii() and job.isdigit()


async def list_files(screen: Screen, store: RepositoryClient) -> int:
    """Show what is in the repository: a line for each file in a pipe, in the form of those of get and put."""
    found = await store.list()
    screen.result([file_value(file) for file in found])
    if not screen.terminal:
        for file in found:
            screen.line(_line(screen, file.name, file.size))
    elif found:
        screen.table(("Name", "Size", "Date"), [(file.name, size(file.size), moment(file.date)) for file in found])
    else:
        screen.line("no files")
    return 0


def chosen(screen: Screen, files: tuple[RepositoryFile, ...], names: tuple[str, ...]) -> list[RepositoryFile]:
    """The files that the names and patterns mean, each once; complains about those that mean none."""
    found: dict[str, RepositoryFile] = {}
    for name in names:
        matches = [file for file in files if file.name == name] or [
            file for file in files if fnmatchcase(file.name, name)
        ]
        if not matches:
            screen.complain(Complaint("no such file in the repository"), name)
        found.update((file.name, file) for file in matches)
    return list(found.values())


async def _each(screen: Screen, names: list[str], action: Callable[[str, Bar], Awaitable[dict[str, Any]]]) -> int:
    """Do something with each file; what goes wrong with one is said, and the others are still done."""
    done = []
    with bars(screen) as bar:
        for name in names:
            try:
                done.append(await action(name, bar))
            except (ServerRefused, OSError, ValueError) as problem:
                expected = problem if not isinstance(problem, ValueError) else Complaint(str(problem))
                screen.complain(expected, name)
    screen.result(done)
    return int(screen.failed)


async def get_files(screen: Screen, store: RepositoryClient, names: tuple[str, ...], target: Path) -> int:
    """Download to the directory `target`, which is made if need be; all files where there are no names."""
    found = await store.list()
    wanted = {file.name: file for file in (chosen(screen, found, names) if names else found)}
    target.mkdir(parents=True, exist_ok=True)
    guarded = job_directory(target) is not None

    async def get(name: str, bar: Bar) -> dict[str, Any]:
        if guarded and name.startswith(DAEMONS_OWN):
            raise ValueError(f"{target} is a job directory, where files named {DAEMONS_OWN}… are the daemon's own")
        count = await store.get(name, target / name, bar(name, wanted[name].size))
        screen.line(_line(screen, name, count))
        return {"name": name, "size": count, "path": str(target / name)}

    return await _each(screen, list(wanted), get)


async def put_files(screen: Screen, store: RepositoryClient, files: tuple[Path, ...]) -> int:
    """Upload the files."""
    paths = {file.name: file for file in files}

    async def put(name: str, bar: Bar) -> dict[str, Any]:
        count = paths[name].stat().st_size
        await store.put(paths[name], name, bar(name, count))
        screen.line(_line(screen, name, count))
        return {"name": name, "size": count}

    return await _each(screen, list(paths), put)


async def remove_files(screen: Screen, store: RepositoryClient, names: tuple[str, ...]) -> int:
    """Remove the files."""

    async def remove(name: str, _bar: Bar) -> dict[str, Any]:
        await store.delete(name)
        screen.line(printable(f"{name} removed"))
        return {"name": name}

    return await _each(screen, [file.name for file in chosen(screen, await store.list(), names)], remove)


def _line(screen: Screen, name: str, count: int) -> str:
    return printable(f"{name} {size(count) if screen.terminal else f'{count} bytes'}")
