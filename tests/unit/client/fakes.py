"""A project server over plain HTTP on the loopback: answers in recorded shapes, remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from treq.client import HTTPClient
from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import TestCase
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from lgi.client.post import Server, connect
from lgi.client.repository import RepositoryClient
from lgi.client.user import UserClient

reactor: Any = global_reactor

HEAD = (
    "<LGI> <API_version> 1.31 </API_version> <LGI_version> 1.31.6 </LGI_version> <CA_certificate> "
    "http://localhost/certificates/LGI+CA.crt </CA_certificate> <server_max_field_size> 65355 "
    "</server_max_field_size>  <response> "
)
TAIL = " </response> </LGI>"
WHO = (
    " <project> LGI </project> <project_master_server> https://localhost:8443/LGI </project_master_server> "
    "<this_project_server> https://localhost:8443/LGI </this_project_server> <user> mark@localhost </user> "
    "<groups> theor </groups> "
)
STORE = "JOB_1febd3fd40ad1b340d8414de1de3ab07"

SUBMIT = "interfaces/interface_submit_job.php"
STATE = "interfaces/interface_job_state.php"
DELETE = "interfaces/interface_delete_job.php"
RESOURCES = "interfaces/interface_project_resource_list.php"


def answer(content: str) -> bytes:
    """A whole answer of a project server."""
    return f"{HEAD}{content}{TAIL}".encode()


def refusal(number: int, message: str = "no, says the test", timeout: int | None = None) -> bytes:
    """A numbered error; a back-off has its time-out beside the message."""
    more = "" if timeout is None else f" <timeout> {timeout} </timeout>"
    return answer(f"<error> <number> {number} </number> <message> {message} </message> {more} </error>")


def job(
    job_id: int = 6,
    state: str = "queued",
    *,
    specifics: str = "",
    input: bytes | None = b"",
    output: bytes = b"",
    files: Mapping[str, int] | None = None,
    number: bool = True,
    target: str = "any",
    stamp: int = 1795167314,
    url: str = f"https://localhost:8443/LGI/repository/b07/{STORE}",
) -> str:
    """A job as in the answer to submit and detail; `input` None leaves out what the list leaves out."""
    content = "".join(
        f'<file number="{index}"> <file_name> {name} </file_name> <size> {size} </size> '
        f"<date> 1795167086.4014803660 </date> </file> "
        for index, (name, size) in enumerate({".LGI_repository_write_access": 21, **(files or {})}.items(), start=1)
    )
    blobs = f"<input> {input.hex()} </input> <output> {output.hex()} </output>" if input is not None else ""
    listing = f"<repository_content>  {content}<number_of_files> 1 </number_of_files> </repository_content> "
    return (
        f"<job{' number=' + repr('1') if number else ''}> <job_id> {job_id} </job_id> "
        f"<target_resources> {target} </target_resources> <owners> mark@localhost, theor </owners> "
        f"<application> hello_world </application> <state> {state} </state> "
        f"<state_time_stamp> {stamp} </state_time_stamp> {listing if input is not None else ''}{blobs} "
        "<read_access> admin, mark@localhost </read_access> <write_access> admin, mark@localhost </write_access> "
        f"<job_specifics> {specifics} <repository> LGI@localhost:/srv/lgi/repository/b07/{STORE} </repository> "
        f"<repository_url> {url} </repository_url> </job_specifics> </job>"
    )


def detail(*args: Any, **kwargs: Any) -> bytes:
    """The answer about one job."""
    return answer(f"{WHO}<number_of_jobs> 1 </number_of_jobs> {job(*args, **kwargs)}")


def submitted(*args: Any, **kwargs: Any) -> bytes:
    """The answer to a submission."""
    return answer(f"{WHO}{job(*args, number=False, **kwargs)}")


def listed(*jobs: str) -> bytes:
    """A page of jobs."""
    return answer(f"{WHO}<start> 0 </start> <number_of_jobs> {len(jobs)} </number_of_jobs>  {' '.join(jobs)}")


def resources(**offered: str) -> bytes:
    """The project's resources and the names of their applications."""
    rows = " ".join(
        f"<resource number='{index}'> <resource_name> {name}@localhost </resource_name> <resource_capabilities> "
        + " ".join(f"<{app}> </{app}>" for app in apps.split())
        + f" </resource_capabilities> <last_call_time> {1795167000 if apps else 0} </last_call_time> </resource>"
        for index, (name, apps) in enumerate(offered.items(), start=1)
    )
    return answer(f"{WHO}<number_of_resources> {len(offered)} </number_of_resources> {rows}")


