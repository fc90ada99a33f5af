"""`lgi batch`: jobs on the batch system of a machine, for the scripts of a resource.

Exit statuses are made for such scripts: 0 is yes or done, 1 no or refused, 75 try again later, and 126 that nothing
can be said, which the resource daemon takes for neither yes nor no.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click
from twisted.internet.task import deferLater, react

from lgi.batch.command import LIMIT, CommandFailed, Commands
from lgi.batch.jobs import Batch, label
from lgi.batch.record import Record, read_record
from lgi.batch.shared import MAX_AGE, Shared, shared_directory
from lgi.batch.system import NAMES, open_system
from lgi.batch.values import ArrayRange, BatchError, Request, State, Status
from lgi.batch.verdict import GRACE
from lgi.batch.wrapper import beside
from lgi.cli.complaint import Complaint
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import Screen, standard_screen
from lgi.durable import EXECUTABLE, write_atomically

NO, LATER, CANNOT_SAY = 1, 75, 126
UNSUBMITTED = "unsubmitted"
_NO_CODE = 255
_SIGNALLED = 128
_LOOK = 0.5  # seconds between looks at a job whose end is waited for
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

F = TypeVar("F", bound=Callable[..., Any])
_PATH: Any = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def batch() -> None:
    """Submit, watch and steer jobs on this machine's batch system, from the scripts of a resource.

    A record is a file that says what was submitted: submitting again with the same record submits nothing again, and
    the files beside it tell how the job ended. Give it in the place of the job's number wherever you can.
    """


class Memory(click.ParamType[int]):
    """An amount of memory: bytes, or a number with k, M, G or T."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes."""
        found = re.fullmatch(r"(\d{1,15})([kmgt]?)(?:i?b)?", str(value).lower())
        if found is None:
            self.fail(f"{value!r} is no amount of memory: bytes, or a number with k, M, G or T", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


class Duration(click.ParamType[int]):
    """A time: seconds, hours:minutes:seconds, or days-hours:minutes:seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seconds."""
        found = re.fullmatch(r"(\d{1,9})|(?:(\d{1,5})-)?(\d{1,6}):(\d\d):(\d\d)", str(value))
        if found is None:
            self.fail(f"{value!r} is no time: SECONDS, HH:MM:SS or DAYS-HH:MM:SS", param, ctx)
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups()[1:])
        return int(found[1]) if found[1] else ((days * 24 + hours) * 60 + minutes) * 60 + seconds


_limit = click.option(
    "--limit", default=LIMIT, show_default=True, type=click.FloatRange(1), help="Seconds a command may take."
)


def _system(command: F) -> F:
    return click.option(
        "--system",
        type=click.Choice(NAMES),
        envvar="LGI_BATCH_SYSTEM",
        help="Batch system; or in LGI_BATCH_SYSTEM. A record knows its own.",
    )(command)


def _jobs(command: F) -> F:
    for option in (
        _limit,
        click.option("--record", "records", metavar="FILE", multiple=True, type=_PATH, help="Record of a job."),
        click.argument("numbers", metavar="[JOB]...", nargs=-1),
        _system,
    ):  # fmt: skip
        command = option(command)
    return command


@attrs.frozen(kw_only=True)
class _Bench:
    """What a command works with; `records` are those that were named, None for one of which nothing was submitted."""

    batch: Batch
    reactor: Any
    screen: Screen
    records: dict[Path, Record | None]
    numbers: tuple[str, ...]

    @property
    def jobs(self) -> list[str | Record]:
        """All that were submitted."""
        return [*self.numbers, *(record for record in self.records.values() if record is not None)]


def _chosen(system: str | None, records: tuple[Path, ...]) -> str | None:
    """The batch system that is meant; None when no record says it, since nothing was submitted."""
    if system is not None:
        return system
    found = {record.system for path in records if (record := read_record(path.absolute())) is not None}
    if len(found) > 1:
        raise click.UsageError(f"the records are of several batch systems: {', '.join(sorted(found))}")
    return next(iter(found), None)


