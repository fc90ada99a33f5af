"""Times as they are given on the command line: how long ago, or a date."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([a-z]+)")


class MomentType(click.ParamType[float]):
    """`2h`, `3d` (so long ago), `2026-12-31`, `2026-12-31T23:59`, or Unix seconds; as Unix seconds."""

    name = "time"

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The time in Unix seconds."""
        if isinstance(value, float):
            return value
        text = str(value).strip()
        ago = _AGO.fullmatch(text)
        if ago and ago[2] in _UNITS:
            return self._now() - float(ago[1]) * _UNITS[ago[2]]
        try:
            return float(int(text)) if text.isascii() and text.isdigit() else datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{text!r} is no time: say how long ago (90min, 2h, 3d, 1w), or a date (2026-12-31T23:59)")


MOMENT = MomentType()
