"""`lgi admin sessions` and `lgi admin locks`: who is at work on this project, and what they hold."""

from __future__ import annotations

import attrs
import click

from lgi.admin import oversight
from lgi.cli.admin_jobs import job_numbers
from lgi.cli.desk import open_desk, server_options
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.several import each, end
from lgi.cli.show import moment
from lgi.db.oversight import LockRow, list_locks, list_sessions


@click.group()
@server_options
def sessions() -> None:
    """The sessions of resources."""


@sessions.command("list")
@server_options
@common_options
@pass_options
def list_of_sessions(options: Options) -> None:
    """Show the sessions, when their resources last called, and how many jobs they hold locked."""
    desk = open_desk(options)
    found = desk.run(list_sessions)
    desk.screen.result([attrs.asdict(session) for session in found])
    desk.screen.table(
        ["session", "resource", "last_call", "locks"],
        [
            [
                str(session.session_id),
                session.resource_name or "?",
                moment(session.session_time_stamp),
                str(session.locks),
            ]
            for session in found
        ],
    )


@sessions.command("end")
@click.argument("session_ids", metavar="SESSION…", nargs=-1, required=True, type=click.IntRange(1))
@server_options
@common_options
@pass_options
def end_sessions(options: Options, session_ids: tuple[int, ...]) -> None:
    """End sessions and free their locks; their resources sign up again."""
    desk = open_desk(options)
    for session_id, freed in each(
        desk,
        session_ids,
        lambda connection, session_id: (session_id, oversight.end(connection, session_id)),
        lambda outcome: {"session_id": outcome[0], "unlocked": outcome[1]},
    ):
        unlocked = f"; unlocked: {', '.join(map(str, freed))}" if freed else ""
        desk.screen.line(f"Session {session_id} has ended{unlocked}")
    end(desk)


@click.group()
@server_options
def locks() -> None:
    """The locks on jobs."""


@locks.command("list")
@server_options
@common_options
@pass_options
def list_of_locks(options: Options) -> None:
    """Show which jobs are locked, by whom and since when."""
    desk = open_desk(options)
    found = desk.run(list_locks)
    desk.screen.result([attrs.asdict(lock) for lock in found])
    desk.screen.table(
        ["job", "session", "holder", "since"],
        [[str(lock.job_id), str(lock.session_id), _holder(lock), moment(lock.lock_time)] for lock in found],
    )


def _holder(lock: LockRow) -> str:
    return lock.resource_name or ("?" if lock.session_id else "an interface")


@locks.command("clear")
@job_numbers
@server_options
@common_options
@pass_options
def clear(options: Options, job_ids: tuple[int, ...]) -> None:
    """Take the locks off jobs; what their holders do with these jobs afterwards is refused."""
    desk = open_desk(options)
    cleared = each(desk, job_ids, oversight.clear_lock, attrs.asdict)
    for lock in cleared:
        desk.screen.line(f"Job {lock.job_id} is not locked any more; session {lock.session_id} held it")
    end(desk)
