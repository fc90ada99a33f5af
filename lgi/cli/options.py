"""What every command is told: where the configuration is, and how to speak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click

F = TypeVar("F", bound=Callable[..., Any])


@attrs.define(kw_only=True)
class Options:
    """The options before the command's name; `config` is None where neither --config nor LGI_CONFIG says it."""

    config: Path | None = None
    json: bool = False
    verbose: bool = False
    server: str = ""
    project: str = ""

    @property
    def directory(self) -> Path:
        """The configuration directory."""
        return self.config or Path.home() / ".LGI"


pass_options = click.make_pass_decorator(Options, ensure=True)


def _set(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        setattr(context.ensure_object(Options), str(parameter.name), True)


def common_options(command: F) -> F:
    """--json and --verbose, which may come after the command's name too."""
    for name, text in (
        ("--verbose", "Say more, and show a traceback with an error."),
        ("--json", "Write one JSON object or array to standard output, and nothing else."),
    ):
        command = click.option(name, is_flag=True, expose_value=False, callback=_set, help=text)(command)
    return command
