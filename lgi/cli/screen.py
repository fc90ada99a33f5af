"""Where a command writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from lgi.cli.complaint import worded


def printable(text: str, keep: str = "") -> str:
    """`text` with everything escaped that would steer a terminal, except the characters in `keep`."""
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text
    )


def as_text(data: bytes) -> str:
    """Bytes for people: UTF-8 where it is, escapes where it is not."""
    return printable(data.decode("utf-8", "backslashreplace"), keep="\n\t")


class Screen:
    """The two streams of a command; `terminal` says whether somebody watches, `failed` whether it has complained."""

    def __init__(self, out: TextIO, err: TextIO, *, json: bool = False, verbose: bool = False) -> None:
        self.out = out
        self.err = err
        self.json = json
        self.verbose = verbose
        self.terminal = not json and out.isatty()
        self.failed = False
        self._picture: Any = None

    @contextmanager
    def drawing(self, console: Any) -> Iterator[None]:
        """While `console` shows something that moves, lines go through it, so as to stand above."""
        self._picture = console
        try:
            yield
        finally:
            self._picture = None

    def _write(self, text: str, stream: TextIO) -> None:
        if self._picture is not None:
            self._picture.out(text, highlight=False)
        else:
            print(text, file=stream, flush=True)

    def line(self, text: str = "") -> None:
        """A line of the result, unless it is given as JSON."""
        if not self.json:
            self._write(text, self.out)

    def result(self, value: Any) -> None:
        """The result as JSON, if that is wanted."""
        if self.json:
            json.dump(value, self.out, indent=2)
            print(file=self.out, flush=True)

    def note(self, text: str) -> None:
        """A line that is not part of the result."""
        self._write(f"lgi: {printable(text)}", self.err)

    def complain(self, problem: BaseException, about: str = "") -> None:
        """One line about a problem, with the traceback if --verbose asks for it."""
        self.failed = True
        if self.verbose:
            traceback.print_exception(problem, file=self.err)
        text = worded(problem)
        if text is None:
            known = "" if self.verbose else "; --verbose shows where"
            text = f"a fault in this program: {type(problem).__name__}: {problem}{known}"
        self.note(" ".join(f"{about}: {text}".split() if about else text.split()))

    def console(self) -> Any:
        """A rich console on standard output; only for terminals, since rich takes its time to load."""
        from rich.console import Console

        return Console(file=self.out, highlight=False, markup=False, emoji=False)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table: drawn on a terminal, in plain columns that lose nothing in a pipe."""
        if self.json:
            return
        cells = [[printable(cell) for cell in row] for row in rows]
        if self.terminal:
            from rich.box import SIMPLE_HEAD
            from rich.table import Table

            table = Table(*headers, box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
            for row in cells:
                table.add_row(*row)
            self.console().print(table)
            return
        widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
        for row in [[*headers], *cells]:
            self.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def standard_screen(*, json: bool, verbose: bool) -> Screen:
    """This process's streams."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")  # a terminal that cannot show a character is no reason to fail
    return Screen(sys.stdout, sys.stderr, json=json, verbose=verbose)
