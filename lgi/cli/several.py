"""Commands that do one thing to several: each in a transaction of its own, and one that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import click
from sqlalchemy import Connection

from lgi.cli.complaint import Complaint
from lgi.cli.desk import Desk

R = TypeVar("R")


def each(
    desk: Desk,
    numbers: Iterable[int],
    action: Callable[[Connection, int], R],
    value: Callable[[R], Any],
) -> list[R]:
    """Do `action` to each number, complain of those that fail, and return the outcomes of the others.

    The outcomes are the command's result for JSON too, in the form that `value` gives them.
    """
    outcomes: list[R] = []
    for number in dict.fromkeys(numbers):
        try:
            outcomes.append(desk.run(partial(_of, action, number)))
        except Complaint as problem:
            desk.screen.complain(problem)
    desk.screen.result([value(outcome) for outcome in outcomes])
    return outcomes


def _of(action: Callable[[Connection, int], R], number: int, connection: Connection) -> R:
    return action(connection, number)


def end(desk: Desk) -> None:
    """End the command, with status 1 if anything was complained of."""
    if desk.screen.failed:
        click.get_current_context().exit(1)
