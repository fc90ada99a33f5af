"""What a user may ask of a project server (LGI 1.41, Application interface interfacing with the project server)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from lgi.client.answers import (
    Changed,
    JobAnswer,
    ResourceRow,
    ServerList,
    read_changed,
    read_integer,
    read_job,
    read_resources,
    read_servers,
)
from lgi.client.post import CALL_TIMEOUT, Server, Upload
from lgi.client.transfer import Progress, no_progress
from lgi.lists import ANY, encode_list
from lgi.states import JobState
from lgi.wire.binhex import encode_binhex
from lgi.wire.fields import UNKNOWN


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
        uploads: Sequence[Upload] = (),
        submission_key: str = "",
        progress: Progress = no_progress,
    ) -> JobAnswer:
        """Submit one job with its files; not repeated here, since a repeated submission may be a second job.

        It is none, and the first job is returned as it is then, where the server knows of keys and this user has
        posted the same `submission_key` before: 1 to 64 letters, digits, `_` and `-`.
        """
        fields = self._fields(
            application=application, target_resources=encode_list(target_resources), input=encode_binhex(input)
        )
        optional = {
            "job_specifics": job_specifics,
            "read_access": encode_list(read_access),
            "write_access": encode_list(write_access),
            "submission_key": submission_key,
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

    async def changed(self, known: Mapping[int, JobState | None], wait: int) -> Changed:
        """The jobs that are not in the state that is known of them (None: nothing is known); at most 1,000.

        Waits for the first of them for at most `wait` seconds, where there is none yet. Only for servers that offer
        it, see `ServerList.job_wait`.
        """
        jobs = [f"{job_id}:{UNKNOWN if state is None else state.value}" for job_id, state in known.items()]
        response = await self.server.call(
            "interfaces/interface_job_state.php",
            self._fields(jobs=encode_list(jobs), wait=wait),
            timeout=wait + CALL_TIMEOUT,
        )
        return read_changed(response)

    async def delete(self, job_id: int, *, cancel: bool = False) -> JobAnswer:
        """Delete a job that is queued or over, or have a running one aborted: see the state in the answer.

        With `cancel` a queued job is aborted too, and one that is over is left as it is. Only for servers that
        remember submissions: older ones delete it.
        """
        more = {"cancel": 1} if cancel else {}
        response = await self.server.call("interfaces/interface_delete_job.php", self._fields(job_id=job_id, **more))
        return read_job(response.find("job"), job_id=job_id)

    async def servers(self) -> ServerList:
        """The project's servers."""
        return read_servers(await self.server.call("interfaces/interface_project_server_list.php", self._fields()))

    async def resources(self) -> tuple[ResourceRow, ...]:
        """The project's resources."""
        return read_resources(
            await self.server.call("interfaces/interface_project_resource_list.php", self._fields())
        )
