"""What a tool is told on its command line, as the deployed tools are (LGI 1.41, Basic command-line interface).

Options may stand anywhere, each is a word of its own, and so is its value. Job scripts start the small tools for
every value that they read: nothing is imported here that takes time.
"""

from __future__ import annotations

import sys

_SPARE = 3  # columns between the longest option and what is said about it


class UsageError(Exception):
    """The command line says what the tool does not know; one line."""


class Option:
    """An option; `value` is what the help calls the word after it, empty for a switch."""

    def __init__(self, name: str, about: str, value: str = "") -> None:
        self.name = name
        self.about = about
        self.value = value


class Given:
    """What was given: the `values` of options by their names, the `switches` and the other `arguments`."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.switches: set[str] = set()
        self.arguments: list[str] = []

    def value(self, name: str) -> str:
        """The value of an option, empty where it was not given."""
        return self.values.get(name, "")

    def any_of(self, *names: str) -> bool:
        """Whether one of these options was given."""
        return any(name in self.values or name in self.switches for name in names)


HELP = Option("-h", "show this help.")


class Tool:
    """A tool: its name, what follows the options, the options, and the `commands` that it knows, if any."""

    def __init__(
        self, name: str, arguments: str, *options: Option, commands: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.options = (HELP, *options)
        self.commands = commands

    def help(self) -> str:
        """The help, in the layout of the deployed tools."""
        rows = [(f"{option.name} {option.value}".rstrip(), option.about) for option in self.options]
        width = max(len(name) for name, _ in (*rows, *self.commands)) + _SPARE

        def table(title: str, lines: list[tuple[str, str]]) -> str:
            return f"{title}:\n\n" + "".join(f"{name:<{width}}{about}\n" for name, about in lines) + "\n"

        commands = table("commands", list(self.commands)) if self.commands else ""
        return f"\n{self.name} {self.arguments}\n\n{commands}{table('options', rows)}"

    def parse(self, words: list[str]) -> Given:
        """What the words say; raises UsageError. After `--` every word is an argument."""
        given = Given()
        known = {option.name: option for option in self.options}
        left = iter(words)
        for word in left:
            if word == "--":
                given.arguments.extend(left)
            elif not word.startswith("-") or word == "-":
                given.arguments.append(word)
            elif word not in known:
                raise UsageError(f"there is no option {word}")
            elif not known[word].value:
                given.switches.add(word)
            else:
                value = next(left, None)
                if value is None:
                    raise UsageError(f"{word} needs a {known[word].value}")
                given.values[word] = value
        return given

    def given(self, words: list[str]) -> Given:
        """What the words say; ends the program for -h, with status 0, and for a mistake, with status 2."""
        try:
            given = self.parse(words)
        except UsageError as mistake:
            self.refuse(str(mistake))
            raise
        if HELP.name in given.switches:
            sys.stdout.write(self.help())
            raise SystemExit(0)
        return given

    def refuse(self, mistake: str) -> None:
        """End the program with one line about a mistake in its command line, and status 2."""
        self.complain(f"{mistake} ({self.name} -h tells what there is)")
        raise SystemExit(2)

    def complain(self, text: str) -> None:
        """Say what went wrong, in one line on standard error."""
        sys.stdout.flush()
        sys.stderr.write(f"{self.name}: {text}\n")
