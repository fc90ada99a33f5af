"""`lgi batch`: jobs on the batch system of a machine, for the scripts of a resource.

Exit statuses are made for such scripts: 0 is yes or done, 1 no or refused, 75 try again later, and 126 that nothing
can be said, which the resource daemon takes for neither yes nor no.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Any

import click
from twisted.internet.task import deferLater

from lgi.batch.command import CommandFailed
from lgi.batch.jobs import label
from lgi.batch.record import Record, read_record
from lgi.batch.shared import MAX_AGE
from lgi.batch.system import NAMES
from lgi.batch.values import ArrayRange, BatchError, Request, Status
from lgi.batch.verdict import GRACE
from lgi.batch.wrapper import beside
from lgi.cli.batch_bench import NO, Bench, on_jobs, open_batch, run
from lgi.cli.batch_options import jobs_options, request_options
from lgi.cli.batch_show import CANNOT_SAY, answer, show
from lgi.cli.complaint import Complaint
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import Screen
from lgi.durable import EXECUTABLE, write_atomically

LATER = 75
_LOOK = 0.5  # seconds between looks at a job whose end is waited for


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def batch() -> None:
    """Submit, watch and steer jobs on this machine's batch system, from the scripts of a resource.

    A record is a file that says what was submitted: submitting again with the same record submits nothing again, and
    the files beside it tell how the job ended. Give it in the place of the job's number wherever you can.
    """


@batch.command()
@request_options
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
            made = await open_batch(reactor, system, limit=limit).submit(request, where)
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
@jobs_options
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

    async def work(bench: Bench) -> int:
        found = await bench.batch.status(bench.jobs)
        if question:
            one = next(iter(found.values()), None)
            return answer(bench.screen, question, one)
        rows: list[tuple[str, Path | None, Status | None]] = [(number, None, found[number]) for number in numbers]
        for path, record in bench.records.items():
            rows.append((label(record), path, found[label(record)]) if record else ("", path, None))
        show(bench.screen, rows)
        return 0

    return on_jobs(options, work, system, records, numbers, trouble=CANNOT_SAY, **settings)


@batch.command()
@jobs_options
@common_options
@pass_options
def details(
    options: Options, system: str | None, numbers: tuple[str, ...], records: tuple[Path, ...], limit: float
) -> int:
    """Print all about each JOB in the words of the batch system."""

    async def work(bench: Bench) -> int:
        texts = {label(job): await bench.batch.details(label(job)) for job in bench.jobs}
        for text in texts.values():
            bench.screen.line(text.rstrip("\n"))
        bench.screen.result(texts)
        return 0 if texts else NO

    return on_jobs(options, work, system, records, numbers, limit=limit)


@batch.command()
@jobs_options
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

    async def work(bench: Bench) -> int:
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

    return on_jobs(options, work, system, records, numbers, limit=limit, max_age=0.0 if wait else MAX_AGE)


def _steering(name: str, text: str) -> click.Command:
    @jobs_options
    @common_options
    @pass_options
    def command(
        options: Options, system: str | None, numbers: tuple[str, ...], records: tuple[Path, ...], limit: float
    ) -> int:
        async def work(bench: Bench) -> int:
            if len(bench.jobs) < len(numbers) + len(records):
                raise BatchError("nothing was submitted with this record")
            for job in bench.jobs:
                await getattr(bench.batch, name)(label(job))
            return 0

        return on_jobs(options, work, system, records, numbers, limit=limit)

    return click.command(name, help=text)(command)


batch.add_command(_steering("hold", "Keep each waiting JOB from starting, or suspend a running one."))
batch.add_command(_steering("resume", "Let each held JOB start, or a suspended one go on."))
