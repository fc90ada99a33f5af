"""`lgi admin events`: the scheduler's agenda (LGI 1.41, event_queue)."""

from __future__ import annotations

import time
from datetime import datetime

import click

from lgi.cli.desk import open_desk, server_options
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.show import moment
from lgi.db.events import REPOSITORY_RESOURCES, SCHEDULE_CYCLE, UPDATE_CYCLE, UPDATE_SERVERS, schedule
from lgi.db.oversight import list_events

EVENTS = (REPOSITORY_RESOURCES, SCHEDULE_CYCLE, UPDATE_CYCLE, UPDATE_SERVERS)


@click.group()
@server_options
def events() -> None:
    """What the scheduler is to do, and when."""


@events.command("list")
@server_options
@common_options
@pass_options
def list_of_events(options: Options) -> None:
    """Show the agenda, what is due first at the top."""
    desk = open_desk(options)
    found = desk.run(list_events)
    desk.screen.result([{"event": event, "event_time_stamp": at} for at, event in found])
    desk.screen.table(["at", "event"], [[moment(at), event] for at, event in found])


@events.command("add")
@click.argument("name", type=click.Choice(EVENTS))
@click.option("--at", metavar="TIME", help="When, as 2030-12-31T23:59:00 or in Unix seconds; at once by default.")
@server_options
@common_options
@pass_options
def add(options: Options, name: str, at: str | None) -> None:
    """Put an event on the agenda."""
    when = int(time.time()) if at is None else _time(at)
    desk = open_desk(options)
    desk.run(lambda connection: schedule(connection, name, when))
    desk.screen.result({"event": name, "event_time_stamp": when})
    desk.screen.line(f"{name} at {moment(when)}")


def _time(text: str) -> int:
    try:
        found = int(text) if text.isascii() and text.isdigit() else int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError):
        found = -1
    if not 0 <= found < 1 << 62:
        raise click.UsageError(f"--at is a time such as 2030-12-31T23:59:00, or Unix seconds, not {text!r}")
    return found
