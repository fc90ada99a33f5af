"""`lgi files get`."""

from __future__ import annotations

from pathlib import Path

from lgi.cli.bars import bars_of_many
from lgi.cli.files_list import wanted
from lgi.cli.moving import Report
from lgi.cli.places import DAEMONS_OWN, job_directory
from lgi.cli.screen import Screen
from lgi.client.places import Target
from lgi.client.repository import RepositoryClient
from lgi.client.tree import AT_ONCE, Stopped, Tree


async def get_files(
    screen: Screen,
    store: RepositoryClient,
    names: tuple[str, ...],
    folder: Path,
    *,
    recursive: bool = False,
    parallel: int = AT_ONCE,
    verify: bool = False,
) -> int:
    """Download to the directory `folder`, which is made if need be; all files where there are no names."""
    found = await store.list()
    files = wanted(screen, found, names, recursive=recursive) if names else list(found)
    target = Target(folder, reserved=DAEMONS_OWN if job_directory(folder) is not None else "")
    try:
        with bars_of_many(screen, len(files), sum(file.size for file in files)) as bars:
            report = Report(
                screen,
                len(files),
                lambda name, size: {"name": name, "size": size, "path": str(folder / name)},
                bars=bars,
            )
            try:
                await Tree(store=store, watcher=report, count=parallel, verify=verify).get(files, target)
            except Stopped as problem:
                report.stopped(problem)
        return report.close()
    finally:
        target.close()
