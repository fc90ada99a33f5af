"""`lgi list`: the jobs of all servers, chosen, ordered and in the columns that are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import click

from lgi.cli.moments import MOMENT
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.references import Naming, naming
from lgi.cli.screen import Screen
from lgi.cli.session import Session, run, session
from lgi.cli.show import exit_status, moment, tag, targets
from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.client.grid import PlacedJob
from lgi.lists import ANY
from lgi.model import Job
from lgi.states import JobState
from lgi.wire.specifics import REPOSITORY_URL

STORED = tuple(state.value for state in JobState if state is not JobState.DELETED)


@attrs.frozen
class Column:
    """A column of the table: its heading, what stands in it, and by what it is sorted."""

    heading: str
    text: Callable[[Job], str]
    order: Callable[[Job], Any]


def _column(heading: str, text: Callable[[Job], str], order: Callable[[Job], Any] | None = None) -> Column:
    return Column(heading, text, order or text)


COLUMNS = {
    "id": _column("Job", lambda job: str(job.job_id), lambda job: job.job_id),
    "state": _column("State", lambda job: job.state.value, lambda job: STORED.index(job.state.value)),
    "application": _column("Application", lambda job: job.application),
    "targets": _column("Targets", targets),
    "since": _column("Since", lambda job: moment(job.state_time_stamp), lambda job: job.state_time_stamp),
    "owners": _column("Owners", lambda job: ", ".join(job.owners)),
    "exit": _column(
        "Exit",
        lambda job: "" if exit_status(job) is None else str(exit_status(job)),
        lambda job: (exit_status(job) is None, exit_status(job) or 0),
    ),
    "repository": _column("Repository", lambda job: tag(job, REPOSITORY_URL)),
}
STANDARD = ("id", "state", "application", "targets", "since", "owners")


@attrs.frozen(kw_only=True)
class Selection:
    """Which jobs: in one of `states` (or not in one, with "!" before it), of an owner, changed in a time span.

    Times are Unix seconds, in which a job came into the state that it is in.
    """

    states: tuple[str, ...] = (ANY,)
    application: str = ANY
    owner: str = ""
    since: float | None = None
    before: float | None = None

    @property
    def state_for_server(self) -> str:
        """What servers can choose by."""
        return self.states[0] if len(self.states) == 1 else ANY

    @property
    def by_server(self) -> bool:
        """Whether servers choose alone."""
        return len(self.states) == 1 and not self.owner and self.since is None and self.before is None

    def has(self, job: Job) -> bool:
        """Whether it is one of them, as far as servers cannot tell."""
        return (
            (len(self.states) == 1 or job.state.value in self.states)
            and (not self.owner or self.owner in job.owners)
            and (self.since is None or job.state_time_stamp >= self.since)
            and (self.before is None or job.state_time_stamp < self.before)
        )


def _states(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    states = tuple(dict.fromkeys(part.strip().lower() for part in value.split(",")))
    for state in states:
        if state.removeprefix("!") not in (ANY, *STORED) or (len(states) > 1 and state not in STORED):
            raise click.BadParameter(
                f"{state!r} is none of {', '.join(STORED)} (a single one with ! in front: all but these)"
            )
    return states


def _columns(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(part.strip().lower() for part in value.split(",") if part.strip())
    wrong = [name for name in names if name not in COLUMNS]
    if wrong or not names:
        raise click.BadParameter(f"{', '.join(wrong) or value!r} is none of {', '.join(COLUMNS)}")
    return names


state_option = click.option(
    "-s",
    "--state",
    "states",
    metavar="STATES",
    default=ANY,
    callback=_states,
    help="Only jobs in these states: queued,running; !STATE for all but these.",
)
application_option = click.option(
    "-a", "--application", metavar="NAME", default=ANY, help="Only jobs of this application; !NAME for the others."
)
limit_option = click.option("--limit", metavar="N", type=click.IntRange(min=1), help="At most so many jobs.")


@click.command("list")
@state_option
@application_option
@click.option("-o", "--owner", metavar="NAME", default="", help="Only jobs of this user or group.")
@click.option("--since", metavar="TIME", type=MOMENT, help="Only jobs in their state since TIME or later: 2h, 3d.")
@click.option("--before", metavar="TIME", type=MOMENT, help="Only jobs in their state since before TIME.")
@limit_option
@click.option("--sort", metavar="COLUMN", type=click.Choice(list(COLUMNS)), help="Sort by this column.")
@click.option("-r", "--reverse", is_flag=True, help="The last first; without --sort the highest numbers.")
@click.option(
    "-c",
    "--columns",
    metavar="NAMES",
    default=",".join(STANDARD),
    callback=_columns,
    help=f"Columns of the table, of {', '.join(COLUMNS)}.",
)
@click.option("--count", is_flag=True, help="Only say how many there are.")
@click.option("-q", "--quiet", is_flag=True, help="Only the jobs' numbers, as other commands take them.")
@common_options
@pass_options
def list_command(
    options: Options,
    states: tuple[str, ...],
    application: str,
    owner: str,
    since: float | None,
    before: float | None,
    limit: int | None,
    sort: str | None,
    reverse: bool,
    columns: tuple[str, ...],
    count: bool,
    quiet: bool,
) -> int:
    """List the jobs that you may see, on all servers of the project.

    TIME is how long ago (90min, 2h, 3d, 1w) or a date (2026-12-31, 2026-12-31T23:59). --limit counts after
    sorting. A server that does not answer is named, and the exit status is 1.

    \b
    Examples:
      lgi list --state queued,running
      lgi list --since 1d --sort since --columns id,application,exit
      lgi delete $(lgi list -q --state aborted)
    """
    if count and quiet:
        raise click.UsageError("either --count or --quiet")
    selection = Selection(states=states, application=application, owner=owner, since=since, before=before)
    order = Order(sort=sort or ("id" if reverse else ""), reverse=reverse, limit=limit)

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            if count:
                return await count_jobs(opened, selection, limit)
            return await list_jobs(opened, selection, order, columns=columns, quiet=quiet)

    return run(options, work)


@attrs.frozen(kw_only=True)
class Order:
    """By which column, "" for as the servers give them: by number, server after server; and how many at most."""

    sort: str = ""
    reverse: bool = False
    limit: int | None = None


async def chosen_jobs(session: Session, selection: Selection, order: Order) -> list[PlacedJob]:
    """The jobs; complains of servers that do not answer, and raises where none does."""
    limit = order.limit if selection.by_server and not order.sort else None
    partial = await session.grid.jobs(
        state=selection.state_for_server, application=selection.application, limit=limit
    )
    found = [job for job in partial.jobs if selection.has(job.answer.job)]
    if order.sort:
        key = COLUMNS[order.sort].order
        found.sort(key=lambda placed: key(placed.answer.job), reverse=order.reverse)
    for _server, problem in partial.problems:
        session.screen.complain(problem)
    return found[: order.limit]


async def list_jobs(
    session: Session,
    selection: Selection,
    order: Order,
    *,
    columns: Sequence[str] = STANDARD,
    quiet: bool = False,
) -> int:
    """Show the table of jobs, or only what they go by."""
    screen = session.screen
    found = await chosen_jobs(session, selection, order)
    called = await naming(session)
    if quiet:
        references = [called.of(job) for job in found]
        screen.result(references)
        for reference in references:
            screen.line(reference)
        return int(screen.failed)
    screen.result([called.value(job) for job in found])
    if found:
        headings = [COLUMNS[name].heading for name in columns]
        screen.table(headings, [row(called, job, columns) for job in found])
    else:
        screen.line("no jobs")
    return int(screen.failed)


def row(called: Naming, placed: PlacedJob, columns: Sequence[str]) -> list[str]:
    """A job in the table."""
    job = placed.answer.job
    return [called.of(placed) if name == "id" else COLUMNS[name].text(job) for name in columns]


async def count_jobs(session: Session, selection: Selection, limit: int | None) -> int:
    """Say how many jobs there are; servers count where they can choose."""
    if selection.by_server:
        total = 0
        servers = await session.grid.servers()
        failed: list[Exception] = []
        for server in servers:
            try:
                total += await session.patience.ask(
                    session.grid.user(server).count,
                    state=selection.state_for_server,
                    application=selection.application,
                )
            except (ServerRefused, ServerUnreachable, AnswerMalformed) as problem:
                failed.append(problem)
        if len(failed) == len(servers):
            raise failed[0]
        for one in failed:
            session.screen.complain(one)
    else:
        total = len(await chosen_jobs(session, selection, Order()))
    total = total if limit is None else min(total, limit)
    session.screen.result(total)
    session.screen.line(str(total))
    return int(session.screen.failed)
