"""`lgi servers`: which servers the project has, and whether they answer."""

from __future__ import annotations

from typing import Any

import attrs
import click
from twisted.internet.defer import Deferred, gatherResults

from lgi.cli.complaint import worded
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import Screen
from lgi.cli.session import Session, run, session
from lgi.client.answers import AnswerMalformed, ServerList, ServerRefused, ServerUnreachable
from lgi.client.reference import server_names


@click.command()
@common_options
@pass_options
def servers(options: Options) -> int:
    """List the project's servers, and how long each takes to answer; exits 1 when one does not.

    Each server has jobs of its own; a job's number says which of them has it as in 12@NAME.

    \b
    Examples:
      lgi servers
      lgi --server https://grid2.example.org:8443/LGI list
    """

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            return await list_servers(opened)

    return run(options, work)


@attrs.frozen(kw_only=True)
class Answered:
    """What a server said of the others, after so many seconds; or why it did not."""

    url: str
    seconds: float
    answer: ServerList | None = None
    problem: Exception | None = None


async def list_servers(session: Session) -> int:
    """Show the table, each server asked once and now."""
    urls = await session.grid.known_servers()

    async def ask(url: str) -> Answered:
        started = session.reactor.seconds()
        try:
            answer = await session.grid.user(url).servers()
        except (ServerRefused, ServerUnreachable, AnswerMalformed) as problem:
            return Answered(url=url, seconds=session.reactor.seconds() - started, problem=problem)
        return Answered(url=url, seconds=session.reactor.seconds() - started, answer=answer)

    asked = await gatherResults([Deferred.fromCoroutine(ask(url)) for url in urls], consumeErrors=True)
    master = next((one.answer.master for one in asked if one.answer is not None), "")
    names = server_names(urls)
    screen = session.screen
    for one in asked:
        if one.problem is not None:
            screen.complain(one.problem, names[one.url])
    screen.result([_value(one, names[one.url], master) for one in asked])
    rows = [
        (
            names[one.url],
            _role(one, master),
            f"{one.seconds * 1000:.0f} ms" if one.answer is not None else _short(one.problem),
            one.url,
        )
        for one in asked
    ]
    screen.table(("Server", "Role", "Answer", "Address"), rows)
    return int(screen.failed)


def _role(one: Answered, master: str) -> str:
    """What it is: a server may go by another address than the one by which it is reached."""
    own = one.url if one.answer is None else one.answer.this
    return "master" if own.rstrip("/") == master.rstrip("/") else "slave"


def _short(problem: Exception | None) -> str:
    return "refuses" if isinstance(problem, ServerRefused) else "does not answer"


def _value(one: Answered, name: str, master: str) -> dict[str, Any]:
    return {
        "name": name,
        "url": one.url,
        "role": _role(one, master),
        "answers": one.answer is not None,
        "seconds": round(one.seconds, 4) if one.answer is not None else None,
        "problem": worded(one.problem) if one.problem is not None else None,
    }
