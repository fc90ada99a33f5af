"""`lgi logs`: what a job writes, also while it is being written."""

from __future__ import annotations

import codecs
from functools import partial
from typing import Any

import click
from twisted.internet.task import deferLater

from lgi.cli.complaint import Complaint
from lgi.cli.options import Options, common_options, pass_options
from lgi.cli.references import JOB, naming
from lgi.cli.results import repository_of
from lgi.cli.screen import Screen, printable
from lgi.cli.session import Session, run, session
from lgi.cli.show import visible
from lgi.client.answers import JobAnswer, ServerRefused
from lgi.client.globs import matches
from lgi.client.patience import Patience
from lgi.client.post import Client
from lgi.client.reference import JobReference
from lgi.client.repository import RepositoryClient
from lgi.client.tail import Tail, last
from lgi.client.wire import Wire
from lgi.errors import ErrorNumber
from lgi.states import TERMINAL

OUTPUT = "LGI_output"  # the job's output, as its job script calls it
LOGS = ("**/*.log", "**/*.out", "**/*.err", "**/LGI_*")
PAUSE = 1.0
LONGEST_PAUSE = 5.0
OUTAGE = 3600.0
PAUSE_GROWTH = 1.3


@click.command()
@click.argument("job", metavar="JOB", type=JOB)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until the job is over.")
@click.option("-n", "--lines", metavar="LINES", type=click.IntRange(min=0), help="Begin with the last LINES of each.")
@common_options
@pass_options
def logs(options: Options, job: JobReference, names: tuple[str, ...], follow: bool, lines: int | None) -> int:
    """Print the output of JOB, and the log files in its repository.

    Log files are those called *.log, *.out, *.err and LGI_*; or NAMEs and patterns, where LGI_output is the job's
    output. Where there are several, each has its name above it. In a pipe they are printed byte by byte.

    \b
    Examples:
      lgi logs 12
      lgi logs -f -n 20 12
      lgi logs 12 energies.csv > energies.csv
    """
    if follow and options.json:
        raise click.UsageError("either --follow or --json")

    async def work(reactor: Any, screen: Screen) -> int:
        async with session(reactor, screen, options) as opened:
            return await Logs(opened, job, names, follow=follow, lines=lines).show()

    return run(options, work)


class _Writer:
    """Standard output, where each of several logs has a heading."""

    def __init__(self, screen: Screen, *, headings: bool) -> None:
        self._screen = screen
        self._headings = headings
        self._current: str | None = None
        self._line_open = False
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}
        self.collected: dict[str, bytearray] = {}

    def write(self, name: str, data: bytes) -> None:
        """What has come of a log."""
        if self._screen.json:
            self.collected.setdefault(name, bytearray()).extend(data)
            return
        if self._headings and name != self._current:
            before = "" if self._current is None else "\n\n" if self._line_open else "\n"
            self._text(f"{before}==> {printable(name)} <==\n")
        self._current = name
        self._line_open = not data.endswith(b"\n")
        raw = getattr(self._screen.out, "buffer", None)
        if raw is not None and not self._screen.terminal:
            self._screen.out.flush()
            raw.write(data)
            raw.flush()
            return
        if name not in self._decoders:
            self._decoders[name] = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._text(printable(self._decoders[name].decode(data), keep="\n\t"))

    def _text(self, text: str) -> None:
        self._screen.out.write(text)
        self._screen.out.flush()

    def end(self) -> None:
        """End a last line on a terminal, for the prompt to stand below it."""
        if self._line_open and self._screen.terminal:
            self._text("\n")


