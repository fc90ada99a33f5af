"""What a terminal shows while files are on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lgi.cli.screen import Screen, printable
from lgi.client.transfer import Progress, no_progress

Bar = Callable[[str, int | None], Progress]
"""Starts the bar of a file of that name and size in bytes (None: not known), and gives what moves it."""


def _no_bar(_name: str, _size: int | None) -> Progress:
    return no_progress


@contextmanager
def bars(screen: Screen) -> Iterator[Bar]:
    """Bars with rate and remaining time on a terminal, nothing anywhere else."""
    if not screen.terminal:
        yield _no_bar
        return
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

        def start(name: str, size: int | None) -> Progress:
            for task in shown.task_ids:
                shown.remove_task(task)
            current = shown.add_task(printable(name), total=size)
            return lambda count: shown.advance(current, count)

        yield start
