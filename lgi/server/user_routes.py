"""The calls of users: parse, call one use case, encode (LGI 1.41, Application interface).

The project's servers are looked up before the use case: nothing that can fail comes after a change.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from lgi.config import LimitsSection
from lgi.db.resources import list_resources
from lgi.httpd.router import Call, Handler
from lgi.lists import ANY
from lgi.server import jobs, submit, watching
from lgi.server.members import posted_user
from lgi.server.project import Projects
from lgi.server.resource_routes import posted_submission
from lgi.wire import user_answers


@attrs.frozen(kw_only=True)
class UserRoutes:
    """The handlers, by path below the server's URL."""

    projects: Projects
    limits: LimitsSection

    def handlers(self) -> Mapping[str, Handler]:
        """Path to handler."""
        calls = {
            "submit_job": self.submit,
            "job_state": self.job_state,
            "delete_job": self.delete,
            "project_server_list": self.server_list,
            "project_resource_list": self.resource_list,
        }
        return {f"interfaces/interface_{name}.php": handler for name, handler in calls.items()}

    async def submit(self, call: Call) -> str:
        """Submit a job."""
        project = self.projects.of(call)
        user = posted_user(call)
        key = call.fields.optional_key("submission_key")
        servers = await project.servers()
        posted = attrs.evolve(posted_submission(call.fields), submission_key=key)
        job, files = await submit.submit_of_user(project, user, posted, call.uploads)
        return user_answers.submitted(
            project.name,
            servers,
            user.name,
            user.groups,
            job,
            files,
            submission_key=key,
            job_wait=self.limits.job_wait,
        )

    async def job_state(self, call: Call) -> str:
        """List or count jobs, look at one, or wait for changes of some."""
        project = self.projects.of(call)
        user = posted_user(call)
        job_id = call.fields.optional_integer("job_id")
        limit = call.fields.optional_integer("limit")
        query = jobs.JobQuery(
            state=call.fields.optional_short("state") or ANY,
            application=call.fields.optional_short("application") or ANY,
            start=call.fields.optional_integer("start") or 0,
            limit=min(self.limits.list_default if limit is None else limit, self.limits.list_maximum),
        )
        known = call.fields.optional_job_states("jobs")
        wait = min(call.fields.optional_integer("wait") or 0, self.limits.job_wait)
        servers = await project.servers()
        if known:
            found = await watching.changes(project, user, known, wait, call.when_gone, call.idle)
            return user_answers.job_changes(
                project.name,
                servers,
                user.name,
                user.groups,
                jobs=found.jobs,
                gone=found.gone,
                job_wait=self.limits.job_wait,
            )
        if job_id is not None:
            job, files = await jobs.look(project, user, job_id)
            return user_answers.job_detail(
                project.name, servers, user.name, user.groups, job, files, job_wait=self.limits.job_wait
            )
        number, listed = await jobs.list_jobs(project, user, query)
        return user_answers.job_list(
            project.name,
            servers,
            user.name,
            user.groups,
            state=query.state,
            application=query.application,
            start=query.start,
            limit=query.limit,
            number_of_jobs=number,
            jobs=listed,
            job_wait=self.limits.job_wait,
        )

    async def delete(self, call: Call) -> str:
        """Delete a job, or have it aborted."""
        project = self.projects.of(call)
        user = posted_user(call)
        servers = await project.servers()
        job = await jobs.delete(
            project, user, call.fields.integer("job_id"), cancel=bool(call.fields.optional_integer("cancel"))
        )
        return user_answers.job_deleted(project.name, servers, user.name, user.groups, job)

    async def server_list(self, call: Call) -> str:
        """The project's servers."""
        project = self.projects.of(call)
        user = posted_user(call)
        servers = await project.servers()
        return user_answers.server_list(project.name, servers, user.name, user.groups, job_wait=self.limits.job_wait)

    async def resource_list(self, call: Call) -> str:
        """The project's resources."""
        project = self.projects.of(call)
        user = posted_user(call)
        servers = await project.servers()
        found = await project.database.read("list resources", list_resources)
        return user_answers.resource_list(project.name, servers, user.name, user.groups, found)
