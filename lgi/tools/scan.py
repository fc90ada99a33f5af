"""Elements in text, found as the deployed programs find them (see lgi.wire.dialect); nothing is imported.

`<tag` followed by white space or `>` begins an element, the first `</tag>` after it ends it.
"""

from __future__ import annotations

_ESCAPES = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&"))


class Element:
    """An element's attributes and content as they stand in the text, and where it begins and ends there."""

    def __init__(self, attributes: str, content: str, start: int, end: int) -> None:
        self.attributes = attributes
        self.content = content
        self.start = start
        self.end = end

    def has(self, attribute: str) -> bool:
        """Whether it has this attribute, such as `number='1'`; the quotes may be of either kind or left out."""
        return _plain(attribute) in _split(self.attributes)


def find(text: str, tag: str, start: int = 0) -> Element | None:
    """The first whole element of this name that begins at `start` or later; None if there is none."""
    opening, closing = f"<{tag}", f"</{tag}>"
    while (begin := text.find(opening, start)) >= 0:
        start = begin + len(opening)
        if text[start : start + 1] == ">" or text[start : start + 1].isspace():
            inside = text.find(">", start) + 1
            end = text.find(closing, inside) if inside else -1
            if end < 0:
                return None
            return Element(text[start : inside - 1].strip(), text[inside:end], begin, end + len(closing))
    return None


def find_all(text: str, tag: str) -> list[Element]:
    """All elements of this name that are not inside one another, in their order."""
    found = []
    element = find(text, tag)
    while element is not None:
        found.append(element)
        element = find(text, tag, element.end)
    return found


def content_of(text: str, tag: str) -> str:
    """The stripped content of the first element of this name, escapes and all; empty if there is none."""
    element = find(text, tag)
    return "" if element is None else element.content.strip()


def unescape(text: str) -> str:
    """The text that the dialect's five escapes stand for."""
    for escaped, plain in _ESCAPES:
        text = text.replace(escaped, plain)
    return text


def _plain(attribute: str) -> tuple[str, str]:
    name, _, value = attribute.partition("=")
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return name.strip(), value


def _split(attributes: str) -> list[tuple[str, str]]:
    """The names and values in `number='1' kind="a b"`."""
    found = []
    while attributes := attributes.strip():
        name, equals, rest = attributes.partition("=")
        rest = rest.lstrip()
        if rest[:1] in ("'", '"') and equals:
            value, _, attributes = rest[1:].partition(rest[0])
        else:
            value, _, attributes = rest.partition(" ")
        found.append((name.strip(), value))
    return found