def _open(reactor: Any, system: str, *, limit: float, max_age: float = MAX_AGE, grace: float = GRACE) -> Batch:
    opened = open_system(system, Commands(reactor=reactor, environment=os.environ, limit=limit))
    shared = Shared(system=opened, directory=shared_directory(os.environ), reactor=reactor)
    return Batch(system=opened, shared=shared, max_age=max_age, grace=grace)


def run(options: Options, work: Callable[[Any, Screen], Awaitable[int]]) -> int:
    """Run a command's coroutine in a reactor; returns the exit status, or raises what the coroutine raises.

    That of `lgi.cli.session` loads all that speaks HTTP, which takes longer than the whole command: and daemons with
    many jobs call this one often.
    """
    screen = standard_screen(json=options.json, verbose=options.verbose)
    outcome: list[int | Exception] = []

    async def whole(reactor: Any) -> None:
        try:
            outcome.append(await work(reactor, screen))
        except Exception as problem:
            outcome.append(problem)

    with suppress(SystemExit):
        react(whole)
    if not outcome:
        raise click.Abort
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _on_jobs(
    options: Options,
    work: Callable[[_Bench], Awaitable[int]],
    system: str | None,
    records: tuple[Path, ...],
    numbers: tuple[str, ...],
    *,
    trouble: int = NO,
    **settings: float,
) -> int:
    """Do something with jobs; where the batch system cannot be asked, say why and return `trouble`."""
    if not records and not numbers:
        raise click.UsageError("a job's number or --record is missing")
    if numbers and system is None and not records:
        raise click.UsageError("--system is missing: a number alone does not say whose it is")

    async def whole(reactor: Any, screen: Screen) -> int:
        try:
            chosen = _chosen(system, records)
            # Where nothing was submitted, no batch system is asked, whichever it would be.
            opened = _open(reactor, chosen or NAMES[0], **settings)
            known = {path: await opened.known(path) for path in records}
            return await work(_Bench(batch=opened, reactor=reactor, screen=screen, records=known, numbers=numbers))
        except (click.UsageError, click.exceptions.Exit):
            raise
        except Exception as problem:
            screen.complain(Complaint(str(problem)) if isinstance(problem, BatchError) else problem)
            return trouble

    return run(options, whole)


@batch.command()
@click.argument("script", type=click.Path(path_type=Path, allow_dash=True))
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
@_system
@click.option("--record", metavar="FILE", type=_PATH, help="Where to keep the record of it.")
@click.option("--name", default="", help="Name of the job, where the batch system shows one.")
@click.option("--queue", "--partition", default="", metavar="NAME", help="Queue, partition or class.")
@click.option("--account", default="", metavar="NAME", help="Account or project that pays.")
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(1), help="Nodes.")
@click.option("--cpus", default=1, show_default=True, type=click.IntRange(1), help="Processors on each node.")
@click.option("--memory", default=0, type=Memory(), metavar="SIZE", help="Memory on each node: 512M, 4G.")
@click.option("--time", "wall_time", default=0, type=Duration(), help="Wall time: seconds or HH:MM:SS.")
@click.option("--directory", metavar="DIR", type=_PATH, help="Working directory; this one.")
@click.option("--output", metavar="FILE", type=_PATH, help="For what the script prints.")
@click.option("--error", metavar="FILE", type=_PATH, help="For its error messages.")
@click.option("--array", metavar="RANGE", default="", help="FIRST-LAST, with :STEP and %MOST at a time.")
@click.option("--reservation", default="", metavar="NAME", help="Reservation to run in.")
@click.option("--hold", is_flag=True, help="Do not start it before it is resumed.")
@click.option(
    "--limit", default=LIMIT, show_default=True, type=click.FloatRange(1), help="Seconds a command may take."
)
@common_options
@pass_options
def submit(
    options: Options,
    /,
    script: Path,
    extra: tuple[str, ...],
    system: str | None,
    record: Path | None,
    directory: Path | None,
    output: Path | None,
    error: Path | None,
    array: str,
    limit: float,
    **wanted: Any,
) -> int:
    """Submit SCRIPT, an executable file, and print the job's number; - reads the script from standard input.

    What follows -- goes to the submit command as it is. With the same --record, a job is submitted once: if it was,
    its number is printed again. Exit status: 0 submitted, 1 refused, 75 the batch system does not answer now.
    """
    if system is None:
        raise click.UsageError(f"--system is missing: {', '.join(NAMES)}")
    if record is None:
        if str(script) == "-":
            raise click.UsageError("--record is missing, to keep the script beside")
        record = script.with_name(f"{script.name}.{secrets.token_hex(4)}")
    where = record.absolute()

    async def work(reactor: Any, screen: Screen) -> int:
        file = script.absolute()
        try:
            if str(script) == "-":
                file = beside(where, "script")
                write_atomically(file, sys.stdin.buffer.read(), EXECUTABLE)
            request = Request(
                script=file,
                directory=(directory or Path()).absolute(),
                output=output and output.absolute(),
                error=error and error.absolute(),
                array=ArrayRange.parse(array) if array else None,
                extra=extra,
                **wanted,
            )
            made = await _open(reactor, system, limit=limit).submit(request, where)
        except BatchError as problem:
            screen.complain(Complaint(str(problem)))
            known = read_record(where)
            refused = known is not None and known.refused
            return NO if refused or not isinstance(problem, CommandFailed) else LATER
        screen.line(made.job)
        screen.result({"job": made.job, "system": made.system, "record": str(made.path)})
        return 0

    return run(options, work)


