"""What a project server asks of another one (LGI 1.41, Project server synchronization API)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs
from lxml import etree

from lgi.client.answers import AnswerMalformed, read_integer
from lgi.lists import decode_list
from lgi.model import Update
from lgi.wire.binhex import decode_binhex
from lgi.wire.dialect import text_of


class Calls(Protocol):
    """What can be called, as `lgi.client.post.Server`."""

    async def call(self, path: str, fields: Mapping[str, str | int]) -> etree._Element:
        """Post a form; the answer's `<response>`."""


@attrs.frozen(kw_only=True)
class PeerClient:
    """Calls in the name of the project server whose certificate the connection carries.

    Every call raises what `Server.call` raises.
    """

    server: Calls

    async def next_update(self, version: int) -> Update | None:
        """The update that follows `version` there, None if there is none."""
        response = await self.server.call("servers/server_get_update.php", {"version": version})
        if not read_integer(response, "update/updates"):
            return None
        try:
            query = decode_binhex(text_of(response, "update/update_query"))
        except ValueError:
            raise AnswerMalformed("the server's answer has no hexadecimal text in <update_query>") from None
        return Update(
            version=read_integer(response, "update/update_version"),
            servers=decode_list(text_of(response, "update/target_servers")),
            query=query,
        )

    async def begin_cycle(self) -> None:
        """Let that server ask all others for updates; returns when it has."""
        await self.server.call("servers/server_run_update.php", {})
