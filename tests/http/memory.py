"""Our real HTTP side in memory: real Site, real database on SQLite, chosen identities, no sockets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from sqlalchemy import Connection
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from lgi.admin.project import NewProject, config_text
from lgi.admin.store import in_transaction, register_resource
from lgi.bell import Bell
from lgi.config import ServerConfig, load_config
from lgi.db.database import Database
from lgi.db.grants import allow_user
from lgi.db.upgrade import upgrade_schema
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.httpd.spool import Spool, SpooledFile
from lgi.identity import parse_common_name
from lgi.model import Grant, ServerFlag
from lgi.server.project import Project
from lgi.server.service import Ending, make_site
from lgi.setup import open_databases, repositories_of
from lgi.sync import Neighbours

PROJECT = "LGI"
URL = "https://localhost:8443/LGI"
MARK = "mark@localhost; theor; LGI"
PIET = "piet@localhost; theor, chem; LGI"
RESOURCE = "resource1@localhost; LGI"
OTHER_RESOURCE = "resource2@localhost; LGI"
SERVER = "LGI@localhost; LGI"
# What is posted: text, numbers and bytes.
Fields = dict[str, Any]
APPLICATIONS = ("hello_world", "lj_md")


def certificate(common_name: str) -> str:
    """What stands for the certificate of this name; only compared, never parsed."""
    return f"-----BEGIN CERTIFICATE-----\n{common_name.encode('utf-8', 'replace').hex()}\n-----END CERTIFICATE-----\n"


class NamedPeers:
    """Takes the identity from the transport, where the tests put it."""

    def identify(self, transport: Any) -> Caller:
        """The caller whose common name the transport carries."""
        name = transport.common_name
        try:
            identity = parse_common_name(name)
        except ValueError as problem:
            # As lgi.httpd.peer has it.
            raise LGIError(ErrorNumber.CERTIFICATE_REFUSED, str(problem)) from None
        return Caller(identity=identity, certificate=certificate(name))


@attrs.frozen(kw_only=True)
class Answer:
    """An HTTP answer."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def number(self) -> int | None:
        """The number of the error in the body, None if there is none."""
        if "<error>" not in self.text:
            return None
        return int(self.value("number"))

    def value(self, tag: str) -> str:
        """The content of the first element of this name."""
        return self.text.split(f"<{tag}>", 1)[1].split(f"</{tag}>", 1)[0].strip()


class Transport(StringTransport):
    """Collects an answer and says when it is whole."""

    def __init__(self, common_name: str) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 54321))
        self.common_name = common_name
        self.answered: Deferred[Answer] = Deferred()

    def write(self, data: bytes) -> None:
        super().write(data)
        self._look()

    def writeSequence(self, data: Any) -> None:
        super().writeSequence(data)
        self._look()

    def unregisterProducer(self) -> None:
        """More than once is nothing to real transports."""
        if self.producer is not None:
            super().unregisterProducer()

    def _look(self) -> None:
        if self.answered.called:
            return
        data = self.value()
        while data.startswith(b"HTTP/1.1 100"):
            data = data.partition(b"\r\n\r\n")[2]
        head, separator, body = data.partition(b"\r\n\r\n")
        if not separator:
            return
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if len(body) >= int(headers.get("content-length", "0")) or self.head_only:
            answer = Answer(code=int(lines[0].split()[1]), headers=headers, body=body)
            self.answered.callback(answer)

    head_only = False


