"""`LGI_daemon`, the resource daemon by its old name and with its old options (LGI 1.41, Resource daemon).

It is `twistd lgi-daemon` with other names for the options and, for the two cycles, the times of the LGI document.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from twisted.python.usage import UsageError
from twisted.scripts import twistd as twistd_module

from lgi.daemon.logs import DEBUG, EVERYTHING, NORMAL, QUIET
from lgi.daemon.tap import seconds

PROGRAM = "LGI_daemon"
FAST, SLOW = 120.0, 600.0
USAGE = f"""{PROGRAM} [options] LGI.cfg

The resource daemon: asks project servers for work, runs the jobs and reports their results.

  -d        run in the background; the exit status says whether it has started
  -q        log critical messages only
  -n        log what is worth knowing; so it is without an option
  -v        log messages for debugging too
  -vv       log everything, also each call of a server
  -l FILE   log to this file, and not to standard output; SIGHUP opens it anew
  -ft TIME  seconds between two looks at each job that is held; {FAST:.0f} without this
  -st TIME  seconds between two requests for work; {SLOW:.0f} without this
  -W        do not check that a server's certificate is for the host name it is called by
  --no-sandbox  where it runs as root: run jobs as root too
  -h        this help

SIGTERM (kill) signs off from all servers and ends the daemon, while its jobs go on. SIGHUP has it read the
configuration, the certificate and the key again. "lgi daemon check LGI.cfg" tells beforehand what is wrong.
"""
_VERBOSITY = {QUIET: ["--quiet"], NORMAL: [], DEBUG: ["--verbose"], EVERYTHING: ["--verbose", "--verbose"]}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and the exit status 2."""
        self.exit(2, f"{PROGRAM}: {message} (see {PROGRAM} -h)\n")


class _Help(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print the usage and end the program."""
        sys.stdout.write(USAGE)
        parser.exit()


def _time(option: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            return seconds(option)(text)
        except ValueError as problem:
            raise argparse.ArgumentTypeError(str(problem)) from None

    return read


def twistd_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of twistd that say the same; ends the program on a mistake (status 2) and for help."""
    parser = _Parser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", nargs=0, action=_Help)
    parser.add_argument("-d", action="store_true", dest="background")
    for option, verbosity in {"-q": QUIET, "-n": NORMAL, "-v": DEBUG, "-vv": EVERYTHING}.items():
        parser.add_argument(option, action="store_const", const=verbosity, default=NORMAL, dest="verbosity")
    parser.add_argument("-ft", metavar="TIME", type=_time("-ft"), default=FAST, dest="fast")
    parser.add_argument("-st", metavar="TIME", type=_time("-st"), default=SLOW, dest="slow")
    parser.add_argument("-W", action="store_true", dest="any_hostname")
    parser.add_argument("--no-sandbox", action="store_true")
    parser.add_argument("-l", metavar="FILE", dest="log", default="-")
    parser.add_argument("config", metavar="LGI.cfg")
    given = parser.parse_args(arguments)
    return [
        *([] if given.background else ["--nodaemon"]),
        "--pidfile=",
        f"--logfile={given.log if given.log == '-' else Path(given.log).absolute()}",
        "lgi-daemon",
        f"--config={given.config}",
        f"--fast-cycle={given.fast}",
        f"--slow-cycle={given.slow}",
        *_VERBOSITY[given.verbosity],
        *(["--any-hostname"] if given.any_hostname else []),
        *(["--no-sandbox"] if given.no_sandbox else []),
    ]


def main() -> None:
    """The program."""
    twistd: Any = twistd_module  # which names what it has in a way that is no export to mypy
    options = twistd.ServerOptions()
    try:
        options.parseOptions(twistd_arguments(sys.argv[1:]))
    except UsageError as problem:
        sys.exit(f"{PROGRAM}: {problem}")
    twistd.runApp(options)
