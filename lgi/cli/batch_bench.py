"""What the commands of `lgi batch` have in common: batch system, records, a reactor to wait in."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import click
from twisted.internet.task import react

from lgi.batch.command import Commands
from lgi.batch.jobs import Batch
from lgi.batch.record import Record, read_record
from lgi.batch.shared import MAX_AGE, Shared, shared_directory
from lgi.batch.system import NAMES, open_system
from lgi.batch.values import BatchError
from lgi.batch.verdict import GRACE
from lgi.cli.complaint import Complaint
from lgi.cli.options import Options
from lgi.cli.screen import Screen, standard_screen

NO = 1  # exit status of an answer that is no, and of what was refused


@attrs.frozen(kw_only=True)
class Bench:
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


def open_batch(reactor: Any, system: str, *, limit: float, max_age: float = MAX_AGE, grace: float = GRACE) -> Batch:
    """The jobs of a batch system, with the answers that all processes share; the times are in seconds."""
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


def on_jobs(
    options: Options,
    work: Callable[[Bench], Awaitable[int]],
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
            opened = open_batch(reactor, chosen or NAMES[0], **settings)
            known = {path: await opened.known(path) for path in records}
            return await work(Bench(batch=opened, reactor=reactor, screen=screen, records=known, numbers=numbers))
        except (click.UsageError, click.exceptions.Exit):
            raise
        except Exception as problem:
            screen.complain(Complaint(str(problem)) if isinstance(problem, BatchError) else problem)
            return trouble

    return run(options, whole)
