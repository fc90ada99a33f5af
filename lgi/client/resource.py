"""What a resource may ask of a project server (LGI 1.41, Resource interfacing with the project server)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lgi.client.answers import (
    JobAnswer,
    JobUpdate,
    ServerRefused,
    SignedUp,
    read_integer,
    read_job,
    read_largest_field,
    read_servers,
    read_updated,
)
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
            update_jobs=read_integer(response, "update_jobs") if response.find("update_jobs") is not None else 0,
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
        update = JobUpdate(
            job_id=job_id,
            state=state,
            target_resources=target_resources,
            job_specifics=job_specifics,
            output=output,
        )
        response = await self.server.call(
            "resources/resource_update_job.php", {"session_id": session_id, **_posted(update)}
        )
        return read_job(response.find("job"), job_id=job_id)

    async def update_jobs(self, session_id: int, updates: Sequence[JobUpdate]) -> list[JobAnswer | ServerRefused]:
        """Change several jobs that this session holds locked; for each, the job as it is then, or why it was refused.

        Only for servers that offer it, see `SignedUp`. The jobs come without output, and with input only where they
        have been queued until then.
        """
        fields: dict[str, str | int] = {"session_id": session_id, "number_of_jobs": len(updates)}
        for number, update in enumerate(updates, start=1):
            fields |= {f"{name}_{number}": value for name, value in _posted(update).items()}
        response = await self.server.call("resources/resource_update_jobs.php", fields)
        return read_updated(response, [update.job_id for update in updates])

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


def _posted(update: JobUpdate) -> dict[str, str | int]:
    fields: dict[str, str | int] = {"job_id": update.job_id}
    if update.state is not None:
        fields["state"] = update.state.value
    if update.target_resources is not None:
        fields["target_resources"] = encode_list(update.target_resources)
    if update.job_specifics is not None:
        fields["job_specifics"] = update.job_specifics
    if update.output is not None:
        fields["output"] = encode_binhex(update.output)
    return fields
