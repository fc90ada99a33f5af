"""`lgi files put`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.internet.threads import deferToThread

from lgi.cli.bars import bars_of_many
from lgi.cli.complaint import Complaint
from lgi.cli.moving import Report, explained
from lgi.cli.screen import Screen
from lgi.client.repository import RepositoryClient, checked_name
from lgi.client.tree import AT_ONCE, Stopped, Tree
from lgi.client.walk import find_files


async def put_files(
    screen: Screen,
    store: RepositoryClient,
    paths: Sequence[Path],
    *,
    prefix: str = "",
    recursive: bool = False,
    parallel: int = AT_ONCE,
    verify: bool = False,
) -> int:
    """Upload files, with `recursive` directories too, to the directory `prefix` of the repository."""
    prefix = prefix.strip("/")
    if prefix:
        try:
            checked_name(prefix)
        except ValueError as problem:
            raise Complaint(f"--to: {problem}") from None
    found = await deferToThread(find_files, paths, recursive=recursive, prefix=prefix)
    given = {str(path) for path in paths}
    for path, why in found.problems:
        if Path(path).name.startswith(".") and str(path) not in given:
            # As in a submission: what is hidden in a directory is for the directory's owner.
            screen.note(f"left out, as hidden files are: {path}")
            continue
        screen.complain(explained(why), "" if isinstance(why, OSError) and why.filename else path)
    if not found.files:
        if not screen.failed:
            raise Complaint("there is no file to send")
        return 1
    with bars_of_many(screen, len(found.files), sum(file.size for file in found.files)) as bars:
        report = Report(screen, len(found.files), lambda name, size: {"name": name, "size": size}, bars=bars)
        try:
            await Tree(store=store, watcher=report, count=parallel, verify=verify).put(found.files)
        except Stopped as problem:
            report.stopped(problem)
    return report.close()
