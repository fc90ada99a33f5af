"""What a resource may ask of a project server (LGI 1.41, Resource interfacing with the project server)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lgi.client.answers import JobAnswer, SignedUp, read_integer, read_job, read_largest_field, read_servers
from lgi.client.post import CALL_TIMEOUT, Server
from lgi.lists import decode_list, encode_list
from lgi.states import JobState
from lgi.wire.binhex import encode_binhex
from lgi.wire.dialect import text_of


@attrs.frozen(kw_only=True)
class ResourceClient:
    """Calls in the name of the resource whose certificate the connection carries.

    Every call raises what `Server.call` raises; `session_id` is the one that `signup` returned.
    """

    server: Server

    async def signup(self, capabilities: str | None = None) -> SignedUp:
        """Start a session; `capabilities` is XML with an element for each application offered."""
        fields = {} if capabilities is None else {"capabilities": capabilities}
        response = await self.server.call("resources/resource_signup_resource.php", fields)
        return SignedUp(
            session_id=read_integer(response, "session_id"),
            servers=read_servers(response),
            largest_field=read_largest_field(response),
            # Deployed servers know nothing of it.
            work_wait=read_integer(response, "work_wait") if response.find("work_wait") is not None else 0,
        )

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

    async def wait_for_work(self, session_id: int, applications: Sequence[str], seconds: int) -> tuple[str, ...]:
        """Wait at most `seconds` until it is worth requesting work, and return of which applications.

        Only for servers that offer it, see `SignedUp`. Nothing is locked.
        """
        response = await self.server.call(
            "resources/resource_request_work.php",
            {"session_id": session_id, "wait": seconds, "applications": encode_list(applications)},
            timeout=seconds + CALL_TIMEOUT,
        )
        return decode_list(text_of(response, "work_for"))

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