class Logs:
    """The logs of one job."""

    def __init__(
        self, session: Session, job: JobReference, names: tuple[str, ...], *, follow: bool, lines: int | None
    ) -> None:
        self._session = session
        self._job = job
        self._names = names
        self._follow = follow
        self._lines = lines
        self._patience = session.patience
        self._output: bytes | None = None
        self._files: dict[str, Tail] = {}

    async def show(self) -> int:
        """Print them, with `follow` until the job is over, and return the exit status."""
        session = self._session
        server = await session.grid.locate(self._job)
        user = session.grid.user(server)
        answer = await session.patience.ask(user.job, self._job.job_id)
        several = len(self._wanted(answer)) + self._wants_output(answer) > 1
        exact = len(self._names) == 1 and not set(self._names[0]) & set("*?[")
        writer = _Writer(session.screen, headings=several or (self._follow and not exact))
        pause = PAUSE
        # Whoever follows a job does so also while its server is started anew.
        patience = Patience(session.reactor, busy=float("inf"), unreachable=OUTAGE, note=session.screen.note)
        if self._follow:
            self._patience = patience
        try:
            while True:
                if await self._print(answer, writer):
                    pause = PAUSE
                if not self._follow or answer.job.state in TERMINAL:
                    break
                await deferLater(session.reactor, pause)
                pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE)
                answer = await self._patience.ask(user.job, self._job.job_id)
        except ServerRefused as problem:
            if problem.number != ErrorNumber.JOB_UNKNOWN or self._output is None:
                raise
            raise Complaint(f"job {self._job} has been deleted") from problem
        finally:
            writer.end()
        return await self._ended(server, answer, writer)

    async def _ended(self, server: str, answer: JobAnswer, writer: _Writer) -> int:
        screen = self._session.screen
        for name in self._names:
            if not any(_is_meant(file, (name,)) for file in (*self._files, OUTPUT)):
                screen.complain(Complaint("there is no such file in its repository"), name)
        if not self._names and not self._files and not self._output:
            screen.note(f"job {self._job} ({answer.job.state.value}) has no output and no log files")
        screen.result(
            {
                "reference": (await naming(self._session)).reference(server, self._job.job_id),
                "server": server,
                "job_id": self._job.job_id,
                "state": answer.job.state.value,
                "logs": [
                    {"name": name, "text": bytes(data).decode("utf-8", "backslashreplace")}
                    for name, data in writer.collected.items()
                ],
            }
        )
        return int(screen.failed)

    def _wants_output(self, answer: JobAnswer) -> bool:
        return bool(answer.job.output) and (not self._names or _is_meant(OUTPUT, self._names))

    def _wanted(self, answer: JobAnswer) -> dict[str, int]:
        """The names of the log files, and their sizes."""
        patterns = self._names or LOGS
        return {
            file.name: file.size
            for file in visible(answer.files or ())
            if _is_meant(file.name, patterns) and not (file.name == OUTPUT and answer.job.output)
        }

    async def _print(self, answer: JobAnswer, writer: _Writer) -> bool:
        """Print what is new; whether anything was."""
        news = self._print_output(answer, writer)
        wanted = self._wanted(answer)
        store = repository_of(self._session, answer.job) if wanted else None
        for name, size in wanted.items():
            assert store is not None
            tail = self._files.get(name)
            if tail is None:
                tail = self._files[name] = Tail(wire_of(store), name, partial(writer.write, name))
                if self._lines is not None:
                    await self._patience.ask(tail.last_lines, size, self._lines)
                    news = True
                    continue
            if size < tail.offset:
                self._session.screen.note(f"{name} has been replaced by something shorter; from its beginning:")
                tail.offset = 0
            if size > tail.offset:
                news = True
                await self._patience.ask(tail.read_on)
        return news

    def _print_output(self, answer: JobAnswer, writer: _Writer) -> bool:
        output = answer.job.output or b""
        before, self._output = self._output, output
        if not self._wants_output(answer) or output == before:
            return False
        if before is None and self._lines is not None:
            writer.write(OUTPUT, last(output, self._lines))
        elif before and not output.startswith(before):
            self._session.screen.note("the output has been written anew; from its beginning:")
            writer.write(OUTPUT, output)
        else:
            writer.write(OUTPUT, output[len(before or b"") :])
        return True


def _is_meant(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name == pattern or matches(name, pattern) for pattern in patterns)


def wire_of(store: RepositoryClient) -> Wire:
    """How parts of the repository's files are asked for."""
    assert isinstance(store.http, Client), "of lgi.client.post.connect"
    return Wire(
        agent=store.http.agent,
        reactor=store.reactor,
        url=store.url,
        timeout=store.timeout,
        patience=store.patience,
    )