class _FullDisk(SpooledFile):
    """A file on a disk that is full: what is written comes back as the system's own error."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._stream.close()
        self._stream = os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")


class FullSpool(Spool):
    """A spool on that disk."""

    def create(self) -> SpooledFile:
        return _FullDisk(self._directory)


def multipart(
    fields: Mapping[str, str | int | bytes], files: Sequence[tuple[str, bytes]] = (), boundary: str = "--7dd@$_23"
) -> tuple[str, bytes]:
    """A form as deployed clients post it: Content-Type and body."""
    mark = f"--{boundary}\r\n".encode()
    parts = []
    for name, value in fields.items():
        data = value if isinstance(value, bytes) else str(value).encode()
        parts.append(mark + f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + data + b"\r\n")
    for number, (filename, data) in enumerate(files, start=1):
        disposition = f'form-data; name="uploaded_file_{number}"; filename="{filename}"'
        parts.append(
            mark
            + f"Content-Disposition: {disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
            + data
            + b"\r\n"
        )
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()


class MemoryServer:
    """A project server with the project LGI, two resources, and everybody allowed to submit.

    `changes` are lines to add to its configuration file, `edits` values for keys that stand there as comments.
    """

    def __init__(self, directory: Path, *, changes: str = "", edits: Mapping[str, object] | None = None) -> None:
        new = NewProject(directory=directory, project=PROJECT, host="localhost", port=8443)
        for folder in ("etc", "db", "server", "ca"):
            (directory / folder).mkdir(parents=True)
        file = directory / "etc" / "lgi-server.toml"
        text = config_text(new) + changes
        for key, value in (edits or {}).items():
            text, count = re.subn(rf"^# {key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
            assert count == 1, key
        file.write_text(text)
        self.config: ServerConfig = load_config(file)
        in_transaction(self.config.projects[PROJECT].database, self._fill, checked=False)
        self.repositories = repositories_of(self.config)
        self.repositories.prepare()
        self.databases = open_databases(self.config, reactor)
        self.database: Database = self.databases[PROJECT]
        self.database.start()
        # The other servers, by their URL; see lgi.client.peers.Calls.
        self.others: dict[str, Any] = {}
        neighbours = Neighbours(
            name=SERVER.partition(";")[0], server=lambda url, _project: self.others[url], close=self.turn
        )
        self.bell = Bell(self.config.server.run_directory)
        self.site = make_site(
            reactor, self.config, self.databases, NamedPeers(), self.repositories, neighbours, self.bell
        )
        self.site.doStart()

    @staticmethod
    def _fill(connection: Connection) -> None:
        upgrade_schema(connection)
        for name, flag, applications in (
            (SERVER, ServerFlag.MASTER, ()),
            (RESOURCE, ServerFlag.NONE, APPLICATIONS),
            (OTHER_RESOURCE, ServerFlag.NONE, APPLICATIONS[:1]),
        ):
            register_resource(
                connection,
                name=name.partition(";")[0],
                certificate=certificate(name).encode(),
                url=URL if flag else name.partition(";")[0],
                project_server=flag,
                applications=applications,
            )
        allow_user(connection, Grant(name="any", application="any", job_limit=0))

    @property
    def project(self) -> Project:
        """The project as the site has it."""
        assert isinstance(self.site.drain, Ending)
        return self.site.drain.projects.by_name[PROJECT]

    def stop(self) -> Deferred[None]:
        """Close everything."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.site.doStop()
        await self.project.pulses.stop()
        self.database.stop()

    def connect(self, common_name: str) -> tuple[Any, Transport]:
        """A new connection of this identity: its protocol takes bytes, its transport has the answers."""
        transport = Transport(common_name)
        protocol = self.site.buildProtocol(transport.getPeer())
        assert protocol is not None
        protocol.makeConnection(transport)
        return protocol, transport

    @staticmethod
    async def until(condition: Callable[[], bool]) -> None:
        """Let the reactor turn until something is so; the test's time-out ends it."""
        while not condition():
            await deferLater(reactor, 0)

    @staticmethod
    async def turn() -> None:
        """Let the reactor turn once, out of the write that carried an answer."""
        await deferLater(reactor, 0)

    @staticmethod
    def hang_up(protocol: Any) -> None:
        """End a connection as its client does."""
        protocol.connectionLost(Failure(ConnectionDone()))

    def send(self, common_name: str, request: bytes, *, head_only: bool = False) -> Deferred[Answer]:
        """Send bytes on a new connection of this identity; the result is the first answer."""
        protocol, transport = self.connect(common_name)
        transport.head_only = head_only
        protocol.dataReceived(request)

        async def closed(result: Any) -> Any:
            await self.turn()
            self.hang_up(protocol)
            return result

        return transport.answered.addBoth(lambda result: Deferred.fromCoroutine(closed(result)))

    def request(
        self,
        common_name: str,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Deferred[Answer]:
        """One request below the server's URL path."""
        lines = [f"{method} /LGI/{path} HTTP/1.1", "Host: localhost:8443", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return self.send(common_name, "\r\n".join(lines).encode() + b"\r\n\r\n" + body, head_only=method == "HEAD")

    def post(
        self,
        common_name: str,
        path: str,
        fields: Mapping[str, str | int | bytes],
        files: Sequence[tuple[str, bytes]] = (),
    ) -> Deferred[Answer]:
        """One posted form."""
        kind, body = multipart(fields, files)
        return self.request(common_name, "POST", path, body, {"Content-Type": kind})

    def user(
        self, call: str, *, who: str = MARK, files: Sequence[tuple[str, bytes]] = (), **fields: Any
    ) -> Deferred[Answer]:
        """A call of a user, by the last part of its name, such as `submit_job`."""
        name, groups, _ = (part.strip() for part in who.split(";"))
        own: Fields = {"project": PROJECT, "user": name, "groups": groups}
        return self.post(who, f"interfaces/interface_{call}.php", own | fields, files)

    def resource(
        self, call: str, *, who: str = RESOURCE, files: Sequence[tuple[str, bytes]] = (), **fields: Any
    ) -> Deferred[Answer]:
        """A call of a resource, by the last part of its name, such as `lock_job`."""
        own: Fields = {"project": PROJECT}
        return self.post(who, f"resources/resource_{call}.php", own | fields, files)

    async def submit(self, *, who: str = MARK, application: str = "hello_world", **fields: Any) -> int:
        """Submit a job and return its number."""
        fields = {"application": application, "target_resources": "any"} | fields
        return int((await self.user("submit_job", who=who, **fields)).value("job_id"))

    async def session(self, *, who: str = RESOURCE) -> int:
        """Sign a resource up and return its session."""
        return int((await self.resource("signup_resource", who=who)).value("session_id"))

    async def running_job(self, *, who: str = RESOURCE, **fields: Any) -> tuple[int, int]:
        """Submit a job and let a resource start it; returns the job's and the session's numbers, unlocked."""
        job_id = await self.submit(**fields)
        session_id = await self.session(who=who)
        await self.resource("request_work", who=who, session_id=session_id, application="hello_world")
        await self.resource(
            "update_job",
            who=who,
            session_id=session_id,
            job_id=job_id,
            state="running",
            target_resources=who.partition(";")[0],
            job_specifics="<daemon_reference> ABC </daemon_reference>",
        )
        await self.resource("unlock_job", who=who, session_id=session_id, job_id=job_id)
        return job_id, session_id
