"""Which job is meant: its number, and the server that has it where a project has several.

Each server of a project numbers its own jobs (LGI 1.41, Scaling of LGI), so a number alone may mean two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import attrs

MOST_DIGITS = 9


class UnknownReference(ValueError):
    """What is no reference to a job, or names no server of the project; the message says why."""


@attrs.frozen(kw_only=True, order=True)
class JobReference:
    """`12`, or `12@server` with the server's host, host:port or address; `server` is empty where none is named."""

    job_id: int
    server: str = ""

    def __str__(self) -> str:
        return f"{self.job_id}@{self.server}" if self.server else str(self.job_id)

    @classmethod
    def parse(cls, text: str) -> JobReference:
        """The reference that `text` is; raises UnknownReference."""
        number, at, server = text.strip().partition("@")
        if not (number.isascii() and number.isdigit() and len(number) <= MOST_DIGITS and int(number)):
            raise UnknownReference(f"{text!r} is not the number of a job, nor a number@server")
        if at and not server:
            raise UnknownReference(f"{text!r} names no server after the @")
        return cls(job_id=int(number), server=server.rstrip("/"))


def server_names(servers: Sequence[str]) -> dict[str, str]:
    """The shortest name that each server (address) can go by among these: its host, host:port, or its address."""
    names: dict[str, str] = {}
    for server in servers:
        for choose in (_host, _place, str):
            name = choose(server)
            if sum(choose(other) == name for other in servers) == 1:
                names[server] = name
                break
    return names


def named_server(name: str, servers: Sequence[str]) -> str:
    """The one of `servers` that goes by this name; raises UnknownReference where none or several do."""
    for choose in (str, _place, _host):
        found = [server for server in servers if choose(server) == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownReference(f"{name} may be any of {', '.join(found)}")
    raise UnknownReference(
        f"{name} is none of the project's servers, which are {', '.join(server_names(servers).values())}"
    )


def _host(server: str) -> str:
    return urlsplit(server).hostname or server


def _place(server: str) -> str:
    parts = urlsplit(server)
    return f"{parts.hostname}:{parts.port or 443}"
