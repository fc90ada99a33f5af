"""`LGI_csv`: the items of a comma-separated list, for job scripts (LGI 1.41, Basic command-line interface).

Spaces around items and empty items do not count; doubles are kept.
"""

from __future__ import annotations

import sys

from lgi.tools.options import Option, Tool
from lgi.tools.streams import INPUT, OUTPUT, converted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

TOOL = Tool(
    "LGI_csv",
    "[options] [list]",
    INPUT,
    OUTPUT,
    Option("-s", "the character between items. default is ','.", "char"),
    Option("-n", "write how many items there are."),
    Option("-l", "write the items, each on a line. this is the default."),
    Option("-e", "write the item of this number, the first is 1.", "number"),
    Option("-nl", "write how many there are, and the items."),
    Option("-nle", "write how many there are, the items, and the item of this number.", "number"),
)


def items(text: str, separator: str = ",") -> list[str]:
    """The items of a list."""
    return [item for item in map(str.strip, text.split(separator)) if item]


def run(words: list[str]) -> int:
    """The tool; returns its exit status, 1 where there is no item of the number asked for."""
    given = TOOL.given(words)
    separator = given.values.get("-s", ",")
    if len(separator) != 1:
        TOOL.refuse(f"-s takes one character, not {separator!r}")
    asked = given.value("-nle") or given.value("-e")
    if given.any_of("-e", "-nle") and not (asked.isascii() and asked.isdigit() and int(asked)):
        TOOL.refuse(f"the number of an item is 1 or more, not {asked!r}")
    number = int(asked) if asked else 0
    counting = given.any_of("-n", "-nl", "-nle")
    listing = given.any_of("-l", "-nl", "-nle") or not (counting or number)

    def work(source: BinaryIO, target: BinaryIO) -> int:
        text = "".join(given.arguments) or source.read().decode("utf-8", "surrogateescape")
        found = items(text, separator)
        there = 0 < number <= len(found)
        lines = [
            *([str(len(found))] if counting else []),
            *(found if listing else []),
            *([found[number - 1]] if there else []),
        ]
        target.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
        return int(bool(number) and not there)

    return converted(TOOL, given, work)


def main() -> None:
    """The program."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
