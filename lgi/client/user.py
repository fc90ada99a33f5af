"""What a user may ask of a project server (LGI 1.41, Application interface interfacing with the project server)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from lgi.client.answers import (
    JobAnswer,
    ResourceRow,
    ServerList,
    read_integer,
    read_job,
    read_resources,
    read_servers,
)
from lgi.client.post import Server
from lgi.client.transfer import Progress, no_progress
from lgi.lists import ANY, encode_list
from lgi.wire.binhex import encode_binhex


@attrs.frozen(kw_only=True)
class UserClient:
    """Calls in the name of a user and his groups. Every call raises what `Server.call` raises."""

    server: Server
    user: str
    groups: tuple[str, ...]

    def _fields(self, **more: str | int) -> Mapping[str, str | int]:
        return {"user": self.user, "groups": encode_list(self.groups), **more}

    async def submit(
        self,
        *,
        application: str,
        target_resources: Sequence[str] = (ANY,),
        input: bytes = b"",
        job_specifics: str = "",
        read_access: Sequence[str] = (),
        write_access: Sequence[str] = (),
        uploads: Sequence[Path] = (),
        progress: Progress = no_progress,
    ) -> JobAnswer:
        """Submit one job with its files; not repeated here, since a repeated submission is a second job."""
        fields = self._fields(
            application=application, target_resources=encode_list(target_resources), input=encode_binhex(input)
        )
        optional = {
            "job_specifics": job_specifics,
            "read_access": encode_list(read_access),
            "write_access": encode_list(write_access),
        }
        response = await self.server.call(
            "interfaces/interface_submit_job.php",
            {**fields, **{name: value for name, value in optional.items() if value}},
            uploads,
            progress=progress,
        )
        return read_job(response.find("job"))

    async def jobs(self, *, state: str = ANY, application: str = ANY, start: int = 0, limit: int) -> list[JobAnswer]:
        """A page of the jobs the user may read, oldest first; filters take `any` and a leading `!`."""
        response = await self.server.call(
            "interfaces/interface_job_state.php",
            self._fields(state=state, application=application, start=start, limit=limit),
        )
        return [read_job(node) for node in response.findall("job")]

    async def count(self, *, state: str = ANY, application: str = ANY) -> int:
        """How many jobs the user may read."""
        response = await self.server.call(
            "interfaces/interface_job_state.php", self._fields(state=state, application=application, limit=0)
        )
        return read_integer(response, "number_of_jobs")

    async def job(self, job_id: int) -> JobAnswer:
        """One job with its input, output and files."""
        response = await self.server.call("interfaces/interface_job_state.php", self._fields(job_id=job_id))
        return read_job(response.find("job"), job_id=job_id)

    async def delete(self, job_id: int) -> JobAnswer:
        """Delete a job that is queued or over, or have a running one aborted: see the state in the answer."""
        response = await self.server.call("interfaces/interface_delete_job.php", self._fields(job_id=job_id))
        return read_job(response.find("job"), job_id=job_id)

    async def servers(self) -> ServerList:
        """The project's servers."""
        return read_servers(await self.server.call("interfaces/interface_project_server_list.php", self._fields()))

    async def resources(self) -> tuple[ResourceRow, ...]:
        """The project's resources."""
        return read_resources(
            await self.server.call("interfaces/interface_project_resource_list.php", self._fields())
        )
