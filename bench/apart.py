"""Work that ends in order when a terminal interrupts it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable


def apart(work: Callable[[], int]) -> int:
    """Do work in another process and process group, and return its status.

    A terminal's interrupt goes to a whole group: so only the work gets it, from here, and ends in order what it has
    started, which would otherwise end at the same time by itself. It also gets one when this process is killed.
    """
    ours, kept = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.setpgid(0, 0)
        os.close(kept)
        signal.signal(signal.SIGINT, _interrupt)
        signal.signal(signal.SIGTERM, _interrupt)
        threading.Thread(target=_interrupt_at_end, args=(ours,), daemon=True).start()
        try:
            status = work()
        except KeyboardInterrupt:
            print("interrupted: nothing was written", file=sys.stderr)
            status = 130
        sys.exit(status)
    os.close(ours)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.kill(worker, signal.SIGINT))
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])


def _interrupt_at_end(pipe: int) -> None:
    """Nothing is ever written to it: it can be read when the other end is gone."""
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGINT)


def _interrupt(*_: object) -> None:
    """Once: what ends the others is not to be interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
