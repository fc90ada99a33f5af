"""`lgi files`: the repository of a job, for users and in job scripts (LGI 1.41, Repositories)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import CancelledError

from lgi.cli.files_get import get_files
from lgi.cli.files_list import list_files, remove_files
from lgi.cli.files_put import put_files
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.places import job_directory, opened_repository
from lgi.cli.screen import Screen
from lgi.cli.session import run
from lgi.client.repository import RepositoryClient
from lgi.client.tree import AT_ONCE

__all__ = ["files", "get_files", "job_directory", "list_files", "opened_repository", "put_files", "remove_files"]


@click.group()
def files() -> None:
    """List, download, upload or remove files of a job.

    JOB is the number of a job (12, or 12@server), the https:// address of a repository, or a job directory: a job
    script says ".".

    Names may have directories in them ("run1/energies.csv"). In patterns, *, ? and [...] stay within one part of a
    name, ** is any number of parts: "**/*.csv". Quote them, so that the shell leaves them alone.
    """


_names = click.argument("names", metavar="[NAME]...", nargs=-1)
_job = click.argument("job", metavar="JOB")
_recursive = click.option("-r", "--recursive", is_flag=True, help="Directories with all that is in them.")
_parallel = click.option(
    "--parallel",
    metavar="N",
    default=AT_ONCE,
    show_default=True,
    type=click.IntRange(1, 16),
    help="How many files at once.",
)
_verify = click.option("--verify", is_flag=True, help="Compare with what the server has, by SHA-256.")


@files.command("ls")
@_job
@_names
@click.option("-l", "--long", is_flag=True, help="Sizes in bytes and dates, also in a pipe.")
@common_options
@pass_options
def list_command(options: Options, job: str, names: tuple[str, ...], long: bool) -> int:
    """List the files, or those that a NAME, directory or pattern means."""
    return _with_repository(options, job, lambda screen, store: list_files(screen, store, names, long=long))


@files.command("get")
@_job
@_names
@click.option(
    "--to", "target", metavar="DIR", default=".", type=click.Path(path_type=Path), help="Where to put them."
)
@_recursive
@_parallel
@_verify
@common_options
@pass_options
def get_command(
    options: Options,
    job: str,
    names: tuple[str, ...],
    target: Path,
    recursive: bool,
    parallel: int,
    verify: bool,
) -> int:
    """Download files by NAME or pattern ("*.csv"), all of them if there is none.

    A local file of the same name is replaced, once the new one is whole. What was interrupted goes on where it
    stopped when the command is given again.
    """
    return _with_repository(
        options,
        job,
        lambda screen, store: get_files(
            screen, store, names, target, recursive=recursive, parallel=parallel, verify=verify
        ),
    )


@files.command("put")
@_job
@click.argument("local", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--to", "prefix", metavar="DIR", default="", help="Directory in the repository.")
@_recursive
@_parallel
@_verify
@common_options
@pass_options
def put_command(
    options: Options,
    job: str,
    local: tuple[Path, ...],
    prefix: str,
    recursive: bool,
    parallel: int,
    verify: bool,
) -> int:
    """Upload files, in place of any of the same name.

    With -r a directory is sent under its own name, "." without one. Links to files are sent as files, links to
    directories are not followed. What cannot be sent is named, and the rest is sent all the same. What was
    interrupted goes on where it stopped when the command is given again.
    """
    return _with_repository(
        options,
        job,
        lambda screen, store: put_files(
            screen, store, local, prefix=prefix, recursive=recursive, parallel=parallel, verify=verify
        ),
    )


@files.command("rm")
@_job
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_recursive
@_parallel
@common_options
@pass_options
def remove_command(options: Options, job: str, names: tuple[str, ...], recursive: bool, parallel: int) -> int:
    """Remove files by NAME or pattern, without asking."""
    return _with_repository(
        options,
        job,
        lambda screen, store: remove_files(screen, store, names, recursive=recursive, parallel=parallel),
    )


def _with_repository(options: Options, job: str, action: Callable[[Screen, RepositoryClient], Awaitable[int]]) -> int:
    async def work(reactor: Any, screen: Screen) -> int:
        async with opened_repository(reactor, screen, options, job) as store:
            try:
                return await action(screen, store)
            except CancelledError:
                screen.note("interrupted; what has arrived is kept, and the same command goes on from there")
                raise

    return run(options, work)
