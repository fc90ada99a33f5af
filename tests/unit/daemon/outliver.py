"""A daemon in a process of its own that starts a run script, says its number, and waits to be killed.

Arguments: the job directory, the key as hexadecimal, and `go`, or `before-pid` to wait before the number is on disk.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.internet import reactor

from lgi.daemon import runscript
from lgi.daemon.jobdir import JobDirectory
from lgi.daemon.scripts import Scripts
from lgi.daemon.seal import Seal


class _Hanging(JobDirectory):
    def write(self, name: str, content: bytes) -> None:
        say(int(content))
        while True:
            os.read(0, 1)


def say(pid: int) -> None:
    print(pid, flush=True)


def main() -> None:
    directory, key, when = sys.argv[1:]
    kind = JobDirectory if when == "go" else _Hanging
    job = kind(path=Path(directory), seal=Seal(key=bytes.fromhex(key)))
    scripts = Scripts(processes=reactor, clock=reactor, inherited=os.environ)

    def begin() -> None:
        pid, _ = runscript.start(scripts, job)
        reactor.callLater(0.05, say, pid)

    reactor.callWhenRunning(begin)
    reactor.run()


if __name__ == "__main__":
    main()
