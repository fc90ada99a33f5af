"""The disk under a measurement, which takes its time for what was written before: deleted files, an earlier run."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

WRITES, SIZE = 100, 512
SLOWEST_SECONDS = 0.01
"""A calm disk takes at most so long for any of WRITES writes of SIZE bytes; one at rest takes a tenth of it."""
PATIENCE_SECONDS = 30.0
PAUSE_SECONDS = 0.5


def wait_until_calm(folder: Path, patience: float = PATIENCE_SECONDS) -> bool:
    """Return when the disk below a folder is calm, or False when it is not after so many seconds."""
    os.sync()
    deadline = time.monotonic() + patience
    while _slowest_write(folder) > SLOWEST_SECONDS:
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_SECONDS)
    return True


def _slowest_write(folder: Path) -> float:
    """Seconds until it was on disk."""
    slowest = 0.0
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(WRITES):
            os.write(file.fileno(), bytes(SIZE))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            slowest = max(slowest, time.perf_counter() - began)
    return slowest
