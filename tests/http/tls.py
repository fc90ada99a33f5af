"""The real service on a real port, with real certificates and an independent client."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, TypeVar

from sqlalchemy import Connection
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lgi.admin.layout import Layout
from lgi.admin.project import NewProject, make_project
from lgi.admin.store import in_transaction, register_resource
from lgi.ca import CertificateAuthority, Issued
from lgi.config import ServerConfig, load_config
from lgi.server.service import ServerService
from tests.http.memory import Answer, Fields, multipart

R = TypeVar("R")
SUBMIT = "interfaces/interface_submit_job.php"
STATE = "interfaces/interface_job_state.php"
JOB: Fields = {"project": "LGI", "user": "mark@localhost", "groups": "theor", "target_resources": "any"}


class Client:
    """A kept connection of one user; every method blocks."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        self._connection.request(method, f"/LGI/{path}", body, headers or {})
        response = self._connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(code=response.status, headers=names, body=response.read())

    def post(self, path: str, fields: Fields, files: list[tuple[str, bytes]] | None = None) -> Answer:
        kind, body = multipart(fields, files or [])
        return self.request("POST", path, body, {"Content-Type": kind})

    def connect(self) -> socket.socket:
        self._connection.connect()
        assert self._connection.sock is not None
        return self._connection.sock

    @property
    def local_port(self) -> int:
        """Which connection this is."""
        return int(self._connection.sock.getsockname()[1])

    def close(self) -> None:
        self._connection.close()


class TLSCase(TestCase):
    """`twistd lgi-server` without twistd; `edits` are values for keys of its configuration file."""

    timeout = 60
    edits: ClassVar[dict[str, object]] = {}

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        layout: Layout = make_project(
            NewProject(directory=self.folder / "grid", project="LGI", host="localhost", port=8443)
        )
        text = layout.config.read_text()
        # Its address says 8443 to clients; where it listens is the system's choice.
        for line, replacement in (("port = 8443", "port = 0"), ('interface = ""', 'interface = "127.0.0.1"')):
            self.assertEqual(text.count(line), 1)
            text = text.replace(line, replacement)
        for key, value in self.edits.items():
            text, count = re.subn(rf"^# {key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
            self.assertEqual(count, 1, key)
        layout.config.write_text(text)
        self.config: ServerConfig = load_config(layout.config)
        self.ca = CertificateAuthority.open(layout.authority)
        self.service = ServerService(reactor, self.config)
        self.assertEqual(self.service.port, 0)
        self.service.startService()
        self.addCleanup(self.stop)
        self._clients: list[Client] = []
        self.change(self._offer)

    @staticmethod
    def _offer(connection: Connection) -> None:
        register_resource(
            connection, name="resource1@localhost", certificate=b"", url="", applications=["hello_world"]
        )

    async def stop(self) -> None:
        for client in self._clients:
            await deferToThread(client.close)
        await self.service.stopService()
        self.assertEqual(self.service.port, 0)
        await deferLater(reactor, 0.05)

    def change(self, function: Callable[[Connection], R]) -> R:
        return in_transaction(self.config.projects["LGI"].database, function)

    def context(self, issued: Issued | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.ca.certificate_file))
        if issued is not None:
            file = self.folder / f"{issued.serial}.pem"
            file.write_bytes(issued.certificate_pem + issued.key_pem)
            context.load_cert_chain(file)
        return context

    def user(self, name: str = "mark@localhost") -> Issued:
        return self.ca.issue_user(name, groups=["theor"], projects=["LGI"])

    def client(self, issued: Issued | None, context: ssl.SSLContext | None = None) -> Client:
        client = Client(self.service.port, context or self.context(issued))
        self._clients.append(client)
        return client

    def submit(self, client: Client, *files: tuple[str, bytes]) -> Deferred[Answer]:
        return deferToThread(client.post, SUBMIT, JOB | {"application": "hello_world"}, list(files))
