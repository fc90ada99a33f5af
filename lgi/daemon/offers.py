"""A job offered by a project server: inspected, and made ours or given back (LGI 1.41, Resource daemon)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from lgi.client.answers import ServerRefused
from lgi.daemon import limits
from lgi.daemon.claims import Claims, Place
from lgi.daemon.config import ApplicationConfig, DaemonConfig, Limits, ProjectConfig
from lgi.daemon.holdings import Holdings
from lgi.daemon.jobdir import JobDirectory, Tampered, discard, prepare
from lgi.daemon.jobfiles import copied_files, job_files
from lgi.daemon.keeper import Keeper
from lgi.daemon.kept import WorkSession
from lgi.daemon.limits import Taken
from lgi.daemon.links import NoAnswer
from lgi.daemon.sandbox import NoUid
from lgi.daemon.scripts import StillRunning
from lgi.daemon.seal import Seal
from lgi.daemon.steps import LARGEST_SPECIFICS, Tools
from lgi.model import Job
from lgi.wire.dialect import MalformedXML
from lgi.wire.specifics import DAEMON_REFERENCE, with_tags

_log = Logger()
CHECK_LIMITS = "job_check_limits_script"
REMEMBERED = 1000  # rejections, so that each is logged once


class Offers:
    """Decides on offered jobs."""

    def __init__(self, *, config: DaemonConfig, seal: Seal, tools: Tools, holdings: Holdings, claims: Claims) -> None:
        self._config = config
        self._seal = seal
        self._tools = tools
        self._holdings = holdings
        self._claims = claims
        self._rejected: dict[tuple[str, str, int], str] = {}

    def reconfigure(self, config: DaemonConfig) -> None:
        """Decide by this from now on, also on what was asked for before."""
        self._config = config

    def _now(self, place: Place) -> Place | None:
        """The place by the configuration of this moment; None where it is no longer in it."""
        for project in self._config.projects:
            for application in project.applications:
                if (project.name, application.name) == (place.project.name, place.application.name):
                    return attrs.evolve(place, project=project, application=application)
        return None

    def levels(self, project: ProjectConfig, application: ApplicationConfig) -> tuple[limits.Level, ...]:
        """The limits that one more job has to pass now."""
        levels = limits.levels(self._config, project, application, self._holdings.taken)
        uid = application.sandbox_uid
        if self._tools.sandbox is None or uid is None:
            return levels
        # One job at a time has a uid; asking for more would be in vain.
        sharing = {
            (other.name, app.name)
            for other in self._config.projects
            for app in other.applications
            if app.sandbox_uid == uid
        }
        jobs = [job for job in self._holdings.taken if (job.project, job.application) in sharing]
        return (*levels, limits.Level(name=f"uid {uid}", limits=Limits(allow={}, deny=(), job_limit=1), jobs=jobs))

    async def consider(self, place: Place, session: WorkSession, jobs: Sequence[Job]) -> set[int]:
        """Take queued jobs that the session holds locked, or reject and unlock them; the numbers of those taken.

        Where no script looks at them first, all are taken at once, and the session is left to them.
        """
        number = await session.free()
        if CHECK_LIMITS in place.application.scripts:
            return {job.job_id for job in jobs if await self._consider(place, number, job)}
        taken, new = set(), []
        for job in jobs:
            if self._is_known(place, job):
                if await self._consider(place, number, job):
                    taken.add(job.job_id)
            else:
                new.append(job)
        return taken | await self._take_all(place, session, number, new)

    def _is_known(self, place: Place, job: Job) -> bool:
        key = (place.project.name, place.link.url, job.job_id)
        return key in self._holdings.refused or self._holdings.find(*key) is not None

    async def _take_all(self, place: Place, session: WorkSession, number: int, jobs: Sequence[Job]) -> set[int]:
        current, chosen, copies = self._now(place), [], {}
        passed: tuple[limits.Level, ...] = ()
        try:
            copies = {} if current is None else copied_files(self._config, current.application)
            trouble = ""
        except OSError as problem:
            trouble = str(problem)
        for job in jobs:
            reason: str | None = trouble or f"the application {place.application.name} is no longer offered here"
            if current is not None and not trouble:
                passed = passed or self.levels(current.project, current.application)
                reason = self._objection(current, job, passed)
            if current is None or reason is not None:
                await place.link.unlock(number, job.job_id)
                self._reject(place, job, reason or "")
                # Others may have come or gone meanwhile.
                passed = ()
                continue
            try:
                choice = self._claims.choose(self._config, current, job, copies)
            except NoUid as problem:
                await place.link.unlock(number, job.job_id)
                self._reject(place, job, str(problem))
                passed = ()
                continue
            chosen.append(choice)
            for level in passed:
                level.add(choice.place)
        if not chosen:
            return set()
        session.leave()
        taken = set()
        for choice, reason in await self._claims.take(place.link, number, chosen):
            if reason:
                self._reject(place, choice.job, reason)
            else:
                taken.add(choice.job.job_id)
                self._rejected.pop((place.project.name, place.link.url, choice.job.job_id), None)
        return taken

    def _objection(self, place: Place, job: Job, passed: Sequence[limits.Level]) -> str | None:
        application = place.application
        if job.application not in ("", application.name):
            return f"it is for {job.application}, and was offered as one for {application.name}"
        return limits.refusal(passed, job.owners) or _unfit(job)

    def _reject(self, place: Place, job: Job, reason: str) -> None:
        key = (place.project.name, place.link.url, job.job_id)
        if len(self._rejected) > REMEMBERED:
            self._rejected.clear()
        if self._rejected.get(key) != reason:
            self._rejected[key] = reason
            _log.info(
                "job {job_id} of project {project} not taken: {reason}",
                job_id=job.job_id,
                project=place.project.name,
                reason=reason,
            )

    async def _consider(self, place: Place, session_id: int, job: Job) -> bool:
        """Take a queued job that the session holds locked, or reject it, and unlock it; whether it was taken."""
        keeper: Keeper | None = None
        try:
            keeper, reason = await self._take(place, session_id, job)
        except (NoAnswer, ServerRefused, OSError, Tampered) as problem:
            # What is on disk is sorted out at the next pulse.
            reason = str(problem)
        unlocking = Deferred.fromCoroutine(place.link.unlock(session_id, job.job_id))
        key = (place.project.name, place.link.url, job.job_id)
        if keeper is not None:
            self._rejected.pop(key, None)
            # It is ours, whoever holds the lock; its report waits for the end of the unlocking.
            keeper.work()
            await unlocking
            return True
        await unlocking
        self._reject(place, job, reason)
        return False

    async def _take(self, place: Place, session_id: int, job: Job) -> tuple[Keeper | None, str]:
        project, application, link = place.project, place.application, place.link
        known = self._holdings.find(project.name, link.url, job.job_id)
        if (project.name, link.url, job.job_id) in self._holdings.refused:
            return None, "its directory here was tampered with"
        if known is not None:
            if not known.can_take:
                return None, "a former copy of it is still here"
            await known.take(session_id, job)
            _log.info("job {job_id} of project {project} claimed again", job_id=job.job_id, project=project.name)
            return known, ""
        current = self._now(place)
        if current is None:
            return None, f"the application {application.name} is no longer offered here"
        place, project, application = current, current.project, current.application
        reason = self._objection(place, job, self.levels(project, application))
        if reason is not None:
            return None, reason
        place_taken = Taken(project=project.name, application=application.name, owners=job.owners)
        self._holdings.reserved.append(place_taken)
        try:
            directory, reason = await self._prepare(place, job)
        finally:
            self._holdings.reserved.remove(place_taken)
        if directory is None:
            return None, reason
        keeper = Keeper(tools=self._tools, directory=directory, gone=self._holdings.drop)
        self._holdings.keepers.append(keeper)
        await keeper.take(session_id, job)
        _log.info(
            "job {job_id} of project {project} ({reference}): accepted from {url}, {application} for {owners}",
            job_id=job.job_id,
            project=project.name,
            reference=directory.reference,
            url=link.url,
            owners=", ".join(job.owners),
            application=application.name,
        )
        return keeper, ""

    async def _prepare(self, place: Place, job: Job) -> tuple[JobDirectory | None, str]:
        project, application = place.project, place.application
        contents = job_files(self._config, application, place.master, place.link.url, job)
        sandbox = self._tools.sandbox
        try:
            uid = None if sandbox is None else sandbox.take(application.sandbox_uid, self._config.sandbox_uids)
        except NoUid as problem:
            return None, str(problem)
        draft = published = None
        try:
            draft = prepare(self._config.run_directory, self._seal, project.name, application.name, contents, uid=uid)
            if draft.has_script(f"LGI_{CHECK_LIMITS}"):  # the configuration may have changed meanwhile
                outcome = await self._tools.scripts.run(draft, f"LGI_{CHECK_LIMITS}")
                if not outcome.ok:
                    return None, f"{CHECK_LIMITS}: {outcome}"
            published = draft.publish()
        except StillRunning as problem:
            return None, str(problem)
        finally:
            gone = published is None and (draft is None or discard(draft.path))
            if gone and sandbox is not None and uid is not None:
                sandbox.release(uid)
        return published, ""


def _unfit(job: Job) -> str | None:
    try:
        specifics = with_tags(job.job_specifics, **{DAEMON_REFERENCE: "0" * 32})
    except MalformedXML as problem:
        return f"its job_specifics cannot be read: {problem}"
    if len(specifics.encode()) > LARGEST_SPECIFICS:
        return "its job_specifics leave no room for our reference"
    return None
