"""The options of `lgi batch`, and how their values are written: amounts of memory, times, jobs, what a job needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lgi.batch.command import LIMIT
from lgi.batch.system import NAMES

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

F = TypeVar("F", bound=Callable[..., Any])
_PATH: Any = click.Path(path_type=Path)


class Memory(click.ParamType[int]):
    """An amount of memory: bytes, or a number with k, M, G or T."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes."""
        found = re.fullmatch(r"(\d{1,15})([kmgt]?)(?:i?b)?", str(value).lower())
        if found is None:
            self.fail(f"{value!r} is no amount of memory: bytes, or a number with k, M, G or T", param, ctx)
        return int(found[1]) * _UNITS[found[2]]


class Duration(click.ParamType[int]):
    """A time: seconds, hours:minutes:seconds, or days-hours:minutes:seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seconds."""
        found = re.fullmatch(r"(\d{1,9})|(?:(\d{1,5})-)?(\d{1,6}):(\d\d):(\d\d)", str(value))
        if found is None:
            self.fail(f"{value!r} is no time: SECONDS, HH:MM:SS or DAYS-HH:MM:SS", param, ctx)
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups()[1:])
        return int(found[1]) if found[1] else ((days * 24 + hours) * 60 + minutes) * 60 + seconds


limit_option = click.option(
    "--limit", default=LIMIT, show_default=True, type=click.FloatRange(1), help="Seconds a command may take."
)


def system_option(command: F) -> F:
    """Which batch system."""
    return click.option(
        "--system",
        type=click.Choice(NAMES),
        envvar="LGI_BATCH_SYSTEM",
        help="Batch system; or in LGI_BATCH_SYSTEM. A record knows its own.",
    )(command)


def jobs_options(command: F) -> F:
    """Which jobs, by number or record, of which batch system."""
    for option in (
        limit_option,
        click.option("--record", "records", metavar="FILE", multiple=True, type=_PATH, help="Record of a job."),
        click.argument("numbers", metavar="[JOB]...", nargs=-1),
        system_option,
    ):  # fmt: skip
        command = option(command)
    return command


def request_options(command: F) -> F:
    """What is submitted, and what it needs."""
    for option in reversed(
        (
            click.argument("script", type=click.Path(path_type=Path, allow_dash=True)),
            click.argument("extra", nargs=-1, type=click.UNPROCESSED),
            system_option,
            click.option("--record", metavar="FILE", type=_PATH, help="Where to keep the record of it."),
            click.option("--name", default="", help="Name of the job, where the batch system shows one."),
            click.option("--queue", "--partition", default="", metavar="NAME", help="Queue, partition or class."),
            click.option("--account", default="", metavar="NAME", help="Account or project that pays."),
            click.option("--nodes", default=1, show_default=True, type=click.IntRange(1), help="Nodes."),
            click.option(
                "--cpus", default=1, show_default=True, type=click.IntRange(1), help="Processors on each node."
            ),
            click.option("--memory", default=0, type=Memory(), metavar="SIZE", help="Memory on each node: 512M, 4G."),
            click.option("--time", "wall_time", default=0, type=Duration(), help="Wall time: seconds or HH:MM:SS."),
            click.option("--directory", metavar="DIR", type=_PATH, help="Working directory; this one."),
            click.option("--output", metavar="FILE", type=_PATH, help="For what the script prints."),
            click.option("--error", metavar="FILE", type=_PATH, help="For its error messages."),
            click.option("--array", metavar="RANGE", default="", help="FIRST-LAST, with :STEP and %MOST at a time."),
            click.option("--reservation", default="", metavar="NAME", help="Reservation to run in."),
            click.option("--hold", is_flag=True, help="Do not start it before it is resumed."),
            limit_option,
        )
    ):
        command = option(command)
    return command
