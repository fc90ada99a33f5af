"""The XML dialect of deployed programs: what they can read, written exactly so.

Their reader looks for `<tag` followed by a space or `>` and takes all up to the first `</tag>`. So: no declaration,
no self-closing elements, no CDATA, no namespaces; one space on each side of a value, two where it is empty; an
element never contains another of its own name.
"""

from __future__ import annotations

import re

from lxml import etree

_SPECIAL = re.compile(r"[&<>\"']")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"})


class MalformedXML(ValueError):
    """Text that is not a well-formed piece of XML; the message says where."""


def escape(text: str) -> str:
    """Replace the five characters that have an escape in this dialect."""
    # Nearly no text has any of them, and looking is ten times faster than replacing.
    return text if _SPECIAL.search(text) is None else text.translate(_ESCAPES)


def element(tag: str, value: str | int, attributes: str = "") -> str:
    """One element with an escaped text or number as its value; `attributes` starts with a space if present."""
    return f"<{tag}{attributes}> {escape(value) if isinstance(value, str) else value} </{tag}>"


def raw_element(tag: str, content: str, attributes: str = "") -> str:
    """One element around `content` that is this dialect's XML already."""
    return f"<{tag}{attributes}> {content} </{tag}>"


def _parser(*, recover: bool) -> etree.XMLParser:
    # No entity is ever expanded and nothing is ever fetched, whoever wrote the text.
    return etree.XMLParser(recover=recover, resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)


_STRICT, _FORGIVING = _parser(recover=False), _parser(recover=True)
# Without any of these there is nothing in a text but elements with attributes, and words.
_ODD = re.compile(r"<[!?]|&|xml")


def parse_fragment(text: str) -> etree._Element:
    """Parse a piece of XML (elements and text, no document type) and return it inside one root element.

    Raises MalformedXML. Comments, processing instructions, CDATA sections and namespaces are refused: deployed
    readers look for tags in the text itself, and would see other elements than this parser does.
    """
    if "\x00" in text:
        raise MalformedXML("it contains a NUL character")
    if "<![" in text:
        raise MalformedXML("CDATA sections have no place in it")
    try:
        root = etree.fromstring(f"<fragment>{text}</fragment>".encode(), _STRICT)
    except etree.XMLSyntaxError as problem:
        raise MalformedXML(str(problem.msg)) from None
    except UnicodeEncodeError:
        raise MalformedXML("it contains half a character") from None
    if _ODD.search(text) is not None:
        _refuse_oddities(root)
    return root


def _refuse_oddities(root: etree._Element) -> None:
    if any(not isinstance(node.tag, str) for node in root.iter()):
        raise MalformedXML("comments, processing instructions and entities have no place in it")
    if any(node.nsmap or any("{" in str(name) for name in node.attrib) for node in root.iter()):
        raise MalformedXML("namespaces have no place in it")


def refuse_tags(root: etree._Element, tags: frozenset[str]) -> None:
    """Raise MalformedXML if any element below `root` has one of these names."""
    for node in root.iter():
        if node.tag in tags:
            raise MalformedXML(f"an element <{node.tag}> has no place in it")


def read_answer(text: bytes) -> etree._Element:
    """Read an answer, also the old server's slightly broken ones (an unclosed or crossed tag).

    Raises MalformedXML when there is no element at all, for instance in an HTML error page of something else.
    """
    try:
        root = etree.fromstring(text, _FORGIVING) if text.strip() else None
    except etree.XMLSyntaxError:
        root = None
    if root is None or root.tag not in ("LGI", "repository_content", "status"):
        raise MalformedXML("the answer is not one of a project server")
    return root


def inner_xml(node: etree._Element | None) -> str:
    """The content of `node` as text in this dialect, tags included, stripped."""
    if node is None:
        return ""
    parts = [escape(node.text or "")]
    for child in node:
        # A comment is left out, what follows it is not.
        if isinstance(child.tag, str):
            attributes = "".join(f" {name!s}='{escape(str(value))}'" for name, value in child.attrib.items())
            parts.append(raw_element(child.tag, inner_xml(child), attributes))
        parts.append(escape(child.tail or ""))
    return "".join(parts).strip()


def text_of(node: etree._Element | None, path: str = ".") -> str:
    """The stripped text of the first element at `path` below `node`, empty if there is none."""
    found = None if node is None else node.find(path)
    return "" if found is None else (found.text or "").strip()
