"""`lgi whoami`: the certificate and the configuration, and what the server thinks of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import click
from cryptography import x509
from cryptography.x509.oid import NameOID

from lgi.cli.complaint import Complaint
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.screen import Screen, printable, standard_screen
from lgi.cli.session import Session, run, session
from lgi.client.answers import AnswerMalformed, ServerRefused, ServerUnreachable
from lgi.client.settings import UserSettings, read_settings
from lgi.errors import LGIError
from lgi.identity import Identity, parse_common_name
from lgi.tls import common_name

_NEW = "ask your project's administrator for a new one"
SOON = 30  # days before a certificate ends in which that is said


@click.command()
@common_options
@pass_options
def whoami(options: Options) -> int:
    """Show who you are: the name, groups and projects of your certificate, and until when it is good.

    It works without a server too, and says so. Exits 1 when the certificate has expired, or the server refuses it.

    \b
    Examples:
      lgi whoami
      lgi whoami --json | jq .days_left
    """
    settings = read_settings(options.directory, server=options.server, project=options.project)
    paper = read_paper(settings.certificate, datetime.now(UTC))
    screen = standard_screen(json=options.json, verbose=options.verbose)
    say_paper(screen, paper, settings)
    if paper.days_left < 0:
        screen.result(value(paper, settings, answers=False))
        screen.complain(Complaint(f"{settings.certificate} has expired; {_NEW}"))
        return 1

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            return await ask_server(opened, paper)

    return run(options, work)


@attrs.frozen(kw_only=True)
class Paper:
    """What a certificate says."""

    identity: Identity
    issuer: str
    valid_until: datetime
    days_left: int


def read_paper(file: Path, now: datetime) -> Paper:
    """Read a certificate, expired ones too; raises Complaint."""
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        identity = parse_common_name(common_name(certificate))
    except (ValueError, LGIError) as problem:
        raise Complaint(f"{file}: not the certificate of a user: {problem}") from None
    issuers = certificate.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    until = certificate.not_valid_after_utc
    return Paper(
        identity=identity,
        issuer=str(issuers[0].value) if issuers else certificate.issuer.rfc4514_string(),
        valid_until=until,
        days_left=(until - now).days,
    )


def say_paper(screen: Screen, paper: Paper, settings: UserSettings) -> None:
    """The lines about the certificate and the configuration."""
    until = paper.valid_until.astimezone().strftime("%Y-%m-%d %H:%M")
    days = f"{paper.days_left} day{'' if paper.days_left == 1 else 's'} left" if paper.days_left >= 0 else "expired"
    projects = paper.identity.projects
    fields = {
        "Name": paper.identity.name,
        "Groups": _listed(paper.identity.groups, settings.groups),
        "Projects": "all" if projects is None else _listed(projects, (settings.project,)),
        "Issuer": paper.issuer,
        "Valid until": f"{until} ({days})",
        "Directory": str(settings.directory),
        "Server": settings.server,
    }
    for name, text in fields.items():
        screen.line(printable(f"{name + ':':<13}{text}"))
    if 0 <= paper.days_left < SOON:
        screen.note(f"the certificate ends in {days.removesuffix(' left')}; {_NEW}")


def _listed(has: tuple[str, ...], used: tuple[str, ...]) -> str:
    """What the certificate has, and which of it the configuration uses where that is not all."""
    text = ", ".join(has) or "none"
    return text if set(used) >= set(has) else f"{text} (in use: {', '.join(used)})"


def value(paper: Paper, settings: UserSettings, *, answers: bool, servers: tuple[str, ...] = ()) -> dict[str, Any]:
    """All of it for JSON."""
    projects = paper.identity.projects
    return {
        "name": paper.identity.name,
        "groups": list(paper.identity.groups),
        "projects": None if projects is None else list(projects),
        "issuer": paper.issuer,
        "valid_until": paper.valid_until.isoformat(),
        "days_left": paper.days_left,
        "directory": str(settings.directory),
        "server": settings.server,
        "project": settings.project,
        "user": settings.user,
        "groups_in_use": list(settings.groups),
        "server_answers": answers,
        "servers": list(servers),
    }


async def ask_server(session: Session, paper: Paper) -> int:
    """Say whether the server knows the user."""
    screen, settings = session.screen, session.settings
    try:
        answer = await session.grid.user().servers()
    except ServerUnreachable as problem:
        screen.result(value(paper, settings, answers=False))
        screen.note(f"the server was not asked: {problem}")
        return 0
    except (ServerRefused, AnswerMalformed) as problem:
        screen.result(value(paper, settings, answers=False))
        screen.complain(problem)
        return 1
    screen.result(value(paper, settings, answers=True, servers=answer.all))
    several = f", one of {len(answer.all)} of the project" if len(answer.all) > 1 else ""
    screen.line(printable(f"{'Accepted:':<13}by the server{several}, in project {settings.project}"))
    return 0
