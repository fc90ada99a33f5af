"""Calls of a project server whose answers are shown as they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from lxml import etree

from lgi.client.answers import AnswerMalformed, read_response
from lgi.client.patience import Patience
from lgi.client.post import Server
from lgi.lists import encode_list
from lgi.tools.account import UserAccount
from lgi.tools.notes import Notes
from lgi.tools.scan import Element, content_of, find, find_all
from lgi.wire.dialect import text_of


@attrs.frozen(kw_only=True)
class Response:
    """The `<response>` of an answer: what stands in it, and the same parsed."""

    text: str
    node: etree._Element

    def value(self, tag: str) -> str:
        """The text of its first element of this name, empty if there is none."""
        return text_of(self.node, tag)

    def one(self, tag: str) -> Part:
        """Its first element of this name; raises AnswerMalformed."""
        parts = self.all(tag)
        if not parts:
            raise AnswerMalformed(f"the server's answer has no <{tag}>")
        return parts[0]

    def all(self, tag: str) -> list[Part]:
        """Its elements of this name; raises AnswerMalformed where text and elements disagree."""
        nodes, elements = self.node.findall(tag), find_all(self.text, tag)
        if len(nodes) != len(elements):
            raise AnswerMalformed(f"the server's answer has elements <{tag}> in each other")
        return [Part(text=element.content, node=node) for node, element in zip(nodes, elements, strict=True)]


@attrs.frozen(kw_only=True)
class Part:
    """An element in a response: its content as it came, and the same parsed."""

    text: str
    node: etree._Element

    def value(self, tag: str) -> str:
        """The text of its first element of this name, empty if there is none."""
        return text_of(self.node, tag)

    def raw(self, tag: str) -> str:
        """The content of its first element of this name as it came, stripped."""
        return content_of(self.text, tag)


def read(body: bytes) -> Response:
    """An answer as a Response; raises what `read_response` raises."""
    node = read_response(body)
    text = body.decode("utf-8", "surrogateescape")
    element: Element | None = find(text, "response")
    # The last closing tag is the right one: what stands in the answer cannot end it earlier.
    if element is None:
        raise AnswerMalformed("the server's answer has no <response>")
    start = text.index(">", element.start) + 1
    return Response(text=text[start : text.rindex("</response>")], node=node)


@attrs.frozen(kw_only=True)
class Calls:
    """Asks a server, again while it says that it is busy; `own` are the fields of every call."""

    server: Server
    patience: Patience
    notes: Notes
    own: Mapping[str, str | int] = attrs.field(factory=dict)

    async def ask(self, path: str, fields: Mapping[str, str | int], uploads: Sequence[Path] = ()) -> Response:
        """The answer to one call; raises what `Server.call` raises."""
        posted = {**self.own, **fields}
        self.notes.debug(f"asks {self.server.url}/{path}")
        shown = ", ".join(f"{name}={_shown(name, value)}" for name, value in posted.items())
        files = "".join(f", {upload}" for upload in uploads)
        self.notes.everything(f"posts project={self.server.project}, {shown}{files}")
        body = await self.patience.ask(self.server.answer, path, posted, uploads)
        self.notes.everything(f"got an answer of {len(body)} bytes")
        return read(body)


def _shown(name: str, value: str | int) -> str:
    return f"({len(str(value)) // 2} bytes)" if name in ("input", "output") else str(value)


def own_fields(account: UserAccount) -> dict[str, str | int]:
    """What a user posts with every call."""
    return {"user": account.user, "groups": encode_list(account.groups)}
