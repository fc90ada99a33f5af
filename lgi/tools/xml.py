"""`LGI_xml`: the content of an element, for job scripts (LGI 1.41, Basic command-line interface)."""

from __future__ import annotations

import sys

from lgi.tools.options import Tool
from lgi.tools.scan import find_all
from lgi.tools.streams import INPUT, OUTPUT, converted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

TOOL = Tool("LGI_xml", "[options] tag [attributes]", INPUT, OUTPUT)


def content(text: str, tag: str, attributes: list[str]) -> str:
    """The stripped content of the first element with this name and attributes that has any; empty if none has."""
    for element in find_all(text, tag):
        found = element.content.strip()
        if found and all(element.has(attribute) for attribute in attributes):
            return found
    return ""


def run(words: list[str]) -> int:
    """The tool; returns its exit status, 1 where there is no such element."""
    given = TOOL.given(words)
    if not given.arguments:
        TOOL.refuse("the name of a tag is missing")
    tag, *attributes = given.arguments

    def work(source: BinaryIO, target: BinaryIO) -> int:
        found = content(source.read().decode("utf-8", "surrogateescape"), tag, attributes)
        if found:
            target.write(f"{found}\n".encode("utf-8", "surrogateescape"))
        return int(not found)

    return converted(TOOL, given, work)


def main() -> None:
    """The program."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
