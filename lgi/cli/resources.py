"""`lgi resources`: who offers what."""

from __future__ import annotations

import time
from typing import Any

import click

from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import Screen
from lgi.cli.session import Session, run, session
from lgi.cli.show import duration, resource_value


@click.command()
@common_options
@pass_options
def resources(options: Options) -> int:
    """List the project's resources, the applications each offers, and when it last called the server.

    \b
    Examples:
      lgi resources
      lgi resources --json | jq -r '.[].applications[]' | sort -u
    """

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            return await list_resources(opened, time.time())

    return run(options, work)


async def list_resources(session: Session, now: float) -> int:
    """Show the table; `now` in Unix seconds."""
    rows = await session.grid.resources()
    session.screen.result([resource_value(row) for row in rows])
    if not rows:
        session.screen.line("no resources")
        return 0
    called = [f"{duration(now - row.last_call_time)} ago" if row.last_call_time else "never" for row in rows]
    session.screen.table(
        ("Resource", "Applications", "Last call"),
        [(row.name, ", ".join(row.applications), when) for row, when in zip(rows, called, strict=True)],
    )
    return 0


async def offers(session: Session) -> str:
    """A hint that says which applications there are."""
    names = sorted({name for row in await session.grid.resources() for name in row.applications})
    return f"the project's resources offer {', '.join(names)}" if names else "no resource offers any application yet"
