"""Directories that appear whole or not at all, with secrets that nobody else ever could read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lgi.admin.layout import AdminError
from lgi.ca import write_file

PRIVATE = 0o600
PUBLIC = 0o644


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `target` when the block ends well and vanishes when it does not.

    Raises AdminError when `target` is there already and not empty.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AdminError(f"{target} exists already; nothing was changed")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".{target.name}.new-{os.getpid()}"
    draft.mkdir(mode=0o700)
    try:
        yield draft
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def write_text(path: Path, text: str, *, mode: int = PUBLIC) -> None:
    """Write a small file durably; directories above it are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode(), mode=mode)
