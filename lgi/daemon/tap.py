"""`twistd lgi-daemon`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from twisted.application.service import IService
from twisted.python.usage import UsageError

from lgi.daemon.config import ConfigErrors, read_config
from lgi.daemon.daemon import Cycles
from lgi.daemon.logs import EVERYTHING, NORMAL, QUIET, reopen
from lgi.daemon.service import DaemonService
from lgi.service import ProgramOptions, refuse

LOGGER = "lgi.daemon.logs.observer"


def seconds(option: str) -> Callable[[str], float]:
    """What reads the value of an option that is a time; it raises ValueError naming the option."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1
        if not 0.1 <= value <= 86400:
            raise ValueError(f"{option} has {text!r}, a number of seconds from 0.1 to 86400 is needed")
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
            seconds("--slow-cycle"),
        ],
        [
            "fast-cycle",
            "f",
            5.0,
            "Seconds between two looks at each held job, here and at its server: how soon an abort is noticed, and "
            "the end of a job in a batch system. (The LGI document has 120; the end of a job that runs right here "
            "is noticed at once.)",
            seconds("--fast-cycle"),
        ],
    ]
    optFlags: ClassVar = [
        ["any-hostname", "W", "Do not check that a server's certificate is for the host name it is called by."],
        [
            "no-sandbox",
            None,
            "Where the daemon runs as root: run jobs as root too, not each under a uid of its own. It is for "
            "containers that are one job's or one user's.",
        ],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["verbosity"] = NORMAL

    def opt_quiet(self) -> None:
        """Log critical messages only."""
        self["verbosity"] = QUIET

    def opt_verbose(self) -> None:
        """Log the daemon's messages for debugging too; given twice, all of them and each call of a server."""
        self["verbosity"] = min(EVERYTHING, max(NORMAL, self["verbosity"]) + 1)

    opt_q = opt_quiet
    opt_v = opt_verbose

    def postOptions(self) -> None:
        """Read the configuration, so that mistakes are told before anything starts."""
        super().postOptions()
        if self["config"] is None:
            raise UsageError("--config FILE is needed: the resource's LGI.cfg")
        self["config"] = str(Path(self["config"]).absolute())  # twistd's --rundir comes after this
        self._choose_log()
        try:
            self["configuration"] = read_config(Path(self["config"]))
        except ConfigErrors as mistakes:
            refuse("lgi-daemon", mistakes)

    def _choose_log(self) -> None:
        twistd = self.parent
        if twistd is None:
            return
        if twistd["logger"] is None and not twistd["syslog"]:
            twistd["logger"] = LOGGER
        elif self["verbosity"] != NORMAL:
            raise UsageError("--quiet and --verbose are not for twistd's --logger and --syslog")


def makeService(options: Options) -> IService:
    """The service; nothing is opened yet, since twistd forks between this and its start."""
    from twisted.internet import reactor

    return DaemonService(
        reactor=reactor,
        config=options["configuration"],
        config_file=Path(options["config"]),
        cycles=Cycles(slow=options["slow-cycle"], fast=options["fast-cycle"]),
        strict_hostname=not options["any-hostname"],
        sandbox=not options["no-sandbox"],
        reopen_log=reopen,
        trace=options["verbosity"] == EVERYTHING,
    )
