"""`LGI_hash`: the hash of a file in hexadecimal, for job scripts (LGI 1.41). It is SHA-256."""

from __future__ import annotations

import hashlib
import sys

from lgi.tools.options import Tool
from lgi.tools.streams import INPUT, OUTPUT, PIECE, converted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

TOOL = Tool("LGI_hash", "[options]", INPUT, OUTPUT)


def write_hash(source: BinaryIO, target: BinaryIO) -> int:
    """Write the hash of all that `source` has, in capital digits and without a line's end."""
    digest = hashlib.sha256()
    while piece := source.read(PIECE):
        digest.update(piece)
    target.write(digest.hexdigest().upper().encode())
    return 0


def run(words: list[str]) -> int:
    """The tool; returns its exit status."""
    given = TOOL.given(words)
    if given.arguments:
        TOOL.refuse(f"what is {given.arguments[0]!r}? a file is named with -i")
    return converted(TOOL, given, write_hash)


def main() -> None:
    """The program."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
