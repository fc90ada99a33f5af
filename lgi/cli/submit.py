"""`lgi submit`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import click

from lgi.cli.bars import bars
from lgi.cli.complaint import Complaint
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.references import Naming, naming
from lgi.cli.resources import offers
from lgi.cli.results import fetch_results, repository_of
from lgi.cli.screen import Screen, printable
from lgi.cli.session import Session, run, session
from lgi.cli.uploads import Named, checked_uploads
from lgi.cli.wait import Outcome, followed_to_the_end
from lgi.client.answers import ServerRefused
from lgi.client.grid import DirectoriesUnknown, PlacedJob, SubmissionUnknown
from lgi.errors import ErrorNumber
from lgi.lists import decode_list, encode_list
from lgi.wire.dialect import MalformedXML, parse_fragment

_WHAT_IS_THERE = frozenset(
    {ErrorNumber.APPLICATION_UNKNOWN, ErrorNumber.NO_KNOWN_TARGET, ErrorNumber.NO_OWNER_MAY_SUBMIT}
)


_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@attrs.frozen(kw_only=True)
class Submission:
    """What is to be submitted; empty application, targets and specifics are those of the configuration.

    Under a `key` of the user's own there is one job, however often it is submitted.
    """

    application: str = ""
    target_resources: tuple[str, ...] = ()
    input: bytes = b""
    job_specifics: str = ""
    read_access: tuple[str, ...] = ()
    write_access: tuple[str, ...] = ()
    files: tuple[Named, ...] = ()
    key: str = ""


def _list(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    return decode_list(value)


def _specifics(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    try:
        parse_fragment(value)
    except MalformedXML as problem:
        raise click.BadParameter(f"it is not well-formed XML: {problem}") from None
    return value


def _key(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if value and not _KEY.fullmatch(value):
        raise click.BadParameter("it has 1 to 64 letters, digits, - and _")
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
@click.option(
    "-a",
    "--application",
    metavar="NAME",
    default="",
    help="The application, see lgi resources; or the configuration's.",
)
@click.option("-t", "--targets", metavar="NAMES", default="", callback=_list, help="Target resources: a,b or any.")
@click.option("-i", "--input-file", metavar="FILE", help="File with the job's input; - is standard input.")
@click.option("--input", "text", metavar="TEXT", help="The job's input itself.")
@click.option("--each", is_flag=True, help="A job for each of FILES, with that as its input.")
@click.option(
    "--with",
    "shared",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A file or directory for the repository too; with --each of every job. May be repeated.",
)
@click.option("-s", "--specifics", metavar="XML", default="", callback=_specifics, help="Job specifics.")
@click.option("-r", "--read", metavar="NAMES", default="", callback=_list, help="Users and groups who may read it.")
@click.option(
    "-w", "--write", metavar="NAMES", default="", callback=_list, help="Users and groups who may change it."
)
@click.option("--wait", "follow", is_flag=True, help="Follow it until it is over, as lgi wait does.")
@click.option(
    "--get",
    "target",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Follow it, then download its files into DIR (with --each into DIR/JOB).",
)
@click.option(
    "--key", metavar="KEY", default="", callback=_key, help="Submitted again under this key it stays one job."
)
@click.option("-q", "--quiet", is_flag=True, help="Only say the job's number, as other commands take it.")
@click.argument("files", metavar="[FILES]...", nargs=-1, type=click.Path(path_type=Path))
@common_options
@pass_options
def submit(
    options: Options,
    application: str,
    targets: tuple[str, ...],
    input_file: str | None,
    text: str | None,
    each: bool,
    shared: tuple[Path, ...],
    specifics: str,
    read: tuple[str, ...],
    write: tuple[str, ...],
    follow: bool,
    target: Path | None,
    key: str,
    quiet: bool,
    files: tuple[Path, ...],
) -> int:
    """Submit a job, with FILES in its repository; directories go with all that is in them.

    A file goes by its own name, a file in a directory by its path in there: run1/out/x.csv.

    \b
    Examples:
      lgi submit -a lj_md -i example.input argon38.xyz
      lgi submit -a lj_md -i example.input argon38.xyz --get results
      generate | lgi submit -a hello_world -i - --wait
      lgi submit -a lj_md --each inputs/*.input --with argon38.xyz
      lgi submit -a lj_md -i run7.input run7/ --key run7
    """
    if each and (input_file is not None or text is not None):
        raise click.UsageError("with --each the FILES are the inputs: neither --input-file nor --input")
    if each and not files:
        raise click.UsageError("--each needs FILES, each of them the input of a job")
    notes: list[str] = []
    common = Submission(
        application=application,
        target_resources=targets,
        input=b"" if each else _input(input_file, text),
        job_specifics=specifics,
        read_access=read,
        write_access=write,
        files=checked_uploads(shared if each else (*files, *shared), notes.append),
        key=key,
    )
    submissions = list(_each(common, files)) if each else [common]

    async def work(reactor: Any, screen: Screen) -> int:
        for line in notes:
            screen.note(line)
        async with session(reactor, screen, options) as opened:
            return await submit_all(opened, submissions, follow=follow, target=target, quiet=quiet, several=each)

    return run(options, work)


def _each(common: Submission, inputs: tuple[Path, ...]) -> Iterator[Submission]:
    """Jobs with the same of all but the input."""
    for number, file in enumerate(inputs, start=1):
        key = f"{common.key}-{number}" if common.key else ""
        if key and not _KEY.fullmatch(key):
            raise click.UsageError(f"--key is too long for so many jobs, the last of which would have {key}")
        yield attrs.evolve(common, input=file.read_bytes(), key=key)


async def submit_all(
    session: Session,
    submissions: list[Submission],
    *,
    follow: bool = False,
    target: Path | None = None,
    quiet: bool = False,
    several: bool = False,
) -> int:
    """Submit the jobs one after the other, follow and fetch them if that is wanted, and return the exit status."""
    screen = session.screen
    done: list[PlacedJob] = []
    called = Naming({})
    stopped: Exception | None = None
    for submission in submissions:
        try:
            done.append(await submit_job(session, submission))
        except Exception as problem:
            if not done:
                raise
            stopped = problem
            break
        called = await naming(session)
        announce(screen, called, done[-1], quiet=quiet, follow=not (follow or target or several))
    if stopped is not None:
        left = len(submissions) - len(done)
        screen.complain(stopped, f"{len(done)} of {len(submissions)} jobs were submitted, {left} were not")
    status = int(screen.failed)
    values = [called.value(job) for job in done]
    if follow or target:
        places = [(job.server, job.answer.job.job_id) for job in done]
        outcome = await followed_to_the_end(session, places)
        values = [outcome.value(one) for one in outcome.followed]
        status = status or outcome.status
        if target is not None:
            status = await _fetch(session, outcome, target, values, several=several) or status
    elif several and not quiet:
        screen.line(f"Follow them with: lgi wait {' '.join(called.of(job) for job in done)}")
    screen.result(values if several else values[0])
    return status


async def _fetch(
    session: Session, outcome: Outcome, target: Path, values: list[dict[str, Any]], *, several: bool
) -> int:
    """Download the files of the jobs; returns 1 where that has not worked with all."""
    failed = 0
    for one, value in zip(outcome.followed, values, strict=True):
        if one.answer is None or one.gone:
            continue
        folder = target / outcome.called.reference(one.server, one.job_id) if several else target
        fetched = await fetch_results(session, repository_of(session, one.answer.job), folder)
        value["downloaded"] = fetched.values
        failed = failed or int(fetched.failed)
    return failed


async def submit_job(session: Session, submission: Submission) -> PlacedJob:
    """Submit, with the configuration's values where the submission leaves them open; raises Complaint."""
    settings = session.settings
    application = submission.application or settings.application
    if not application:
        raise Complaint(
            f"no application: give one with -a, or write one into {settings.directory / 'defaultapplication'}"
        )
    with bars(session.screen) as bar:
        total = sum(path.stat().st_size for _name, path in submission.files)
        progress = bar("uploading", total) if submission.files else None
        more: dict[str, Any] = {} if progress is None else {"progress": progress}
        try:
            return await session.grid.submit(
                key=submission.key,
                note=session.screen.note,
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
        except DirectoriesUnknown as problem:
            names = ", ".join(sorted({name.partition("/")[0] for name, _path in submission.files if "/" in name}))
            raise Complaint(f"{problem}: pack {names} into one file; nothing was sent") from problem
        except SubmissionUnknown as problem:
            raise Complaint(_unknown(problem)) from problem


def _unknown(problem: SubmissionUnknown) -> str:
    """What to do where nobody knows what became of a submission."""
    if problem.remembered:
        how = (
            "say the same again with --key and it stays one job: "
            f"lgi --server {problem.server} submit --key {problem.key} …"
        )
    else:
        how = "look for it with lgi list before you submit it again"
    return f"the job may or may not have been submitted: {problem}; {how}"


def announce(screen: Screen, called: Naming, placed: PlacedJob, *, quiet: bool = False, follow: bool = True) -> None:
    """Say that the job is queued, and how to follow it."""
    job = placed.answer.job
    reference = called.of(placed)
    if quiet:
        screen.line(reference)
        return
    targets = encode_list(job.target_resources)
    screen.line(printable(f"Job {reference} {job.state} for {job.application} ({targets})"))
    if follow:
        screen.line(f"Follow it with: lgi wait {reference}")
