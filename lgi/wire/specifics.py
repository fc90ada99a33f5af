"""A job's `job_specifics`: posted XML, the server's repository tags, the daemon's tags."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from lxml import etree

from lgi.wire.dialect import element, inner_xml, parse_fragment, refuse_tags, text_of

REPOSITORY = "repository"
REPOSITORY_URL = "repository_url"
DAEMON_REFERENCE = "daemon_reference"
EXIT_STATUS = "exit_status"
_SERVERS_OWN = frozenset({REPOSITORY, REPOSITORY_URL})
# What stands around specifics, and what a deployed reader looks for before anything else.
_AROUND = frozenset({"LGI", "response", "error", "job", "job_specifics"})


def without(text: str, tags: Iterable[str]) -> str:
    """`text` without the elements named in `tags`, at any depth; raises MalformedXML.

    Posted specifics lose the repository tags here: only the server says where a job's repository is.
    """
    return _without(text, parse_fragment(text), frozenset(tags))


def _without(text: str, root: etree._Element, dropped: frozenset[str]) -> str:
    if not any(child.tag in dropped for child in root.iter()):
        return text.strip()
    _drop(root, dropped)
    return inner_xml(root)


def _drop(root: etree._Element, dropped: frozenset[str]) -> None:
    # At every depth: a deployed reader takes the first such tag wherever it stands.
    for node in list(root.iter()):
        parent = node.getparent()
        if parent is None or node.tag not in dropped:
            continue
        previous = node.getprevious()
        tail = node.tail or ""
        if previous is not None:
            previous.tail = (previous.tail or "") + tail
        else:
            parent.text = (parent.text or "") + tail
        parent.remove(node)


def posted_specifics(text: str) -> str:
    """What of posted specifics may be kept: everything but the repository tags.

    Raises MalformedXML, also for elements that would pass for the answer's own: a deployed daemon that is offered the
    job would take them for that.
    """
    root = parse_fragment(text)
    refuse_tags(root, _AROUND)
    return _without(text, root, _SERVERS_OWN)


def with_repository(specifics: str, location: str, url: str) -> str:
    """Append the server's two repository tags, as deployed servers do."""
    own = f"{element(REPOSITORY, location)} {element(REPOSITORY_URL, url)}"
    return f"{specifics} {own}" if specifics else own


def with_tags(specifics: str, **tags: str | int) -> str:
    """Put tags in front of the specifics, in place of any of the same name; raises MalformedXML."""
    rest = without(specifics, tags)
    return " ".join([*(element(tag, value) for tag, value in tags.items()), *([rest] if rest else [])])


@lru_cache(maxsize=64)
def read_tag(specifics: str, tag: str) -> str:
    """The text of the first element `tag` in the specifics, empty if there is none; raises MalformedXML."""
    return text_of(parse_fragment(specifics), f".//{tag}")
