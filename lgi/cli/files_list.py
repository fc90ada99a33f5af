"""`lgi files ls` and `lgi files rm`."""

from __future__ import annotations

from collections.abc import Iterable

from lgi.cli.complaint import Complaint
from lgi.cli.moving import Report, line
from lgi.cli.screen import Screen, printable
from lgi.cli.show import file_value, moment, size
from lgi.client.globs import IsDirectory, chosen
from lgi.client.repository import RepositoryClient
from lgi.client.tree import AT_ONCE, Stopped, Tree
from lgi.model import RepositoryFile


def wanted(
    screen: Screen, files: Iterable[RepositoryFile], names: Iterable[str], *, recursive: bool
) -> list[RepositoryFile]:
    """The files that the names and patterns mean, each once; complains about those that mean none."""
    files = list(files)
    found: dict[str, RepositoryFile] = {}
    for name in names:
        if not name.strip("/"):
            screen.complain(Complaint("an empty name means no file; '*' or '**' means all"), repr(name))
            continue
        try:
            matches = chosen(files, name, recursive=recursive)
        except IsDirectory as problem:
            screen.complain(Complaint(str(problem)), name)
            continue
        if not matches:
            screen.complain(Complaint("no such file in the repository"), name)
        found.update((file.name, file) for file in matches)
    return list(found.values())


async def list_files(
    screen: Screen, store: RepositoryClient, names: tuple[str, ...] = (), *, long: bool = False
) -> int:
    """Show what is in the repository: a line for each file in a pipe, in the form of those of get and put."""
    found = list(await store.list())
    if names:
        found = wanted(screen, found, names, recursive=True)
    screen.result([file_value(file) for file in found])
    headers = ("Name", "Size", "Date")
    if long and found:
        screen.table(headers, [(file.name, str(file.size), moment(file.date)) for file in found])
    elif not screen.terminal:
        for file in found:
            screen.line(line(screen, file.name, file.size))
    elif found:
        screen.table(headers, [(file.name, size(file.size), moment(file.date)) for file in found])
    elif not names:
        screen.line("no files")
    return int(screen.failed)


async def remove_files(
    screen: Screen,
    store: RepositoryClient,
    names: tuple[str, ...],
    *,
    recursive: bool = False,
    parallel: int = AT_ONCE,
) -> int:
    """Remove the files."""
    found = wanted(screen, await store.list(), names, recursive=recursive)
    report = Report(
        screen, len(found), lambda name, _size: {"name": name}, said=lambda name, _size: printable(f"{name} removed")
    )
    try:
        await Tree(store=store, watcher=report, count=parallel).remove(found)
    except Stopped as problem:
        report.stopped(problem)
    return report.close()
