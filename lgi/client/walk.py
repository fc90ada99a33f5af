"""Local files and directories that are to be sent, and under which names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from lgi.client.wire import checked_name


@attrs.frozen(kw_only=True)
class LocalFile:
    """A file that is to be sent, the name it gets, and its size in bytes."""

    path: Path
    name: str
    size: int


@attrs.define(kw_only=True)
class Found:
    """What there is to send, and what cannot be: each path with the reason."""

    files: list[LocalFile] = attrs.field(factory=list)
    problems: list[tuple[str, OSError | ValueError]] = attrs.field(factory=list)


def find_files(paths: Iterable[Path], *, recursive: bool, prefix: str = "") -> Found:
    """The files at `paths`, with `recursive` those in directories, under their own names below `prefix`.

    A directory's files are named with its own name, except for `.` and `..`, which have none. A link to a file is
    sent as the file; a link to a directory is not followed below a path that was given, since it could lead
    anywhere, or round in circles: it is a problem. So is what no repository can hold. Call it in a thread.
    """
    found = Found()
    names: dict[str, Path] = {}
    for path in paths:
        own = "" if path.name in ("", "..") else path.name
        start = "/".join(part for part in (prefix, own) if part)
        for file in _below(path, start, found, recursive=recursive, given=True):
            other = names.get(file.name)
            if other == file.path:
                continue
            if other is not None:
                found.problems.append(
                    (str(file.path), ValueError(f"{other} gets the same name, {file.name}; a repository holds one"))
                )
                continue
            names[file.name] = file.path
            found.files.append(file)
    return found


def _below(path: Path, name: str, found: Found, *, recursive: bool, given: bool) -> Iterator[LocalFile]:
    try:
        status = path.stat()
        link = not given and path.is_symlink()
        if stat.S_ISREG(status.st_mode):
            yield LocalFile(path=path, name=checked_name(name), size=status.st_size)
        elif not stat.S_ISDIR(status.st_mode):
            raise ValueError("it is neither a file nor a directory, and was not sent")
        elif link:
            raise ValueError("it is a link to a directory, which is not followed")
        elif not recursive:
            raise ValueError("it is a directory; -r sends all that is in it")
        else:
            if name:
                checked_name(name)
            yield from _within(path, name, found)
    except (OSError, ValueError) as problem:
        found.problems.append((str(path), problem))


def _within(folder: Path, name: str, found: Found) -> Iterator[LocalFile]:
    with os.scandir(folder) as listed:
        entries = sorted(listed, key=lambda entry: entry.name)
    for entry in entries:
        way = f"{name}/{entry.name}" if name else entry.name
        path = Path(entry.path)
        if entry.is_file(follow_symlinks=False):
            # Most of what there is, with little work for each.
            try:
                yield LocalFile(path=path, name=checked_name(way), size=entry.stat().st_size)
            except (OSError, ValueError) as problem:
                found.problems.append((str(path), problem))
        else:
            yield from _below(path, way, found, recursive=True, given=False)
