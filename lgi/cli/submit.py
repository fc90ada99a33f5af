"""`lgi submit`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import click

from lgi.cli.bars import bars
from lgi.cli.complaint import Complaint
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.resources import offers
from lgi.cli.screen import Screen, printable
from lgi.cli.session import Session, run, session
from lgi.cli.show import job_value
from lgi.cli.wait import wait_for
from lgi.client.answers import AnswerMalformed, JobAnswer, ServerRefused, ServerUnreachable
from lgi.client.repository import checked_name
from lgi.errors import ErrorNumber
from lgi.lists import decode_list, encode_list
from lgi.wire.dialect import MalformedXML, parse_fragment

_WHAT_IS_THERE = frozenset(
    {ErrorNumber.APPLICATION_UNKNOWN, ErrorNumber.NO_KNOWN_TARGET, ErrorNumber.NO_OWNER_MAY_SUBMIT}
)


@attrs.frozen(kw_only=True)
class Submission:
    """What is to be submitted; empty application, targets and specifics are those of the configuration."""

    application: str = ""
    target_resources: tuple[str, ...] = ()
    input: bytes = b""
    job_specifics: str = ""
    read_access: tuple[str, ...] = ()
    write_access: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


def checked_files(files: Iterable[Path]) -> tuple[Path, ...]:
    """The files, if all can be sent and no two go by the same name; raises Complaint that names every other one."""
    mistakes: list[str] = []
    names: dict[str, Path] = {}
    for file in files:
        try:
            checked_name(file.name)
            if not file.exists():
                raise ValueError("there is no such file")
            if not file.is_file():
                raise ValueError("it is not a file")
            file.open("rb").close()
        except OSError as problem:
            mistakes.append(f"{file}: {problem.strerror}")
        except ValueError as problem:
            mistakes.append(f"{file}: {problem}")
        if file.name in names:
            mistakes.append(f"{names[file.name]} and {file} have the same name, a repository holds one of them")
        names.setdefault(file.name, file)
    if mistakes:
        raise Complaint("; ".join(mistakes) + "; nothing was sent")
    return tuple(names.values())


def _list(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return decode_list(value)


def _specifics(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        parse_fragment(value)
    except MalformedXML as problem:
        raise click.BadParameter(f"it is not well-formed XML: {problem}") from None
    return value


def _input(file: str | None, text: str | None) -> bytes:
    if file is not None and text is not None:
        raise click.UsageError("the input is either --input-file or --input")
    if file == "-":
        return sys.stdin.buffer.read()
    if file is not None:
        return Path(file).read_bytes()
    return (text or "").encode()


@click.command()
@click.option("-a", "--application", metavar="NAME", default="", help="The application; see lgi resources.")
@click.option("-t", "--targets", metavar="NAMES", default="", callback=_list, help="Target resources: a,b or any.")
@click.option("-i", "--input-file", metavar="FILE", help="File with the job's input; - is standard input.")
@click.option("--input", "text", metavar="TEXT", help="The job's input itself.")
@click.option("-s", "--specifics", metavar="XML", default="", callback=_specifics, help="Job specifics.")
@click.option("-r", "--read", metavar="NAMES", default="", callback=_list, help="Users and groups who may read it.")
@click.option(
    "-w", "--write", metavar="NAMES", default="", callback=_list, help="Users and groups who may change it."
)
@click.option("--wait", "follow", is_flag=True, help="Follow it until it is over, as lgi wait does.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@common_options
@pass_options
def submit(
    options: Options,
    application: str,
    targets: tuple[str, ...],
    input_file: str | None,
    text: str | None,
    specifics: str,
    read: tuple[str, ...],
    write: tuple[str, ...],
    follow: bool,
    files: tuple[Path, ...],
) -> int:
    """Submit a job, with FILES in its repository."""
    submission = Submission(
        application=application,
        target_resources=targets,
        input=_input(input_file, text),
        job_specifics=specifics,
        read_access=read,
        write_access=write,
        files=checked_files(files),
    )

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            answer = await submit_job(opened, submission)
            if follow:
                announce(screen, answer, follow=False)
                return await wait_for(opened, (answer.job.job_id,))
            announce(screen, answer)
            screen.result(job_value(answer))
            return 0

    return run(options, work)


async def submit_job(session: Session, submission: Submission) -> JobAnswer:
    """Submit, with the configuration's values where the submission leaves them open; raises Complaint."""
    settings = session.settings
    application = submission.application or settings.application
    if not application:
        raise Complaint(
            f"no application: give one with -a, or write one into {settings.directory / 'defaultapplication'}"
        )
    with bars(session.screen) as bar:
        total = sum(file.stat().st_size for file in submission.files)
        progress = bar("uploading", total) if submission.files else None
        more = {} if progress is None else {"progress": progress}
        try:
            return await session.patience.ask(
                session.user.submit,
                application=application,
                target_resources=submission.target_resources or settings.target_resources,
                input=submission.input,
                job_specifics=submission.job_specifics or settings.job_specifics,
                read_access=submission.read_access,
                write_access=submission.write_access,
                uploads=submission.files,
                **more,
            )
        except ServerRefused as problem:
            if problem.number in _WHAT_IS_THERE:
                raise Complaint(f"{problem}; {await offers(session)}") from problem
            raise
        except (ServerUnreachable, AnswerMalformed) as problem:
            if getattr(problem, "maybe_done", True):
                raise Complaint(
                    f"no usable answer, so the job may or may not have been submitted (see lgi status): {problem}"
                ) from problem
            raise


def announce(screen: Screen, answer: JobAnswer, *, follow: bool = True) -> None:
    """Say that the job is queued, and how to follow it."""
    job = answer.job
    targets = encode_list(job.target_resources)
    screen.line(printable(f"Job {job.job_id} {job.state} for {job.application} ({targets})"))
    if follow:
        screen.line(f"Follow it with: lgi wait {job.job_id}")
