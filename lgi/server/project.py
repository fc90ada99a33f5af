"""A project on this server, and how a call finds the one it is for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import attrs
from twisted.internet.threads import deferToThread

from lgi.config import LimitsSection
from lgi.db.database import Database
from lgi.db.look import Offer, still_offered
from lgi.db.resources import list_servers
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.router import Call
from lgi.model import Changes, Job, RepositoryFile, ServerFlag
from lgi.repository.files import Repositories
from lgi.repository.keeper import Keeper
from lgi.repository.unmade import Unmade
from lgi.server.news import News
from lgi.server.pulses import Pulses
from lgi.server.waiting import Waiting
from lgi.wire.answers import Servers

SERVERS_SECONDS = 5


@attrs.define(kw_only=True)
class Project:
    """A project: its database, its repositories, and what this server is called."""

    name: str
    database: Database
    repositories: Repositories
    news: News
    limits: LimitsSection
    url: str
    now: Callable[[], int]
    user_files: int = 0
    """What the files of one user's jobs may take, in bytes; 0 for no limit."""
    keeper: Keeper = attrs.field()
    """Changes the repositories; by default one that keeps no account of users."""
    waiting: Waiting = attrs.field(init=False)
    pulses: Pulses = attrs.field(init=False)
    _servers: Servers | None = attrs.field(default=None, init=False)
    _servers_until: int = attrs.field(default=0, init=False)

    @keeper.default
    def _without_account(self) -> Keeper:
        return Keeper(self.repositories)

    @waiting.default
    def _nobody_yet(self) -> Waiting:
        return Waiting(lambda: self.news.reactor, self._on_offer)

    @pulses.default
    def _none_yet(self) -> Pulses:
        return Pulses(lambda: self.news.reactor, self.database)

    async def files(self, job: Job) -> tuple[RepositoryFile, ...]:
        """The files of a job in order of their names; raises OSError."""
        files = await deferToThread(self.repositories.list, job.repository)
        return files or self.unmade(job)

    @staticmethod
    def unmade(job: Job) -> tuple[RepositoryFile, ...]:
        """What is listed of a job's repository that is yet to be made; nothing if it is lost."""
        return Unmade(write_access=job.write_access, date=job.state_time_stamp, size=job.repository_size).files

    async def _on_offer(self, offers: Collection[Offer]) -> Collection[Offer]:
        return await self.database.read("on offer", still_offered, offers)

    def tell(self, changes: Changes) -> None:
        """Wake those who wait in this process for what has changed."""
        self.news.tell(changes.jobs)
        self.waiting.tell(changes.offers)

    def stop(self) -> None:
        """Let nobody wait any more."""
        self.news.stop()
        self.waiting.stop()

    async def servers(self) -> Servers:
        """The project's servers, looked up again after SERVERS_SECONDS; raises LGIError(NOT_ONE_MASTER)."""
        if self._servers is None or self.now() >= self._servers_until:
            registered = await self.database.read("list servers", list_servers)
            masters = [server.url for server in registered if server.project_server is ServerFlag.MASTER]
            if len(masters) != 1:
                raise LGIError(ErrorNumber.NOT_ONE_MASTER)
            slaves = tuple(server.url for server in registered if server.project_server is ServerFlag.SLAVE)
            self._servers = Servers(master=masters[0], this=self.url, slaves=slaves)
            self._servers_until = self.now() + SERVERS_SECONDS
        return self._servers


@attrs.frozen(kw_only=True)
class Projects:
    """The projects that this server serves, by name."""

    by_name: Mapping[str, Project]

    def of(self, call: Call) -> Project:
        """The project a call is for; raises LGIError if its certificate or this server does not have it."""
        name = call.fields.optional_short("project")
        if not name and len(self.by_name) == 1:
            # The field is optional where only one can be meant (LGI 1.41, resource_request_resource_data).
            name = next(iter(self.by_name))
        if not name or not call.caller.identity.allows_project(name):
            raise LGIError(ErrorNumber.PROJECT_REFUSED, name)
        if name not in self.by_name:
            raise LGIError(ErrorNumber.NO_PROJECT_DATABASE, name)
        return self.by_name[name]
