"""`LGI.cfg` as nested sections that collect what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

from lxml import etree

from lgi.lists import decode_list
from lgi.wire.dialect import escape, inner_xml

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
# Owner names are tags there, and "mark@laptop" is none to an XML parser: the content is kept as text.
_OWNERS = re.compile(r"<(owner_allow|owner_deny)>(.*?)</\1>", re.DOTALL)
_OWNER = re.compile(r"<([^<>/,\s!][^<>/,]*)>([^<>]*)</\1\s*>")
_DIGITS = re.compile(r"[0-9]{1,9}")


def read_sections(path: Path) -> tuple[Section | None, list[str]]:
    """The file's `<LGI>` section, and the list that it adds its mistakes to; no section where nothing can be read."""
    mistakes: list[str] = []
    try:
        text = path.read_text("utf-8")
        if "<!DOCTYPE" in text:
            return None, [f"{path}: has a document type, which has no place in it"]
        text = _OWNERS.sub(lambda found: f"<{found[1]}>{escape(found[2])}</{found[1]}>", _COMMENT.sub("", text))
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
        node = etree.fromstring(text.encode(), parser)
    except OSError as problem:
        return None, [f"{path}: cannot be read: {problem.strerror}"]
    except UnicodeDecodeError:
        return None, [f"{path}: is not text in UTF-8"]
    except etree.XMLSyntaxError as problem:
        return None, [f"{path}: cannot be understood: {problem.msg}"]
    if node.tag != "LGI":
        return None, [f"{path}: begins with <{node.tag}>, a resource's configuration begins with <LGI>"]
    return Section(path, node, (), mistakes), mistakes


class Section:
    """One element with others in it; what it is asked for counts as known, the rest are mistakes."""

    def __init__(self, file: Path, node: etree._Element | None, tags: tuple[str, ...], mistakes: list[str]) -> None:
        self._file = file
        self._node = node  # None stands for a section that is missing
        self._tags = tags
        self._mistakes = mistakes
        self._known: set[str] = set()

    def mistake(self, tag: str, reason: str) -> None:
        """Note what is wrong with `tag` in this section; nothing more, where the section itself is missing."""
        if self._node is None:
            return
        self._mistakes.append(f"{self._file}: {' / '.join((*self._tags, tag))}: {reason}")

    def has(self, tag: str) -> bool:
        """Whether the tag is there, for those that may be left out."""
        self._known.add(tag)
        return self._node is not None and self._node.find(tag) is not None

    def is_empty(self, tag: str) -> bool:
        """Whether a tag that may be left empty is there once, with neither text nor tags in it."""
        nodes = [] if self._node is None else self._node.findall(tag)
        return len(nodes) == 1 and not len(nodes[0]) and not (nodes[0].text or "").strip()

    def text(self, tag: str, *, empty: bool = False) -> str:
        """The value of a tag that has to be there, and may be `empty` only if so said."""
        node = self._find(tag)
        if node is None:
            return ""
        if len(node):
            self.mistake(tag, f"it should have a value, but there is the tag <{node[0].tag}> in it")
            return ""
        text = (node.text or "").strip()
        if not text and not empty:
            self.mistake(tag, "it is empty")
        return text

    def integer(self, tag: str, *, minimum: int = 0) -> int | None:
        """A whole number of at most nine digits; None after a mistake."""
        text = self.text(tag)
        if text and (not _DIGITS.fullmatch(text) or int(text) < minimum):
            self.mistake(tag, f"{text!r} is no whole number of {minimum} or more")
            return None
        return int(text) if text else None

    def path(self, tag: str) -> Path | None:
        """An absolute path; a relative one starts at the file's directory. None after a mistake."""
        text = self.text(tag)
        return (self._file.parent.absolute() / text).resolve() if text else None

    def inner(self, tag: str) -> str:
        """The content of a tag that may hold XML and may be left out."""
        return inner_xml(self._find(tag)) if self.has(tag) else ""

    def owner_limits(self, tag: str) -> dict[str, int]:
        """`<mark@laptop> 2 </mark@laptop> <any> 1 </any>` as names and numbers."""
        limits: dict[str, int] = {}
        text = self.text(tag, empty=True)
        for name, value in _OWNER.findall(text):
            if name.strip() in limits:
                self.mistake(tag, f"{name.strip()!r} is there twice")
            elif not _DIGITS.fullmatch(value.strip()):
                self.mistake(tag, f"the limit of {name.strip()!r} is {value.strip()!r}, which is no whole number")
            else:
                limits[name.strip()] = int(value)
        rest = _OWNER.sub("", text).strip()
        if rest:
            self.mistake(tag, f"{rest!r} cannot be understood; it takes the form <owner> number </owner>")
        return limits

    def owner_names(self, tag: str) -> tuple[str, ...]:
        """Names as tags, `<mark@laptop> </mark@laptop>`, or separated by commas."""
        text = self.text(tag, empty=True)
        names = [name.strip() for name, _ in _OWNER.findall(text)]
        rest = decode_list(_OWNER.sub(",", text))
        for name in rest:
            if re.search(r"[<>!]", name):
                self.mistake(tag, f"{name!r} is no owner's name")
        return tuple(dict.fromkeys([*names, *rest]))

    def section(self, tag: str) -> Section:
        """A section in this one that has to be there once."""
        return Section(self._file, self._find(tag), (*self._tags, tag), self._mistakes)

    def sections(self, tag: str) -> list[Section]:
        """All sections of this name, in order."""
        self._known.add(tag)
        nodes = [] if self._node is None else self._node.findall(tag)
        return [
            Section(self._file, node, (*self._tags, f"{tag} {number}"), self._mistakes)
            for number, node in enumerate(nodes, start=1)
        ]

    def finish(self) -> None:
        """Note everything in the section that nobody asked for."""
        if self._node is None:
            return
        for node in self._node:
            if node.tag not in self._known:
                self.mistake(str(node.tag), "this tag is not known here")
        stray = "".join([self._node.text or "", *(node.tail or "" for node in self._node)]).strip()
        if stray:
            self.mistake("", f"the text {stray!r} stands between the tags")

    def _find(self, tag: str) -> etree._Element | None:
        self._known.add(tag)
        if self._node is None:
            return None
        nodes = self._node.findall(tag)
        if not nodes:
            self.mistake(tag, "it is missing")
            return None
        if len(nodes) > 1:
            self.mistake(tag, f"it is there {len(nodes)} times")
        return nodes[0]
