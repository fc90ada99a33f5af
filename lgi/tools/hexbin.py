"""`LGI_hexbin`: the bytes that hexadecimal text stands for, for job scripts (LGI 1.41)."""

from __future__ import annotations

import sys

from lgi.tools.options import Tool
from lgi.tools.streams import INPUT, OUTPUT, PIECE, converted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

TOOL = Tool("LGI_hexbin", "[options]", INPUT, OUTPUT)
_SPACE = b" \t\r\n\v\f"


def write_bytes(source: BinaryIO, target: BinaryIO) -> int:
    """Write the bytes; white space does not count. Raises ValueError for what is no hexadecimal text."""
    left = b""
    while piece := source.read(PIECE):
        digits = left + piece.translate(None, _SPACE)
        whole = len(digits) // 2 * 2
        left = digits[whole:]
        try:
            target.write(bytes.fromhex(digits[:whole].decode("ascii")))
        except ValueError:
            raise ValueError("what came in is not hexadecimal text") from None
    if left:
        raise ValueError("what came in has an odd number of hexadecimal digits")
    return 0


def run(words: list[str]) -> int:
    """The tool; returns its exit status."""
    given = TOOL.given(words)
    if given.arguments:
        TOOL.refuse(f"what is {given.arguments[0]!r}? a file is named with -i")
    return converted(TOOL, given, write_bytes)


def main() -> None:
    """The program."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