@batch.command()
@_jobs
@click.option("--is-running", "question", flag_value="running", help="Exit with 0: queued or running; 1: not so.")
@click.option("--is-finished", "question", flag_value="finished", help="Exit with 0: it is over; 1: not so.")
@click.option("--exit-code", "question", flag_value="code", help="Print the exit code of a job that is over.")
@click.option("--reason", "question", flag_value="reason", help="Print the state, and the reason if there is one.")
@click.option(
    "--max-age",
    default=MAX_AGE,
    show_default=True,
    type=click.FloatRange(0),
    help="How old an answer may be, in seconds.",
)
@click.option(
    "--grace",
    default=GRACE,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds before a missing job is lost.",
)
@common_options
@pass_options
def status(
    options: Options,
    /,
    system: str | None,
    numbers: tuple[str, ...],
    records: tuple[Path, ...],
    question: str | None,
    **settings: float,
) -> int:
    """Print the state of each JOB: one word for one job, a table for several.

    \b
    pending, held, running, suspended   the batch system has it
    finished                            its script has ended with exit status 0
    failed                              its script has ended badly, or was refused or killed
    cancelled                           somebody has ended it
    unknown                             the batch system does not show it, and nothing says that it is over
    lost                                unknown for longer than --grace
    unsubmitted                         nothing was submitted with this record

    Exit status: 0 the answer is on standard output, 126 there is none. With --is-running and --is-finished: 0 yes,
    1 no, 126 it cannot be said, as of an unknown job. --exit-code prints 128 and the signal's number for one that was
    killed, 255 for one that has no exit code at all; it exits with 1 for a job that is not over.
    """
    if question and len(numbers) + len(records) != 1:
        raise click.UsageError("--is-running, --is-finished, --exit-code and --reason are for one job")

    async def work(bench: _Bench) -> int:
        found = await bench.batch.status(bench.jobs)
        if question:
            one = next(iter(found.values()), None)
            return _answer(bench.screen, question, one)
        rows: list[tuple[str, Path | None, Status | None]] = [(number, None, found[number]) for number in numbers]
        for path, record in bench.records.items():
            rows.append((label(record), path, found[label(record)]) if record else ("", path, None))
        _show(bench.screen, rows)
        return 0

    return _on_jobs(options, work, system, records, numbers, trouble=CANNOT_SAY, **settings)


