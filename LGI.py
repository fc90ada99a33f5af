"""The Python class interface of LGI 1.41: `LGI.LGI_Client`, for scripts that were written for it.

Answers are dictionaries made of the XML that the server sends: an element is an entry, one that occurs several times
is a list, digits are a number, and `input` and `output` are bytes. An answer with an error is a dictionary too, with
`error` in its `response`. What cannot be answered raises LGI_Error. New programs use `lgi.Client`.
"""

from __future__ import annotations

import http.client
import os
import secrets
import ssl
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from lxml import etree

from lgi.wire.binhex import decode_binhex, encode_binhex
from lgi.wire.dialect import MalformedXML, read_answer

__all__ = ["LGI_Client", "LGI_Error"]

TIMEOUT = 90.0  # seconds in which nothing is sent or received; a server holds a call on a locked job for up to 30
PIECE = 1 << 16
DIGITS = 1000  # a number of more is text
SUBMIT = "/interfaces/interface_submit_job.php"
DELETE = "/interfaces/interface_delete_job.php"
STATE = "/interfaces/interface_job_state.php"
ONCE = frozenset({SUBMIT, DELETE})

Text = str | bytes
Answer = dict[str, Any]


class LGI_Error(Exception):
    """A call that has no answer, or a file that cannot be transferred; the message says why."""


