"""`LGI_binhex`: bytes as hexadecimal text, for job scripts (LGI 1.41)."""

from __future__ import annotations

import sys

from lgi.tools.options import Tool
from lgi.tools.streams import INPUT, OUTPUT, PIECE, converted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

TOOL = Tool("LGI_binhex", "[options]", INPUT, OUTPUT)


def write_hex(source: BinaryIO, target: BinaryIO) -> int:
    """Write two capital digits for each byte, without a line's end."""
    while piece := source.read(PIECE):
        target.write(piece.hex().upper().encode())
    return 0


def run(words: list[str]) -> int:
    """The tool; returns its exit status."""
    given = TOOL.given(words)
    if given.arguments:
        TOOL.refuse(f"what is {given.arguments[0]!r}? a file is named with -i")
    return converted(TOOL, given, write_hex)


def main() -> None:
    """The program."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