def _answer(screen: Screen, question: str, status: Status | None) -> int:
    if question == "reason":
        told = f"{status.state}: {status.reason}".removesuffix(": ") if status else UNSUBMITTED
        screen.line(told)
        screen.result(told)
        return 0
    if status is not None and status.state is State.UNKNOWN:
        screen.note(f"unknown: {status.reason}")
        return CANNOT_SAY
    if question == "running":
        return 0 if status is not None and status.state.active else NO
    if status is None or not status.state.over:
        return NO
    if question == "code":
        screen.line(str(exit_code(status)))
        screen.result(exit_code(status))
    return 0


def exit_code(status: Status) -> int:
    """One number for how a job ended, as shells have it: 0 only for one that is finished."""
    if status.state is State.FINISHED:
        return 0
    return status.exit_code or (_SIGNALLED + status.signal if status.signal else _NO_CODE)


def _show(screen: Screen, rows: list[tuple[str, Path | None, Status | None]]) -> None:
    screen.result(
        [
            {
                "job": number,
                "record": None if path is None else str(path),
                **(attrs.asdict(one) if one else {"state": UNSUBMITTED}),
            }
            for number, path, one in rows
        ]
    )
    if len(rows) == 1:
        screen.line(rows[0][2].state if rows[0][2] else UNSUBMITTED)
        return
    screen.table(
        ["job", "state", "exit", "queue", "reason"],
        [
            [
                number or str(path),
                one.state if one else UNSUBMITTED,
                str(exit_code(one)) if one and one.state.over else "",
                one.queue if one else "",
                one.reason if one else "",
            ]
            for number, path, one in rows
        ],
    )


@batch.command()
@_jobs
@common_options
@pass_options
def details(
    options: Options, system: str | None, numbers: tuple[str, ...], records: tuple[Path, ...], limit: float
) -> int:
    """Print all about each JOB in the words of the batch system."""

    async def work(bench: _Bench) -> int:
        texts = {label(job): await bench.batch.details(label(job)) for job in bench.jobs}
        for text in texts.values():
            bench.screen.line(text.rstrip("\n"))
        bench.screen.result(texts)
        return 0 if texts else NO

    return _on_jobs(options, work, system, records, numbers, limit=limit)


@batch.command()
@_jobs
@click.option("--wait", default=0.0, type=click.FloatRange(0), metavar="SECONDS", help="Wait until they are over.")
@common_options
@pass_options
def cancel(
    options: Options,
    system: str | None,
    numbers: tuple[str, ...],
    records: tuple[Path, ...],
    limit: float,
    wait: float,
) -> int:
    """End each JOB that is not over.

    Exit status: 0 done, and with --wait they are over or never were; 1 they are not.
    """

    async def work(bench: _Bench) -> int:
        jobs = bench.jobs
        if not jobs:
            return 0
        await bench.batch.cancel(jobs)
        until = bench.reactor.seconds() + wait
        while wait:
            fresh = [await bench.batch.known(job.path) or job if isinstance(job, Record) else job for job in jobs]
            found = await bench.batch.status(fresh)
            late = [f"{job} is {one.state}" for job, one in found.items() if not one.state.over]
            if not late:
                break
            if bench.reactor.seconds() > until:
                raise BatchError(f"not over after {wait:g} seconds: {', '.join(late)}")
            await deferLater(bench.reactor, _LOOK, lambda: None)
        return 0

    return _on_jobs(options, work, system, records, numbers, limit=limit, max_age=0.0 if wait else MAX_AGE)


def _steering(name: str, text: str) -> click.Command:
    @_jobs
    @common_options
    @pass_options
    def command(
        options: Options, system: str | None, numbers: tuple[str, ...], records: tuple[Path, ...], limit: float
    ) -> int:
        async def work(bench: _Bench) -> int:
            if len(bench.jobs) < len(numbers) + len(records):
                raise BatchError("nothing was submitted with this record")
            for job in bench.jobs:
                await getattr(bench.batch, name)(label(job))
            return 0

        return _on_jobs(options, work, system, records, numbers, limit=limit)

    return click.command(name, help=text)(command)


batch.add_command(_steering("hold", "Keep each waiting JOB from starting, or suspend a running one."))
batch.add_command(_steering("resume", "Let each held JOB start, or a suspended one go on."))
