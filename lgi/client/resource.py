"""What a resource may ask of a project server (LGI 1.41, Resource interfacing with the project server)."""

from __future__ import annotations

import attrs

from lgi.client.answers import JobAnswer, ServerList, read_integer, read_job, read_servers
from lgi.client.post import Server
from lgi.lists import encode_list
from lgi.states import JobState
from lgi.wire.binhex import encode_binhex


@attrs.frozen(kw_only=True)
class ResourceClient:
    """Calls in the name of the resource whose certificate the connection carries.

    Every call raises what `Server.call` raises; `session_id` is the one that `signup` returned.
    """

    server: Server

    async def signup(self, capabilities: str | None = None) -> tuple[int, ServerList]:
        """Start a session; `capabilities` is XML with an element for each application offered."""
        fields = {} if capabilities is None else {"capabilities": capabilities}
        response = await self.server.call("resources/resource_signup_resource.php", fields)
        return read_integer(response, "session_id"), read_servers(response)

    async def signoff(self, session_id: int) -> None:
        """End the session, which frees its locks."""
        await self.server.call("resources/resource_signoff_resource.php", {"session_id": session_id})

    async def request_work(
        self, session_id: int, application: str, *, start: int = 0, limit: int = 32, owners: tuple[str, ...] = ()
    ) -> list[JobAnswer]:
        """Queued jobs for this resource, each locked by this session until unlocked."""
        response = await self.server.call(
            "resources/resource_request_work.php",
            {
                "session_id": session_id,
                "application": application,
                "start": start,
                "limit": limit,
                "owners": encode_list(owners),
            },
        )
        # The answer leaves the state out, as all of them are queued.
        return [read_job(node, state=JobState.QUEUED) for node in response.findall("job")]

    async def lock(self, session_id: int, job_id: int) -> None:
        """Lock a job; error 22 when somebody else holds it."""
        await self.server.call("resources/resource_lock_job.php", {"session_id": session_id, "job_id": job_id})

    async def unlock(self, session_id: int, job_id: int) -> None:
        """Give the lock back."""
        await self.server.call("resources/resource_unlock_job.php", {"session_id": session_id, "job_id": job_id})

    async def update(
        self,
        session_id: int,
        job_id: int,
        *,
        state: JobState | None = None,
        target_resources: tuple[str, ...] | None = None,
        job_specifics: str | None = None,
        output: bytes | None = None,
    ) -> JobAnswer:
        """Change fields of a job that this session holds locked; returns the job with input and output."""
        fields: dict[str, str | int] = {"session_id": session_id, "job_id": job_id}
        if state is not None:
            fields["state"] = state.value
        if target_resources is not None:
            fields["target_resources"] = encode_list(target_resources)
        if job_specifics is not None:
            fields["job_specifics"] = job_specifics
        if output is not None:
            fields["output"] = encode_binhex(output)
        response = await self.server.call("resources/resource_update_job.php", fields)
        return read_job(response.find("job"), job_id=job_id)

    async def details(self, session_id: int, job_id: int) -> JobAnswer:
        """Everything about a job that this session holds locked."""
        response = await self.server.call(
            "resources/resource_request_job_details.php", {"session_id": session_id, "job_id": job_id}
        )
        return read_job(response.find("job"), job_id=job_id)

    async def state(self, job_id: int) -> JobAnswer:
        """The state of a job of this resource; also tells the server that the job is looked after."""
        response = await self.server.call("resources/resource_job_state.php", {"job_id": job_id})
        return read_job(response.find("job"), job_id=job_id)
