"""`twistd lgi-daemon`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from twisted.application.service import IService
from twisted.python.usage import UsageError

from lgi.daemon.config import ConfigErrors, read_config
from lgi.daemon.service import Cycles, DaemonService
from lgi.service import ProgramOptions, refuse


def _seconds(option: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1
        if not 0.1 <= value <= 86400:
            raise ValueError(f"--{option} has {text!r}, a number of seconds from 0.1 to 86400 is needed")
        return value

    return read


class Options(ProgramOptions):
    """Options of the resource daemon."""

    synopsis = "twistd [twistd options] lgi-daemon --config FILE"
    longdesc = "The resource daemon: asks project servers for work, runs the jobs and reports their results."
    optParameters: ClassVar = [
        ["config", "c", None, "The resource's configuration file, LGI.cfg."],
        [
            "slow-cycle",
            "s",
            5.0,
            "Seconds between two requests for work. (The 600 of the LGI document suited a server that spent some "
            "hundred queries on such a request.)",
            _seconds("slow-cycle"),
        ],
        [
            "fast-cycle",
            "f",
            5.0,
            "Seconds between two looks at each held job, here and at its server: how soon an abort is noticed, and "
            "the end of a job in a batch system. (The LGI document has 120; the end of a job that runs right here "
            "is noticed at once.)",
            _seconds("fast-cycle"),
        ],
    ]
    optFlags: ClassVar = [
        ["any-hostname", "W", "Do not check that a server's certificate is for the host name it is called by."]
    ]

    def postOptions(self) -> None:
        """Read the configuration, so that mistakes are told before anything starts."""
        super().postOptions()
        if self["config"] is None:
            raise UsageError("--config FILE is needed: the resource's LGI.cfg")
        try:
            self["configuration"] = read_config(Path(self["config"]))
        except ConfigErrors as mistakes:
            refuse("lgi-daemon", mistakes)


def makeService(options: Options) -> IService:
    """The service; nothing is opened yet, since twistd forks between this and its start."""
    from twisted.internet import reactor

    return DaemonService(
        reactor=reactor,
        config=options["configuration"],
        cycles=Cycles(slow=options["slow-cycle"], fast=options["fast-cycle"]),
        strict_hostname=not options["any-hostname"],
    )
