"""The calls of resources: parse, call one use case, encode.

The project's servers are looked up before the use case: nothing that can fail comes after a change.

LGI 1.41, Resource interfacing with the project server.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from lgi.config import LimitsSection
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.router import Call, Handler
from lgi.lists import encode_list
from lgi.server import reports, sessions, submit, work
from lgi.server.members import look_up
from lgi.server.project import Project, Projects
from lgi.states import JobState
from lgi.wire import resource_answers
from lgi.wire.fields import JOBS, PostedFields


def posted_job_state(fields: PostedFields) -> JobState | None:
    """The state that was posted, None if none was; raises LGIError for a word that is no state."""
    text = fields.optional_short("state")
    if not text:
        return None
    try:
        return JobState(text.lower())
    except ValueError:
        raise LGIError(ErrorNumber.STATE_MISSING, f"{text!r} is not the state of a job") from None


def posted_session(fields: PostedFields, without: ErrorNumber) -> int:
    """The session that was posted; raises LGIError(`without`) for 0, which is no session but what interfaces lock in.

    LGI 1.41, running_locks.
    """
    session_id = fields.integer("session_id")
    if not session_id:
        raise LGIError(without)
    return session_id


@attrs.frozen(kw_only=True)
class ResourceRoutes:
    """The handlers, by path below the server's URL."""

    projects: Projects
    limits: LimitsSection

    def handlers(self) -> Mapping[str, Handler]:
        """Path to handler."""
        calls = {
            "signup_resource": self.sign_up,
            "signoff_resource": self.sign_off,
            "request_work": self.request_work,
            "request_job_details": self.details,
            "lock_job": self.lock,
            "unlock_job": self.unlock,
            "update_job": self.update,
            "update_jobs": self.update_several,
            "submit_job": self.submit,
            "job_state": self.state,
            "request_resource_data": self.resource_data,
        }
        return {f"resources/resource_{name}.php": handler for name, handler in calls.items()}

    async def sign_up(self, call: Call) -> str:
        """Start a session."""
        project = self.projects.of(call)
        capabilities = call.fields.optional_long("capabilities")
        servers = await project.servers()
        resource, session_id = await sessions.sign_up(project, call.caller, capabilities)
        return resource_answers.session(
            resource, project.name, servers, session_id, work_wait=self.limits.work_wait, update_jobs=JOBS
        )

    async def sign_off(self, call: Call) -> str:
        """End a session."""
        project = self.projects.of(call)
        session_id = posted_session(call.fields, ErrorNumber.LOCKS_WITHOUT_SESSION)
        servers = await project.servers()
        resource = await sessions.sign_off(project, call.caller, session_id)
        return resource_answers.session(resource, project.name, servers, session_id)

    async def request_work(self, call: Call) -> str:
        """Lock and list queued jobs, or count them."""
        project = self.projects.of(call)
        fields = call.fields
        wait = fields.optional_integer("wait")
        if wait:
            return await self._wait_for_work(call, project, wait)
        limit = fields.optional_integer("limit")
        wanted = work.WorkRequest(
            session_id=posted_session(fields, ErrorNumber.LOCK_SEARCH_WITHOUT_SESSION),
            application=fields.short("application"),
            owners=fields.optional_names("owners"),
            start=fields.optional_integer("start") or 0,
            limit=min(self.limits.work_default if limit is None else limit, self.limits.work_maximum),
        )
        servers = await project.servers()
        resource, number, jobs = await work.request_work(project, call.caller, wanted)
        return resource_answers.work(
            resource,
            project.name,
            servers,
            session_id=wanted.session_id,
            application=wanted.application,
            owners=encode_list(wanted.owners),
            start=wanted.start,
            limit=wanted.limit,
            number_of_jobs=number,
            jobs=jobs,
        )

    async def _wait_for_work(self, call: Call, project: Project, seconds: int) -> str:
        session_id = posted_session(call.fields, ErrorNumber.LOCK_SEARCH_WITHOUT_SESSION)
        applications = call.fields.names("applications")
        seconds = min(seconds, self.limits.work_wait)
        with call.idle():
            resource, told = await work.wait_for_work(
                project, call.caller, session_id, applications, seconds, call.when_gone
            )
        return resource_answers.work_for(
            resource, project.name, await project.servers(), session_id=session_id, applications=sorted(told)
        )

    async def details(self, call: Call) -> str:
        """Everything about a locked job."""
        project = self.projects.of(call)
        session_id = posted_session(call.fields, ErrorNumber.LOCK_SEARCH_WITHOUT_SESSION)
        job_id = call.fields.integer("job_id")
        servers = await project.servers()
        resource, job = await work.details(project, call.caller, session_id, job_id)
        files = await project.files(job)
        return resource_answers.resource_job(resource, project.name, servers, job, session_id=session_id, files=files)

    async def lock(self, call: Call) -> str:
        """Lock a job."""
        project = self.projects.of(call)
        session_id = posted_session(call.fields, ErrorNumber.LOCK_WITHOUT_SESSION)
        job_id = call.fields.integer("job_id")
        servers = await project.servers()
        resource, held = await sessions.lock(project, call.caller, session_id, job_id)
        return resource_answers.lock(resource, project.name, servers, held, session_id=session_id)

    async def unlock(self, call: Call) -> str:
        """Unlock a job."""
        project = self.projects.of(call)
        session_id = posted_session(call.fields, ErrorNumber.UNLOCK_WITHOUT_SESSION)
        job_id = call.fields.integer("job_id")
        servers = await project.servers()
        resource, held = await sessions.unlock(project, call.caller, session_id, job_id)
        return resource_answers.lock(
            resource, project.name, servers, held, session_id=session_id, unlock_time=project.now()
        )

    async def update(self, call: Call) -> str:
        """Change a locked job."""
        project = self.projects.of(call)
        fields = call.fields
        session_id = posted_session(fields, ErrorNumber.LOCK_SEARCH_WITHOUT_SESSION)
        job_id = fields.integer("job_id")
        posted = attrs.evolve(posted_changes(fields), input=fields.binhex("input"))
        servers = await project.servers()
        resource, job = await reports.update(project, call.caller, session_id, job_id, posted)
        return resource_answers.resource_job(resource, project.name, servers, job, session_id=session_id)

    async def update_several(self, call: Call) -> str:
        """Change several locked jobs."""
        project = self.projects.of(call)
        session_id = posted_session(call.fields, ErrorNumber.LOCK_SEARCH_WITHOUT_SESSION)
        posted = posted_reports(call.fields)
        servers = await project.servers()
        resource, found = await reports.update_several(project, call.caller, session_id, posted)
        return resource_answers.resource_jobs(resource, project.name, servers, found, session_id=session_id)

    async def submit(self, call: Call) -> str:
        """Submit a job that is locked at once for the session."""
        project = self.projects.of(call)
        fields = call.fields
        session_id = posted_session(fields, ErrorNumber.LOCK_WITHOUT_SESSION)
        state = posted_job_state(fields)
        if state is None:
            raise LGIError(ErrorNumber.STATE_MISSING)
        owners = fields.names("owners")
        servers = await project.servers()
        resource, job, files = await submit.submit_of_resource(
            project, call.caller, session_id, state, owners, posted_submission(fields), call.uploads
        )
        return resource_answers.resource_job(resource, project.name, servers, job, session_id=session_id, files=files)

    async def state(self, call: Call) -> str:
        """The state of a job."""
        project = self.projects.of(call)
        servers = await project.servers()
        resource, job = await work.state(project, call.caller, call.fields.integer("job_id"))
        return resource_answers.resource_job(resource, project.name, servers, job)

    async def resource_data(self, call: Call) -> str:
        """The certificate and address of another resource."""
        project = self.projects.of(call)
        name = call.fields.short("resource_name")
        servers = await project.servers()
        resource, found = await project.database.run("look up", look_up, call.caller, name, project.now())
        return resource_answers.resource_data(resource, project.name, servers, found)


