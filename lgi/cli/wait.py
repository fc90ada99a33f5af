"""`lgi wait`: follow jobs until they are over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import click
from twisted.internet.defer import Deferred, DeferredSemaphore, FirstError, TimeoutError, gatherResults
from twisted.internet.task import LoopingCall, deferLater

from lgi.cli.jobs import ABOUT_ONE_JOB, JOB_ID
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import Screen, as_text, printable
from lgi.cli.session import Session, run, session
from lgi.cli.show import duration, job_value, state, succeeded, targets
from lgi.client.answers import JobAnswer, ServerRefused
from lgi.client.patience import Patience
from lgi.client.post import CONNECTIONS
from lgi.client.transfer import Stall
from lgi.errors import ErrorNumber
from lgi.states import TERMINAL, JobState

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 2.0
PAUSE_GROWTH = 1.4
OUTAGE = 60.0
TIMED_OUT = 124  # as of timeout(1)
REDRAW = 0.5
LAST_LINES = 8


@attrs.define(kw_only=True)
class Followed:
    """A job that is being followed; `refused` where the server does not let us."""

    job_id: int
    answer: JobAnswer | None = None
    gone: bool = False
    refused: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.gone or self.refused or (self.answer is not None and self.answer.job.state in TERMINAL)

    @property
    def good(self) -> bool:
        """Whether it has finished without a failure that is known."""
        return not self.gone and self.answer is not None and succeeded(self.answer.job)

    @property
    def state(self) -> str:
        """What there is to say about it in a few words."""
        if self.gone:
            return "deleted"
        if self.answer is None:
            return "not known" if self.refused else "asking"
        job = self.answer.job
        return f"{job.state.value} on {targets(job)}" if job.state is JobState.RUNNING else state(job)

    @property
    def value(self) -> dict[str, Any]:
        """The job for JSON."""
        if self.gone or self.answer is None:
            return {"job_id": self.job_id, "state": JobState.DELETED.value if self.gone else None}
        return job_value(self.answer)


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, type=JOB_ID, required=True)
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0), help="Give up after this time.")
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=LONGEST_PAUSE,
    show_default=True,
    help="Longest time between two looks.",
)
@common_options
@pass_options
def wait(options: Options, jobs: tuple[int, ...], timeout: float | None, interval: float) -> int:
    """Follow each JOB until it is finished, aborted or deleted.

    Exits 0 when all have finished (with exit status 0, where that is known), 1 when one has not, 124 on a timeout.
    """

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            return await wait_for(opened, jobs, timeout=timeout, interval=interval)

    return run(options, work)


async def wait_for(
    session: Session, jobs: tuple[int, ...], *, timeout: float | None = None, interval: float = LONGEST_PAUSE
) -> int:
    """Follow the jobs, show what happens to them, and return the exit status; `timeout` and `interval` in seconds."""
    screen = session.screen
    followed = [Followed(job_id=job_id) for job_id in dict.fromkeys(jobs)]
    # A job that is locked all the time is no reason to give up, the caller's timeout is.
    patience = Patience(session.reactor, busy=float("inf"), unreachable=OUTAGE, note=screen.note)
    gate = DeferredSemaphore(CONNECTIONS)
    in_time = True
    with _shown(session, followed) as changed:
        following = [
            Deferred.fromCoroutine(_follow(session, one, patience, gate, interval, changed)) for one in followed
        ]
        try:
            everything = gatherResults(following, consumeErrors=True)
            if timeout is None:
                await everything
            else:
                await Stall(session.reactor, timeout).watch(everything)
        except TimeoutError:
            in_time = False
        except FirstError as first:
            problem = first.subFailure.value
            assert isinstance(problem, Exception)
            raise problem from None
        finally:
            for one in following:
                one.cancel()
    values = [one.value for one in followed]
    screen.result(values if len(jobs) > 1 else values[0])
    if not in_time:
        late = ", ".join(f"job {one.job_id} ({one.state})" for one in followed if not one.over)
        screen.note(f"not over after {timeout:g} s: {late}")
        return TIMED_OUT
    return 0 if all(one.good for one in followed) else 1


async def _follow(
    session: Session,
    one: Followed,
    patience: Patience,
    gate: DeferredSemaphore,
    interval: float,
    changed: Callable[[Followed], None],
) -> None:
    pause = FIRST_PAUSE
    while True:
        before = one.state
        await gate.acquire()
        try:
            one.answer = await patience.ask(session.user.job, one.job_id)
        except ServerRefused as problem:
            if problem.number not in ABOUT_ONE_JOB:
                raise
            if one.answer is not None and problem.number == ErrorNumber.JOB_UNKNOWN:
                one.gone = True
            else:
                one.refused = True
                session.screen.complain(problem, f"job {one.job_id}")
        finally:
            gate.release()
        if one.state != before:
            changed(one)
            pause = FIRST_PAUSE
        if one.over:
            return
        await deferLater(session.reactor, min(pause, interval))
        pause *= PAUSE_GROWTH


@contextmanager
def _shown(session: Session, followed: list[Followed]) -> Iterator[Callable[[Followed], None]]:
    """Gives what to call when a job has changed: a picture kept up to date on a terminal, else a line for each."""
    screen = session.screen
    if not screen.terminal:
        yield lambda one: None if one.refused else screen.line(printable(f"job {one.job_id}: {one.state}"))
        return
    from rich.live import Live

    console = screen.console()
    first = picture(followed, time.time())
    with Live(first, console=console, auto_refresh=False) as live, screen.drawing(console):

        def draw(_one: Followed | None = None) -> None:
            live.update(picture(followed, time.time()), refresh=True)

        redrawing = LoopingCall(draw)
        redrawing.clock = session.reactor
        redrawing.start(REDRAW, now=False)
        try:
            yield draw
        finally:
            redrawing.stop()
            draw()


_COLOURS = {
    JobState.RUNNING: "cyan",
    JobState.FINISHED: "green",
    JobState.ABORTING: "yellow",
    JobState.ABORTED: "red",
}


def picture(followed: list[Followed], now: float) -> Any:
    """The jobs as a terminal shows them: state, since when, the last lines of output; `now` in Unix seconds."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    last: list[Text] = []
    for one in followed:
        if one.answer is None:
            table.add_row(Text(f"job {one.job_id}"), Text(one.state))
            continue
        job = one.answer.job
        colour = "red" if one.over and not one.good else _COLOURS.get(job.state, "")
        since = "" if one.over else f"for {duration(now - job.state_time_stamp)}"
        application = Text(printable(job.application))
        table.add_row(Text(f"job {one.job_id}"), Text(printable(one.state), style=colour), application, Text(since))
        lines = as_text(job.output or b"").rstrip("\n").split("\n")[-LAST_LINES if len(followed) == 1 else -1 :]
        heading = [] if len(followed) == 1 else [f"job {one.job_id}:"]
        if job.output:
            last.extend(Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis") for line in heading + lines)
    return Group(table, *last)
