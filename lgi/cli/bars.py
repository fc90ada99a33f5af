"""What a terminal shows while files are on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lgi.cli.screen import Screen, printable
from lgi.client.transfer import Progress, no_progress

Bar = Callable[[str, int | None], Progress]
"""Starts the bar of a file of that name and size in bytes (None: not known), and gives what moves it."""

_WORTH_A_BAR = 1 << 20  # bytes, where there are many files


def _no_bar(_name: str, _size: int | None) -> Progress:
    return no_progress


@contextmanager
def _drawn(screen: Screen) -> Iterator[Any]:
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    console = screen.console()
    # Transient, since each file gets its line when it is done.
    with progress.Progress(*columns, console=console, transient=True) as shown, screen.drawing(console):
        yield shown


@contextmanager
def bars(screen: Screen) -> Iterator[Bar]:
    """Bars with rate and remaining time on a terminal, one at a time, nothing anywhere else."""
    if not screen.terminal:
        yield _no_bar
        return
    with _drawn(screen) as shown:

        def start(name: str, size: int | None) -> Progress:
            for task in shown.task_ids:
                shown.remove_task(task)
            current = shown.add_task(printable(name), total=size)
            return lambda count: shown.advance(current, count)

        yield start


class Bars:
    """The bars of several files: one for all of them where there are more, and those of the ones on their way."""

    def __init__(self, shown: Any, files: int, size: int) -> None:
        self._shown = shown
        self._files = files
        self._ended = 0
        self._tasks: dict[str, Any] = {}
        self._all = None if shown is None or files < 2 else shown.add_task(self._heading(), total=size)

    def _heading(self) -> str:
        return f"{self._ended} of {self._files} files"

    def start(self, name: str, size: int) -> Progress:
        """Begin with a file."""
        if self._shown is None:
            return no_progress
        if self._all is not None and size < _WORTH_A_BAR:
            return lambda count: self._shown.advance(self._all, count)
        task = self._tasks[name] = self._shown.add_task(printable(name), total=size)

        def advance(count: int) -> None:
            self._shown.advance(task, count)
            if self._all is not None:
                self._shown.advance(self._all, count)

        return advance

    def end(self, name: str) -> None:
        """It is there, or will not be."""
        if self._shown is None or self._all is None:
            return
        self._ended += 1
        task = self._tasks.pop(name, None)
        if task is not None:
            self._shown.remove_task(task)
        self._shown.update(self._all, description=self._heading())


@contextmanager
def bars_of_many(screen: Screen, files: int, size: int) -> Iterator[Bars]:
    """Bars for so many files of so many bytes in all, on a terminal."""
    if not screen.terminal:
        yield Bars(None, files, size)
        return
    with _drawn(screen) as shown:
        yield Bars(shown, files, size)