def posted_changes(fields: PostedFields) -> reports.JobChanges:
    """What is posted of a job that is held locked."""
    return reports.JobChanges(
        state=posted_job_state(fields),
        target_resources=fields.optional_names("target_resources") or None,
        job_specifics=fields.optional_long("job_specifics"),
        output=fields.binhex("output"),
    )


def posted_reports(fields: PostedFields) -> dict[int, reports.JobChanges | LGIError]:
    """What is posted of several jobs, by their numbers and in order, or what is wrong with that; raises LGIError.

    Raised is what is wrong with the call: how many jobs they are, and which.
    """
    posted: dict[int, reports.JobChanges | LGIError] = {}
    for number in range(1, fields.count("number_of_jobs") + 1):
        job_id, changes = posted_report(fields, number)
        if job_id in posted:
            raise LGIError(ErrorNumber.JOB_ID_TOO_BIG, f"job {job_id} is in the call twice")
        posted[job_id] = changes
    return posted


def posted_report(fields: PostedFields, number: int) -> tuple[int, reports.JobChanges | LGIError]:
    """One of several jobs; see `posted_reports`."""
    one = fields.numbered(number)
    job_id = one.integer("job_id")
    try:
        return job_id, posted_changes(one)
    except LGIError as problem:
        return job_id, problem


def posted_submission(fields: PostedFields) -> submit.Submission:
    """What is posted of a new job, by users and by resources alike."""
    return submit.Submission(
        application=fields.short("application"),
        target_resources=fields.names("target_resources"),
        job_specifics=fields.optional_long("job_specifics") or "",
        input=fields.binhex("input") or b"",
        output=fields.binhex("output") or b"",
        read_access=fields.optional_names("read_access"),
        write_access=fields.optional_names("write_access"),
    )
