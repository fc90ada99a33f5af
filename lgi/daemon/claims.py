"""Many jobs made ours at once: on disk with one sync, claimed side by side, each begun when the server has said yes.

For applications without a script that looks at a job first; see `lgi.daemon.intake` for what a crash leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from lgi.client.answers import ServerRefused
from lgi.daemon.config import ApplicationConfig, DaemonConfig, ProjectConfig
from lgi.daemon.gather import side_by_side
from lgi.daemon.holdings import Holdings
from lgi.daemon.intake import Entry, Intake
from lgi.daemon.jobdir import INPUT, Tampered, new_reference
from lgi.daemon.jobfiles import described, own_files
from lgi.daemon.keeper import Keeper
from lgi.daemon.limits import Taken
from lgi.daemon.links import Link, NoAnswer, OddAnswer
from lgi.daemon.steps import Tools, is_ours
from lgi.lists import decode_list
from lgi.model import Job
from lgi.states import JobState
from lgi.wire.specifics import DAEMON_REFERENCE, with_tags

_log = Logger()


@attrs.frozen(kw_only=True)
class Place:
    """Where an offer comes from and what it is for."""

    project: ProjectConfig
    application: ApplicationConfig
    master: str
    link: Link


@attrs.frozen(kw_only=True, eq=False)
class Choice:
    """A job that is to be claimed, and the place that is reserved for it."""

    job: Job
    entry: Entry
    place: Taken


class Claims:
    """Claims what was chosen; `intake` has it on disk."""

    def __init__(self, *, tools: Tools, holdings: Holdings, intake: Intake) -> None:
        self._tools = tools
        self._holdings = holdings
        self._intake = intake
        self._unmade: list[tuple[Entry, Taken]] = []

    def choose(self, config: DaemonConfig, place: Place, job: Job, copies: Mapping[str, bytes]) -> Choice:
        """Reserve a place for a job, and a uid if it needs one; raises NoUid."""
        sandbox, application = self._tools.sandbox, place.application
        entry = Entry(
            reference=new_reference(),
            project=place.project.name,
            application=application.name,
            uid=None if sandbox is None else sandbox.take(application.sandbox_uid, config.sandbox_uids),
            files={**own_files(application, place.master, place.link.url, job), **copies},
        )
        taken = Taken(project=entry.project, application=entry.application, owners=job.owners)
        self._holdings.reserved.append(taken)
        return Choice(job=job, entry=entry, place=taken)

    async def take(self, link: Link, session_id: int, chosen: Sequence[Choice]) -> list[tuple[Choice, str]]:
        """Claim jobs that the session holds locked, and begin them; with each, why it was not taken, or "".

        The locks are left to `link.kept`.
        """
        link.kept.keep(session_id, [choice.job.job_id for choice in chosen])
        entries = [choice.entry for choice in chosen]
        try:
            path = await self._in_thread(self._intake.write, entries)
        except OSError as problem:
            for choice in chosen:
                self._give_up(choice)
                await link.kept.release(choice.job.job_id)
            await link.kept.claimed(session_id)
            return [(choice, str(problem)) for choice in chosen]
        self._intake.note(path, entries)
        reasons = await side_by_side((self._claim(link, session_id, choice) for choice in chosen), link.updates)
        await link.kept.claimed(session_id)
        return list(zip(chosen, reasons, strict=True))

    def _give_up(self, choice: Choice) -> None:
        self._holdings.reserved.remove(choice.place)
        if self._tools.sandbox is not None and choice.entry.uid is not None:
            self._tools.sandbox.release(choice.entry.uid)

    async def _in_thread(self, function: Any, *arguments: Any) -> Any:
        reactor = self._tools.reactor
        return await deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)

    async def _claim(self, link: Link, session_id: int, choice: Choice) -> str:
        job, reference = choice.job, choice.entry.reference
        answer: Job | None = None
        reason = ""
        try:
            answer = await link.update(
                session_id,
                job.job_id,
                state=JobState.RUNNING,
                target_resources=(self._tools.resource_name,),
                job_specifics=with_tags(job.job_specifics, **{DAEMON_REFERENCE: reference}),
            )
            if not is_ours(answer, reference) or answer.state is not JobState.RUNNING or answer.input is None:
                answer, reason = None, "the server's answer is not what it was told"
        except (NoAnswer, ServerRefused) as problem:
            # What is on disk is sorted out at the next pulse.
            answer, reason = None, str(problem)
        keeper = self._begin(choice.entry, choice.place, answer)
        if keeper is not None and not reason:
            _log.info(
                "job {job_id} of project {project} ({reference}): accepted from {url}, {application} for {owners}",
                job_id=job.job_id,
                project=choice.entry.project,
                reference=reference,
                url=link.url,
                owners=", ".join(job.owners),
                application=choice.entry.application,
            )
            keeper.work(made=True)
        else:
            await link.kept.release(job.job_id)
        return reason

    def _begin(self, entry: Entry, place: Taken, job: Job | None = None) -> Keeper | None:
        """Make the directory and the keeper of a job, as it is where the server has said that it is ours.

        Where there is no room on the disk, that is done later. Not in a thread: what a directory costs are many short
        calls of the system, after each of which a thread would wait for its turn.
        """
        try:
            directory = self._intake.make(entry, _said(job))
        except OSError as problem:
            _log.warn("{reference}: tried again later: {problem}", reference=entry.reference, problem=problem)
            self._unmade.append((entry, place))
            return None
        self._holdings.reserved.remove(place)
        try:
            keeper = Keeper(tools=self._tools, directory=directory, gone=self._holdings.drop, made=True)
            if job is not None:
                keeper.admit(job)
        except (Tampered, OddAnswer) as problem:
            _log.critical("refused: {problem}", problem=problem)
            self._holdings.reserved.append(place)
            return None
        self._holdings.keepers.append(keeper)
        return keeper

    def again(self) -> None:
        """Make the directories for which there was no room; the next pulses tell whose the jobs are."""
        unmade, self._unmade = self._unmade, []
        for entry, place in unmade:
            self._begin(entry, place)

    def found(self, entries: Sequence[Entry]) -> list[Keeper]:
        """Keep jobs that a daemon before was about to claim, or had, and whose directories are missing."""
        keepers = []
        for entry in entries:
            if self._tools.sandbox is not None and entry.uid is not None:
                self._tools.sandbox.hold(entry.uid)
            owners = entry.files["LGI_owners"].decode()
            place = Taken(project=entry.project, application=entry.application, owners=decode_list(owners))
            self._holdings.reserved.append(place)
            keeper = self._begin(entry, place)
            if keeper is not None:
                keepers.append(keeper)
        return keepers


def _said(job: Job | None) -> dict[str, bytes]:
    """What the server has said of a job that is ours, as the files of its directory."""
    if job is None:
        return {}
    said = {name: text.encode() for name, text in described(job).items()}
    return {**said, "LGI_state": job.state.value.encode(), INPUT: job.input or b""}
