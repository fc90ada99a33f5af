"""Directories that appear whole or not at all, with secrets that nobody else ever could read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lgi.admin.layout import AdminError
from lgi.durable import write_atomically

PRIVATE = 0o600
PUBLIC = 0o644


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `target` when the block ends well and vanishes when it does not.

    Raises AdminError when `target` is there already and not empty.
    """
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise AdminError(f"{target} exists already; nothing was changed")
        made = _make_parents(target.parent)
    except OSError as problem:
        raise AdminError(f"{target} cannot be made: {problem.filename}: {problem.strerror}") from None
    draft: Path | None = None
    try:
        # Nobody but the owner can enter it.
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
        yield draft
        draft.rename(target)
    except BaseException as problem:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(problem, OSError):
            raise AdminError(f"{target} cannot be made: {problem.filename}: {problem.strerror}") from None
        raise


def _make_parents(folder: Path) -> list[Path]:
    """Make a directory and those above it; returns what was made, innermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(exist_ok=True)
    return missing


def write_text(path: Path, text: str, *, mode: int = PUBLIC) -> None:
    """Write a small file durably; directories above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode(), mode=mode)