class LGI_Client:
    """A project server, or with the address of a repository as `URL` that repository, as a user sees it.

    What is not given is read from ~/.LGI, or the directory that LGI_CONFIG names. One instance is for one thread.
    """

    def __init__(
        self,
        URL: str | None = None,
        Project: str | None = None,
        User: str | None = None,
        Groups: str | None = None,
        Certificate: str | None = None,
        PrivateKey: str | None = None,
        CA_Chain: str | None = None,
    ) -> None:
        self._connection: http.client.HTTPSConnection | None = None
        self._directory = Path(os.environ.get("LGI_CONFIG") or Path.home() / ".LGI")
        self._url = URL or self._default("defaultserver")
        self._project = Project or self._default("defaultproject")
        self._user = User or self._default("user")
        self._groups = Groups or self._default("groups")
        self._certificate = Certificate or str(self._directory / "certificate")
        self._key = PrivateKey or str(self._directory / "privatekey")
        self._ca_chain = CA_Chain or str(self._directory / "ca_chain")
        try:
            parts = urlsplit(self._url.rstrip("/"))
            self._host, self._port, self._path = parts.hostname or "", parts.port or 443, parts.path
        except ValueError as problem:
            raise LGI_Error(f"{self._url!r} is no address of a server or repository: {problem}") from None
        if parts.scheme != "https" or not self._host:
            raise LGI_Error(f"{self._url!r} is no https:// address of a server or repository")

    def _default(self, name: str) -> str:
        path = self._directory / name
        try:
            return path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            reason = getattr(problem, "strerror", None) or "it is not UTF-8 text"
            raise LGI_Error(f"{path} cannot be read: {reason}") from None

    def Connect(self) -> None:
        """Connect to the server; the first call does it, too."""
        if self._connection is not None:
            return
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(self._ca_chain)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self._certificate, self._key)
        except OSError as problem:
            files = f"{self._certificate}, {self._key} or {self._ca_chain}"
            raise LGI_Error(f"{files} cannot be used: {problem}") from problem
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=context)
        try:
            connection.connect()
        except OSError as problem:
            raise LGI_Error(f"{self._host}:{self._port} cannot be reached: {problem}") from problem
        self._connection = connection

    def Close(self) -> None:
        """Close the connection; a later call makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def GetJobState(self, JobId: int | str) -> Answer:
        """One job with its input, output and files."""
        return self._post(STATE, {"job_id": JobId})

    def GetJobList(
        self,
        Application: str | None = None,
        State: str | None = None,
        Start: int | None = None,
        Limit: int | None = None,
    ) -> Answer:
        """A page of the jobs; `State` and `Application` may be `any`, and begin with `!` for all others."""
        return self._post(STATE, {"application": Application, "state": State, "start": Start, "limit": Limit})

    def GetResourceList(self) -> Answer:
        """The project's resources and what they offer."""
        return self._post("/interfaces/interface_project_resource_list.php", {})

    def GetServerList(self) -> Answer:
        """The project's servers."""
        return self._post("/interfaces/interface_project_server_list.php", {})

    def DeleteJob(self, JobId: int | str) -> Answer:
        """Delete a job, or have one that runs aborted: its state in the answer says which."""
        return self._post(DELETE, {"job_id": JobId})

    def SubmitJob(
        self,
        Application: str,
        TargetResources: str = "any",
        Input: Text | None = None,
        JobSpecifics: str | None = None,
        WriteAccess: str | None = None,
        ReadAccess: str | None = None,
        FileList: Sequence[str] = (),
    ) -> Answer:
        """Submit a job; the files go into its repository under their last names."""
        fields = {
            "application": Application,
            "target_resources": TargetResources,
            "input": encode_binhex(Input.encode() if isinstance(Input, str) else Input) if Input else None,
            "job_specifics": JobSpecifics,
            "write_access": WriteAccess,
            "read_access": ReadAccess,
            "submission_key": secrets.token_urlsafe(24),
            "number_of_uploaded_files": len(FileList),
        }
        return self._post(SUBMIT, fields, FileList)

    def ListRepository(self) -> Answer:
        """The files in the repository."""
        base = self._path.rpartition("/repository/")[0] if "/repository/" in self._path else self._path
        name = self._path.rpartition("/")[2]
        path = f"{base}/repository/repository_content.php"
        return self._answer(*self._exchange("POST", path, lambda: _Form({"repository": name}, ())))

    def DownloadFiles(self, Files: Iterable[str], Where: str | None = None) -> None:
        """Download files into the directory `Where`; without it, to the paths by which they are named.

        A relative path is looked for as it is first, and then by its last name, as deployed programs do.
        """
        for name in Files:
            target = Path(Where) / _last(name) if Where else Path(name)
            self._each(name, "GET", target)

    def UploadFiles(self, Files: Iterable[str]) -> None:
        """Upload files under their last names."""
        for name in Files:
            self._done(name, *self._exchange("PUT", self._file(_last(name)), lambda name=name: _Whole(name)))

    def DeleteFiles(self, Files: Iterable[str]) -> None:
        """Delete files; names are as in `DownloadFiles`."""
        for name in Files:
            self._each(name, "DELETE", None)

    DownLoadFiles = DownloadFiles
    UpLoadFiles = UploadFiles

    def _each(self, name: str, method: str, target: Path | None) -> None:
        names = [_last(name)] if name.startswith("/") or "/" not in name else [name, _last(name)]
        for number, one in enumerate(names, start=1):
            response, body = self._exchange(method, self._file(one), target=target)
            if response.status != 404 or number == len(names):
                self._done(name, response, body)
                return

    def _file(self, name: str) -> str:
        return f"{self._path}/{quote(name)}"

    @staticmethod
    def _done(name: str, response: http.client.HTTPResponse, body: bytes) -> None:
        if response.status not in (200, 201, 204):
            try:
                message = (read_answer(body).findtext("message") or "").strip()
            except MalformedXML:
                message = response.reason
            raise LGI_Error(f"{name}: {message} (HTTP status {response.status})")

    def _post(self, call: str, fields: Mapping[str, str | int | None], files: Sequence[str] = ()) -> Answer:
        given = {name: value for name, value in fields.items() if value is not None and value != ""}
        own = {"project": self._project, "user": self._user, "groups": self._groups}
        if call in ONCE:
            # On a connection of its own: on one that the server has just closed nobody can tell what was received.
            self.Close()
        return self._answer(
            *self._exchange("POST", self._path + call, lambda: _Form({**own, **given}, files), once=call in ONCE)
        )

    def _exchange(
        self, method: str, path: str, body: Any = None, *, target: Path | None = None, once: bool = False
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Send a request and read the answer; one that was kept and has been closed is made anew, unless `once`."""
        kept = self._connection is not None
        self.Connect()
        assert self._connection is not None
        try:
            with body() if body is not None else _Nothing() as content:
                self._connection.request(method, path, content.pieces(), content.headers)
            response = self._connection.getresponse()
            return response, _receive(response, target)
        except LGI_Error:
            self.Close()
            raise
        except (OSError, http.client.HTTPException) as problem:
            self.Close()
            own = isinstance(problem, OSError) and problem.filename is not None  # a file here, not the connection
            if kept and not once and not own:
                return self._exchange(method, path, body, target=target, once=True)
            reason = problem if own else f"{self._host}:{self._port}: {problem or type(problem).__name__}"
            raise LGI_Error(f"{reason}") from problem

    @staticmethod
    def _answer(response: http.client.HTTPResponse, body: bytes) -> Answer:
        try:
            root = read_answer(body)
        except MalformedXML as problem:
            raise LGI_Error(f"{problem} (HTTP status {response.status})") from None
        return {str(root.tag): _value(root)}


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _receive(response: http.client.HTTPResponse, target: Path | None) -> bytes:
    """The body; of a file that is there it goes to `target`, which appears whole or not at all."""
    if target is None or response.status != 200:
        return response.read()
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as stream:
            while piece := response.read(PIECE):
                _write(stream, piece, target)
        if response.length:  # what has not come
            raise http.client.IncompleteRead(b"", response.length)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return b""


def _write(stream: BinaryIO, piece: bytes, target: Path) -> None:
    try:
        stream.write(piece)
    except OSError as problem:
        raise LGI_Error(f"{target} cannot be written: {problem.strerror}") from problem


class _File:
    """A file that is sent as it was when this began; raises LGI_Error where it has become shorter."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream: BinaryIO = Path(name).open("rb")  # noqa: SIM115, closed at the end of the request
        self.size = os.fstat(self._stream.fileno()).st_size

    def close(self) -> None:
        self._stream.close()

    def pieces(self) -> Iterator[bytes]:
        left = self.size
        while left:
            piece = self._stream.read(min(PIECE, left))
            if not piece:
                raise LGI_Error(f"{self._name} has changed while it was being sent")
            left -= len(piece)
            yield piece


class _Nothing:
    """No body."""

    headers: Mapping[str, str] = {}

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def pieces(self) -> Iterable[bytes] | None:
        """None."""
        return None


class _Whole(_Nothing):
    """A file as a body."""

    def __init__(self, name: str) -> None:
        self._file = _File(name)
        self.headers = {"Content-Length": str(self._file.size)}

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def pieces(self) -> Iterable[bytes]:
        """Its bytes."""
        return self._file.pieces()


class _Form(_Nothing):
    """A form with files as a body, which are read while they are being sent."""

    def __init__(self, fields: Mapping[str, str | int], files: Sequence[str]) -> None:
        boundary = secrets.token_hex(24)
        start = f"--{boundary}\r\nContent-Disposition: form-data; name="
        self._parts: list[bytes | _File] = [
            f'{start}"{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()
        ]
        try:
            for number, file in enumerate(files, start=1):
                shown = _last(file).replace("\\", "\\\\").replace('"', '\\"')
                kind = "\r\nContent-Type: application/octet-stream\r\n\r\n"
                head = f'{start}"uploaded_file_{number}"; filename="{shown}"{kind}'
                self._parts += [head.encode(), _File(file), b"\r\n"]
        except OSError:
            self.__exit__()
            raise
        self._parts.append(f"--{boundary}--\r\n".encode())
        size = sum(len(part) if isinstance(part, bytes) else part.size for part in self._parts)
        self.headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(size)}

    def __exit__(self, *_: object) -> None:
        for part in self._parts:
            if isinstance(part, _File):
                part.close()

    def pieces(self) -> Iterator[bytes]:
        """Fields and files."""
        for part in self._parts:
            if isinstance(part, bytes):
                yield part
            else:
                yield from part.pieces()


def _value(node: etree._Element) -> Any:
    """An element as an entry of a dictionary: text or what is in it, and its attributes where it has some."""
    children = [child for child in node if isinstance(child.tag, str)]
    if children:
        content: Any = {}
        times = Counter(child.tag for child in children)
        for child in children:
            tag = str(child.tag)
            if times[child.tag] == 1:
                content[tag] = _value(child)
            else:
                content.setdefault(tag, []).append(_value(child))
    else:
        content = _text(str(node.tag), (node.text or "").strip())
    if not node.attrib:
        return content
    attributes = {str(name): _text("", str(value).strip()) for name, value in node.attrib.items()}
    return {"attributes": attributes, str(node.tag): content}


def _text(tag: str, text: str) -> Any:
    if tag in ("input", "output"):
        try:
            return decode_binhex(text)
        except ValueError:
            return text  # an element of this name in somebody's job specifics
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS else text