Scripted = bytes | Callable[[Request], Any]


class FakeServer(Resource):
    """A server that says what it is told to say.

    `script` has the answers of each path in turn (the last one stays), `calls` what was posted there, `bodies` the
    same as it came; `files` is the repository, `seen` each method and address.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.script: dict[str, list[Scripted]] = {}
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[bytes] = []
        self.files: dict[str, bytes] = {}
        self.seen: list[tuple[str, str]] = []

    def render(self, request: Request) -> Any:
        path = unquote(request.path.decode()).removeprefix("/LGI/")
        self.seen.append((request.method.decode(), request.uri.decode()))
        if path in self.script:
            self._remember(path, request)
            answers = self.script[path]
            scripted = answers.pop(0) if len(answers) > 1 else answers[0]
            return scripted if isinstance(scripted, bytes) else scripted(request)
        if path == "repository/repository_content.php":
            return self._listing()
        return self._file(path.rsplit("/", 1)[-1], request)

    def _remember(self, path: str, request: Request) -> None:
        fields = {name.decode(): values[0].decode("latin-1") for name, values in request.args.items()}
        self.calls.append((path, fields))
        self.bodies.append(_content(request))

    def _listing(self) -> bytes:
        rows = "".join(
            f'<file number="{index}"> <file_name> {name} </file_name> <size> {len(data)} </size> '
            "<date> 1795167086.4258612580 </date> </file> "
            for index, (name, data) in enumerate({".LGI_repository_write_access": b"x", **self.files}.items())
        )
        head = f"<repository_content> <repository_name> {STORE} </repository_name> {rows}"
        return f"{head}<number_of_files> {len(self.files)} </number_of_files> </repository_content> \n".encode()

    def _file(self, name: str, request: Request) -> Any:
        if request.method == b"PUT":
            self.files[name] = _content(request)
        elif name not in self.files:
            request.setResponseCode(404)
            return b"<status> <number> 404 </number> <message> it is not here </message> </status>"
        elif request.method == b"DELETE":
            del self.files[name]
        else:
            return self.files[name]
        return b"<status> <number> 200 </number> <message> done </message> </status>"


def _content(request: Request) -> bytes:
    assert request.content is not None
    request.content.seek(0)
    return bytes(request.content.read())


def never(_request: Request) -> Any:
    """No answer at all."""
    return NOT_DONE_YET


def cut(request: Request) -> Any:
    """Ten bytes announced, four sent."""
    request.setHeader(b"content-length", b"10")
    request.write(b"half")
    assert request.channel is not None
    request.channel.loseConnection()
    return NOT_DONE_YET


class ServerTestCase(TestCase):
    """Starts a FakeServer as `self.fake`, with clients of it, and ends both."""

    timeout = 30

    async def setUp(self) -> None:  # type: ignore[override]
        self.fake = FakeServer()
        self._factory = WrappingFactory(Site(self.fake))
        self._port = reactor.listenTCP(0, self._factory, interface="127.0.0.1")
        self.url = f"http://127.0.0.1:{self._port.getHost().port}/LGI"
        policy: Any = BrowserLikePolicyForHTTPS()
        self.http: HTTPClient
        self.http, self.pool = connect(reactor, policy)
        self.server = Server(http=self.http, reactor=reactor, url=self.url, project="LGI")
        self.user = UserClient(server=self.server, user="mark@localhost", groups=("theor",))
        self.store = RepositoryClient(http=self.http, reactor=reactor, url=f"{self.url}/repository/b07/{STORE}")

    async def tearDown(self) -> None:  # type: ignore[override]
        await self.stop_listening()
        await self.pool.closeCachedConnections()
        while self._factory.protocols:
            for protocol in list(self._factory.protocols):
                protocol.transport.abortConnection()
            await deferLater(reactor, 0)

    async def stop_listening(self) -> None:
        """From now on connections are refused."""
        stopped = self._port.stopListening()
        if stopped is not None:
            await stopped
