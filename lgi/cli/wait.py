"""`lgi wait`: follow jobs until they are over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import click
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore, TimeoutError, gatherResults

from lgi.cli.follow import Shown, good, shown, words
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.references import JOB, Naming, Place, located, naming, nothing_to_do
from lgi.cli.screen import Screen
from lgi.cli.session import Session, run, session
from lgi.client.answers import ServerRefused
from lgi.client.grid import PlacedJob
from lgi.client.patience import Patience
from lgi.client.post import CONNECTIONS
from lgi.client.reference import JobReference
from lgi.client.transfer import Stall
from lgi.client.watch import ABOUT_ONE_JOB, LONGEST_PAUSE, Followed, Watch
from lgi.states import JobState

OUTAGE = 3600.0
TIMED_OUT = 124  # as of timeout(1)
MANY_LATE = 10


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1, type=JOB)
@click.option("--any", "first", is_flag=True, help="Return as soon as one of them is over.")
@click.option(
    "--timeout", metavar="SECONDS", type=click.FloatRange(min=0), help="Give up after this time; 0 looks once."
)
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=LONGEST_PAUSE,
    show_default=True,
    help="Longest time between two looks at a server that cannot tell of changes.",
)
@common_options
@pass_options
def wait(
    options: Options, jobs: tuple[JobReference, ...], first: bool, timeout: float | None, interval: float
) -> int:
    """Follow each JOB until it is finished, aborted or deleted.

    Exits 0 when all have finished (with exit status 0, where that is known), 1 when one has not, 124 on a timeout.
    With --any the first that is over decides. Ctrl-C ends the waiting, not the jobs.

    \b
    Examples:
      lgi wait 12 13
      lgi wait $(lgi list -q --state queued,running)
      lgi wait --timeout 0 12 && echo finished
    """

    if not jobs:
        return nothing_to_do(options)

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            places = await located(opened, jobs)
            if not places:
                screen.result([])
                return 1
            several = len(jobs) > 1
            status = await wait_for(opened, places, timeout=timeout, interval=interval, first=first, several=several)
            return status or int(screen.failed)

    return run(options, work)


@attrs.frozen(kw_only=True)
class Outcome:
    """What has become of jobs: whether it was in time, and which was over first where that was all that counted."""

    followed: tuple[Followed, ...]
    called: Naming
    in_time: bool = True
    first: Followed | None = None

    @property
    def status(self) -> int:
        """The exit status."""
        if self.first is not None:
            return 0 if good(self.first) else 1
        if not self.in_time and not all(one.over for one in self.followed):
            return TIMED_OUT
        return 0 if all(good(one) for one in self.followed) else 1

    def value(self, one: Followed) -> dict[str, Any]:
        """A job for JSON."""
        if one.gone or one.answer is None:
            reference = self.called.reference(one.server, one.job_id)
            state = JobState.DELETED.value if one.gone else None
            return {"reference": reference, "server": one.server, "job_id": one.job_id, "state": state}
        return self.called.value(PlacedJob(server=one.server, answer=one.answer))


async def wait_for(
    session: Session,
    places: Sequence[Place],
    *,
    timeout: float | None = None,
    interval: float = LONGEST_PAUSE,
    first: bool = False,
    several: bool = False,
) -> int:
    """Follow the jobs, show what happens to them, and return the exit status; `timeout` and `interval` in seconds.

    For JSON `several` gives an array where there is a single job too.
    """
    outcome = await followed_to_the_end(session, places, timeout=timeout, interval=interval, first=first)
    report(session.screen, outcome, several=several or len(places) > 1)
    return outcome.status


def report(screen: Screen, outcome: Outcome, *, several: bool) -> None:
    """The jobs for JSON."""
    if outcome.first is not None:
        screen.result(outcome.value(outcome.first))
    else:
        values = [outcome.value(one) for one in outcome.followed]
        screen.result(values if several else values[0])


async def followed_to_the_end(
    session: Session,
    places: Sequence[Place],
    *,
    timeout: float | None = None,
    interval: float = LONGEST_PAUSE,
    first: bool = False,
) -> Outcome:
    """What becomes of the jobs, shown meanwhile; raises what asking for them raises."""
    screen = session.screen
    called = await naming(session)
    followed = tuple(Followed(server=server, job_id=job_id) for server, job_id in dict.fromkeys(places))
    # A job that is locked all the time is no reason to give up, the caller's timeout is.
    patience = Patience(session.reactor, busy=float("inf"), unreachable=OUTAGE, note=screen.note)

    async def job_wait(server: str) -> int:
        return (await session.grid.announced(server)).job_wait

    watch = Watch(
        reactor=session.reactor,
        connect=session.grid.user,
        job_wait=job_wait,
        patience=patience,
        interval=interval,
    )
    try:
        with shown(session, called, followed) as picture:
            if timeout == 0:
                await _look_once(session, followed, patience, picture)
                winner, in_time = (
                    next((one for one in followed if first and one.over and not one.refused), None),
                    False,
                )
            else:
                winner, in_time = await _followed(session, watch, followed, picture, timeout, first=first)
    except CancelledError:
        left = [one for one in followed if not one.over]
        if left:
            names = " ".join(called.reference(one.server, one.job_id) for one in left[:MANY_LATE])
            more = " …" if len(left) > MANY_LATE else ""
            what = "the job goes on; follow it" if len(left) == 1 else f"{len(left)} jobs go on; follow them"
            screen.note(f"{what} again with: lgi wait {names}{more}")
        raise
    outcome = Outcome(followed=followed, called=called, in_time=in_time, first=winner)
    if outcome.status == TIMED_OUT:
        _say_late(screen, outcome, timeout or 0)
    return outcome


def _say_late(screen: Screen, outcome: Outcome, timeout: float) -> None:
    late = [one for one in outcome.followed if not one.over]
    names = [f"job {outcome.called.reference(one.server, one.job_id)} ({words(one)})" for one in late[:MANY_LATE]]
    more = f" and {len(late) - MANY_LATE} more" if len(late) > MANY_LATE else ""
    when = f"after {timeout:g} s" if timeout else "yet"
    screen.note(f"not over {when}: {', '.join(names)}{more}")


async def _followed(
    session: Session,
    watch: Watch,
    followed: Sequence[Followed],
    picture: Shown,
    timeout: float | None,
    *,
    first: bool,
) -> tuple[Followed | None, bool]:
    """The one that was over first, if that is asked for; and whether it was in time."""
    winner: list[Followed] = []
    ending: list[Any] = []

    def changed(one: Followed) -> None:
        picture.changed(one)
        if first and one.over and not one.refused and not winner:
            winner.append(one)
            ending.append(session.reactor.callLater(0, following.cancel))

    async def follow() -> None:
        await picture.beside(watch.follow(followed, changed))

    following = Deferred.fromCoroutine(follow())
    try:
        if timeout is None:
            await following
        else:
            await Stall(session.reactor, timeout).watch(following)
    except TimeoutError:
        return None, False
    except CancelledError:
        if not winner:
            raise
    finally:
        for call in ending:
            if call.active():
                call.cancel()
    return (winner[0] if winner else None), True


async def _look_once(session: Session, followed: Sequence[Followed], patience: Patience, picture: Shown) -> None:
    gate = DeferredSemaphore(CONNECTIONS)

    async def look(one: Followed) -> None:
        await gate.acquire()
        try:
            one.answer = await patience.ask(session.grid.user(one.server).job, one.job_id)
        except ServerRefused as problem:
            if problem.number not in ABOUT_ONE_JOB:
                raise
            one.refused = problem
        finally:
            gate.release()
        picture.changed(one)

    await gatherResults([Deferred.fromCoroutine(look(one)) for one in followed], consumeErrors=True)
