"""`lgi admin log`: the record of what happened to jobs."""

from __future__ import annotations

import json
import time
from threading import Event

import attrs
import click

from lgi.admin.layout import AdminError
from lgi.admin.snapshots import Look, snapshots
from lgi.admin.store import project_database
from lgi.cli.complaint import Complaint
from lgi.cli.desk import Desk, open_desk, server_options
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import printable
from lgi.cli.show import moment
from lgi.db.log import GAP_SECONDS, LogReader
from lgi.model import LogEntry

BATCH = 1000
POLL_SECONDS = 0.5
# With room for clocks that differ.
SETTLED_SECONDS = 10 * GAP_SECONDS


@click.command()
@click.option("--job", "job_id", type=click.IntRange(1), metavar="N", help="Only what happened to this job.")
@click.option("--since", default=0, type=click.IntRange(0), metavar="NUMBER", help="Only entries after this one.")
@click.option("--follow", is_flag=True, help="Wait for more, until Ctrl-C; with --json, an object on each line.")
@server_options
@common_options
@pass_options
def log(options: Options, job_id: int | None, since: int, follow: bool) -> None:
    """Show what happened to jobs, by whom, in order.

    With --follow an entry whose transaction took longer may come after one with a higher number of another job;
    entries of one job always come in order, and each comes once.
    """
    desk = open_desk(options)
    reader = LogReader(since=since, job_id=job_id, settled_before=int(time.time()) - SETTLED_SECONDS)
    try:
        with snapshots(project_database(desk.config, desk.project)) as look:
            if follow:
                _follow(desk, look, reader)
            else:
                _show(desk, look, reader)
    except AdminError as problem:
        raise Complaint(str(problem)) from None


def _next(look: Look, reader: LogReader) -> list[LogEntry]:
    return look(lambda connection: reader.read(connection, time.monotonic(), BATCH))


def _show(desk: Desk, look: Look, reader: LogReader) -> None:
    values = []
    while entries := _next(look, reader):
        if desk.screen.json:
            values += [attrs.asdict(entry) for entry in entries]
        for entry in entries:
            desk.screen.line(_line(entry))
    desk.screen.result(values)


def _follow(desk: Desk, look: Look, reader: LogReader) -> None:
    pause = Event()
    while True:
        entries = _next(look, reader)
        for entry in entries:
            if desk.screen.json:
                print(json.dumps(attrs.asdict(entry)), file=desk.screen.out, flush=True)
            else:
                desk.screen.line(_line(entry))
        if len(entries) < BATCH:
            # Nothing tells another process of new entries: look again.
            pause.wait(POLL_SECONDS)


def _line(entry: LogEntry) -> str:
    change = f"{entry.from_state or 'new'} -> {entry.to_state}"
    text = f"{entry.number}  {moment(entry.time)}  job {entry.job_id}: {change}, by {entry.actor}"
    return printable(f"{text} ({entry.detail})" if entry.detail else text)
