"""`LGI_filetransfer`: the repository of a job, for users and for job scripts (LGI 1.41, Repositories)."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
from treq.client import HTTPClient

from lgi.client.answers import ServerRefused, ServerUnreachable, read_whole
from lgi.client.repository import RepositoryClient
from lgi.client.settings import SettingsError, is_server_url
from lgi.tools import layout
from lgi.tools.account import (
    CONFIGURATION,
    JOB_DIRECTORY,
    PAPERS,
    Papers,
    is_job_directory,
    job_directory,
    job_papers,
    repository_url,
    user_papers,
)
from lgi.tools.connection import Failed, complain, connected, explained, run, show
from lgi.tools.listing import content_of_repository
from lgi.tools.notes import VERBOSITY, Notes, notes_of
from lgi.tools.options import Given, Option, Tool

DAEMONS_OWN = "LGI_"  # how the names of the daemon's files in a job directory begin
COMMANDS = (
    ("list", "list the files in the repository."),
    ("download", "fetch files from the repository."),
    ("upload", "send files to the repository."),
    ("delete", "delete files in the repository."),
)
TOOL = Tool(
    "LGI_filetransfer",
    "[options] command repository-url [files]",
    Option("-x", "write the list as XML."),
    CONFIGURATION,
    JOB_DIRECTORY,
    *PAPERS,
    *VERBOSITY,
    commands=COMMANDS,
)


@attrs.frozen(kw_only=True)
class Task:
    """What is to be done with which repository, and in whose name."""

    command: str
    url: str
    files: tuple[str, ...]
    papers: Papers
    xml: bool


def task(given: Given) -> Task:
    """What the command line says; ends the program on a mistake in it, raises SettingsError for one elsewhere.

    In a job directory the address may be left out, it is that of the job's repository.
    """
    if not given.arguments or given.arguments[0] not in dict(COMMANDS):
        TOOL.refuse(f"a command is missing: {', '.join(name for name, _ in COMMANDS)}")
    command, *files = given.arguments
    directory = job_directory(given)
    if files and files[0].startswith("https://"):
        url = files.pop(0)
    elif directory is None:
        TOOL.refuse("the https:// address of a repository is missing")
    else:
        url = repository_url(directory)
    url = url.rstrip("/")
    if not is_server_url(url):
        TOOL.refuse(f"{url!r} is no address of a repository")
    if command == "list" and files:
        TOOL.refuse("list takes no files")
    if command != "list" and not files:
        TOOL.refuse(f"which files to {command}?")
    papers = user_papers(given) if directory is None else job_papers(directory, given)
    return Task(command=command, url=url, files=tuple(files), papers=papers, xml="-x" in given.switches)


async def show_list(http: HTTPClient, reactor: Any, job: Task) -> None:
    """Print the files in the repository; raises what the request for them raises."""
    body = await content_of_repository(http, reactor, job.url)
    content = read_whole(body, "repository_content")
    show(layout.files_xml(body) if job.xml else layout.files(content))


async def transfer(store: RepositoryClient, job: Task, notes: Notes) -> None:
    """Send, fetch or delete each file and say so; raises Failed at the end where any of them could not be."""

    async def fetch(name: str) -> None:
        target = Path(name)
        if target.name.startswith(DAEMONS_OWN) and is_job_directory(target.parent):
            raise ValueError(f"files named {DAEMONS_OWN}... in a job directory are the daemon's own")
        await store.get(target.name, target)

    async def send(name: str) -> None:
        await store.put(Path(name), Path(name).name)

    steps: dict[str, tuple[str, str, Callable[[str], Awaitable[None]]]] = {
        "download": ("Downloaded from", "Error downloading from", fetch),
        "upload": ("Uploaded to", "Error uploading to", send),
        "delete": ("Deleted", "Error deleting", store.delete),
    }
    done, failing, act = steps[job.command]
    worked = failed = False
    for file in job.files:
        address = f"{job.url}/{file if job.command == 'delete' else Path(file).name}"
        notes.debug(f"{job.command} {file}: {address}")
        try:
            await act(file)
        except OSError as problem:
            failed = True
            complain(f"\nError opening file '{layout.one_line(file)}' ... {problem.strerror or problem}\n")
        except (ServerRefused, ServerUnreachable, ValueError) as problem:
            failed = True
            reason = problem.message if isinstance(problem, ServerRefused) else str(problem)
            complain(f"\n{failing} '{layout.one_line(address)}' ... {layout.one_line(reason)}\n")
        else:
            worked = True
            show(f"\n{done} '{layout.one_line(address)}' ...\n")
    if worked:
        show("\n")
    if failed:
        complain("\n")
        raise Failed


def transfer_files(words: list[str]) -> int:
    """The tool; returns its exit status."""
    given = TOOL.given(words)
    notes = notes_of(given)
    try:
        job = task(given)
    except SettingsError as problem:
        return explained(TOOL, problem)

    async def work(reactor: Any) -> None:
        async with connected(reactor, job.papers, notes) as http:
            if job.command == "list":
                await show_list(http, reactor, job)
            else:
                await transfer(RepositoryClient(http=http, reactor=reactor, url=job.url), job, notes)

    return run(TOOL, notes, work, job.url)


def main() -> None:
    """The program."""
    sys.exit(transfer_files(sys.argv[1:]))


if __name__ == "__main__":
    main()
