"""What is shown of jobs while they are followed."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall, deferLater

from lgi.cli.references import Naming
from lgi.cli.screen import Screen, as_text, printable
from lgi.cli.session import Session
from lgi.cli.show import duration, state, succeeded, targets
from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.client.watch import Followed
from lgi.states import JobState

FEW = 20  # jobs that are shown one by one
REDRAW = 0.5
OUTPUT_PAUSE = 2.0
LAST_LINES = 8
EVENTS = 8


def good(one: Followed) -> bool:
    """Whether it has finished without a failure that is known."""
    return not one.gone and one.answer is not None and succeeded(one.answer.job)


def words(one: Followed) -> str:
    """What there is to say about it in a few words."""
    if one.gone:
        return "deleted"
    if one.answer is None:
        return "not known" if one.refused else "asking"
    job = one.answer.job
    return f"{job.state.value} on {targets(job)}" if job.state is JobState.RUNNING else state(job)


class Shown(Protocol):
    """Where jobs are shown."""

    def changed(self, one: Followed) -> None:
        """It is in another state."""

    async def beside(self, following: Awaitable[None]) -> None:
        """Wait for `following`, with what else has to be done meanwhile."""


class Lines:
    """A line for each change, in a pipe."""

    def __init__(self, screen: Screen, called: Naming) -> None:
        self._screen = screen
        self._called = called

    def changed(self, one: Followed) -> None:
        """Say so."""
        name = f"job {self._called.reference(one.server, one.job_id)}"
        if one.refused is not None:
            self._screen.complain(one.refused, name)
        else:
            self._screen.line(printable(f"{name}: {words(one)}"))

    async def beside(self, following: Awaitable[None]) -> None:
        """Nothing else."""
        await following


class Moving:
    """A picture that is kept up to date, on a terminal."""

    def __init__(self, session: Session, called: Naming, followed: Sequence[Followed], live: Any) -> None:
        self._session = session
        self._called = called
        self._followed = followed
        self._live = live
        self._events: deque[str] = deque(maxlen=EVENTS)

    def draw(self) -> None:
        """Draw it."""
        if len(self._followed) > FEW:
            drawn = crowd(self._followed, self._events)
        else:
            drawn = picture(self._followed, self._called, time.time())
        self._live.update(drawn, refresh=True)

    def changed(self, one: Followed) -> None:
        """Draw it anew; many jobs are drawn by the clock alone."""
        name = f"job {self._called.reference(one.server, one.job_id)}"
        if one.refused is not None:
            self._session.screen.complain(one.refused, name)
        if len(self._followed) > FEW:
            if one.over or one.state is JobState.RUNNING:
                self._events.append(f"{name}: {words(one)}")
        else:
            self.draw()

    async def beside(self, following: Awaitable[None]) -> None:
        """Keep an eye on the output of running jobs, where that is shown."""
        looking = Deferred.fromCoroutine(self._outputs()) if len(self._followed) <= FEW else None
        try:
            await following
        finally:
            if looking is not None:
                looking.addErrback(lambda failure: failure.trap(CancelledError) and None)
                looking.cancel()

    async def _outputs(self) -> None:
        while True:
            await deferLater(self._session.reactor, OUTPUT_PAUSE)
            for one in self._followed:
                if one.state is not JobState.RUNNING:
                    continue
                try:
                    answer = await self._session.grid.user(one.server).job(one.job_id)
                except (ServerRefused, ServerUnreachable, AnswerMalformed):
                    continue  # what is wrong there is said by who follows its state
                if one.state is JobState.RUNNING and answer.job.state is JobState.RUNNING:
                    one.answer = answer


@contextmanager
def shown(session: Session, called: Naming, followed: Sequence[Followed]) -> Iterator[Shown]:
    """Shows jobs: in a picture kept up to date on a terminal, else a line for each change."""
    screen = session.screen
    if not screen.terminal:
        yield Lines(screen, called)
        return
    from rich.live import Live

    console = screen.console()
    with Live(console=console, auto_refresh=False) as live, screen.drawing(console):
        moving = Moving(session, called, followed, live)
        moving.draw()
        redrawing = LoopingCall(moving.draw)
        redrawing.clock = session.reactor
        redrawing.start(REDRAW, now=False)
        try:
            yield moving
        finally:
            redrawing.stop()
            moving.draw()


_COLOURS = {
    JobState.RUNNING: "cyan",
    JobState.FINISHED: "green",
    JobState.ABORTING: "yellow",
    JobState.ABORTED: "red",
}


def picture(followed: Sequence[Followed], called: Naming, now: float) -> Any:
    """A few jobs one by one: state, since when, the last lines of output; `now` in Unix seconds."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    last: list[Text] = []
    for one in followed:
        name = f"job {called.reference(one.server, one.job_id)}"
        if one.answer is None:
            table.add_row(Text(name), Text(words(one)))
            continue
        job = one.answer.job
        colour = "red" if one.over and not good(one) else _COLOURS.get(job.state, "")
        since = "" if one.over else f"for {duration(now - job.state_time_stamp)}"
        application = Text(printable(job.application))
        table.add_row(Text(name), Text(printable(words(one)), style=colour), application, Text(since))
        lines = as_text(job.output or b"").rstrip("\n").split("\n")[-LAST_LINES if len(followed) == 1 else -1 :]
        heading = [] if len(followed) == 1 else [f"{name}:"]
        if job.output:
            last.extend(Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis") for line in heading + lines)
    return Group(table, *last)


def crowd(followed: Sequence[Followed], events: Iterable[str]) -> Any:
    """Many jobs: how many are in each state, how many are over, and what has happened last."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    states = Counter(
        "deleted" if one.gone else "not known" if one.state is None else one.state.value for one in followed
    )
    failed = sum(one.over and one.state is JobState.FINISHED and not good(one) for one in followed)
    counts = Text()
    for name, count in sorted(states.items(), key=lambda item: _ORDER.index(item[0])):
        counts.append(f"{name} {count}", style=_COLOURS.get(JobState(name), "") if name in _STATES else "")
        if failed and name == JobState.FINISHED:
            counts.append(f" ({failed} with a failure)", style="red")
        counts.append("   ")
    over = sum(one.over for one in followed)
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=len(followed), completed=over, width=40), Text(f"{over} of {len(followed)} are over")
    )
    lines = [Text(f"  {printable(line)}", style="dim", no_wrap=True, overflow="ellipsis") for line in events]
    return Group(counts, bar, *lines)


_STATES = frozenset(state.value for state in JobState)
_ORDER = ["not known", *(state.value for state in JobState)]
