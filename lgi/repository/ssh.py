"""The SSH connection to an external repository server: opened when it is needed, kept, opened again when it was lost.

Whoever calls is in a thread of its own and waits; the connection lives in the event loop of one thread here.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
import attrs
from twisted.logger import Logger

from lgi.repository.sftp import Lost, Session

_log = Logger()
_T = TypeVar("_T")
SSH_PORT = 22
CONNECT_SECONDS = 10.0
PATIENCE_SECONDS = 30.0
KEEPALIVE_SECONDS = 15
KEEPALIVES = 3
# Ciphers that processors compute by themselves first: half of the time of a transfer is here.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")


@attrs.frozen(kw_only=True)
class Server:
    """Where the repository server is, who we are there, and how it is known."""

    host: str
    port: int
    user: str
    private_key: Path
    known_hosts: Path

    def __str__(self) -> str:
        return f"{self.user}@{self.host} port {self.port}"

    @property
    def keyscan(self) -> str:
        """The command that adds the server's host keys to the file of known ones."""
        return f"ssh-keyscan -p {self.port} {shlex.quote(self.host)} >> {shlex.quote(str(self.known_hosts))}"

    def key(self) -> asyncssh.SSHKey:
        """The private key; raises OSError."""
        try:
            return asyncssh.import_private_key(self.private_key.read_bytes())
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise OSError(
                errno.EINVAL, f"{self.private_key} is no private key that ssh can use without a passphrase: {error}"
            ) from None

    def known(self) -> asyncssh.SSHKnownHosts:
        """The known host keys, at least one of which is for this server; raises OSError."""
        try:
            known = asyncssh.read_known_hosts(str(self.known_hosts))
        except FileNotFoundError:
            raise self._unknown() from None
        except ValueError as error:
            raise OSError(errno.EINVAL, f"{self.known_hosts} is no list of known hosts: {error}") from None
        if not any(known.match(self.host, self.host, self.port)[:2]):
            raise self._unknown()
        return known

    def _unknown(self) -> OSError:
        return PermissionError(
            errno.EACCES,
            f'{self}: no key of this host is in {self.known_hosts}; add it with "{self.keyscan}" and compare its '
            "fingerprint (ssh-keygen -l -f) with what the administrator of the host reads there",
        )

    def changed(self) -> OSError:
        """What to say where the server's key is another than the known one."""
        entry = self.host if self.port == SSH_PORT else f"[{self.host}]:{self.port}"
        return PermissionError(
            errno.EACCES,
            f"{self}: the key of this host is not the one in {self.known_hosts}: it was installed anew, or another "
            f'machine answers in its place. Remove the old key with "ssh-keygen -R {entry} -f '
            f'{shlex.quote(str(self.known_hosts))}" and add the new one with "{self.keyscan}" once its fingerprint '
            "is known to be right",
        )


async def connect(server: Server, seconds: float) -> asyncssh.SSHClientConnection:
    """Open a connection within that time; raises OSError, with a message that names the server."""
    key, known = server.key(), server.known()
    try:
        async with asyncio.timeout(seconds):
            return await asyncssh.connect(
                server.host,
                server.port,
                username=server.user,
                client_keys=[key],
                known_hosts=known,
                # Nothing of the account that the project server runs as plays a part.
                config=None,
                agent_path=None,
                x509_trusted_certs=None,
                preferred_auth="publickey",
                gss_host=None,
                compression_algs=["none"],
                encryption_algs=_CIPHERS,
                keepalive_interval=KEEPALIVE_SECONDS,
                keepalive_count_max=KEEPALIVES,
            )
    except TimeoutError:
        raise TimeoutError(errno.ETIMEDOUT, f"{server}: no connection within {seconds:g} s") from None
    except OSError as error:
        raise OSError(error.errno or errno.EIO, f"{server}: no connection: {error.strerror or error}") from None
    except asyncssh.HostKeyNotVerifiable:
        raise server.changed() from None
    except asyncssh.PermissionDenied:
        raise PermissionError(
            errno.EACCES,
            f'{server}: the key is not accepted; the output of "ssh-keygen -y -f '
            f'{shlex.quote(str(server.private_key))}" has to be a line of ~{server.user}/.ssh/authorized_keys there',
        ) from None
    except asyncssh.Error as error:
        raise OSError(errno.EIO, f"{server}: no connection: {error.reason}") from None


class Connection:
    """One connection for all threads of this process; `patience` in seconds bounds the wait for each answer."""

    def __init__(
        self, server: Server, *, patience: float = PATIENCE_SECONDS, connect_seconds: float = CONNECT_SECONDS
    ) -> None:
        self.server = server
        self._patience = patience
        self._connect_seconds = connect_seconds
        self._starting = threading.Lock()
        self._process = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._opening: asyncio.Task[Session] | None = None

    def run(self, operation: Callable[[Session], Awaitable[_T]]) -> _T:
        """Do something over the connection, and once more over a new one where it is lost meanwhile.

        Call it in a thread; `operation` can be repeated. Raises OSError.
        """
        try:
            return asyncio.run_coroutine_threadsafe(self._run(operation), self._started()).result()
        except CancelledError:
            raise ConnectionAbortedError(errno.ECONNABORTED, f"{self.server}: closed meanwhile") from None

    def close(self) -> None:
        """End the connection and its thread; what is under way fails. The next use opens it again."""
        with self._starting:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or self._process != os.getpid():
            return
        asyncio.run_coroutine_threadsafe(self._close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._process != os.getpid():
                # A service goes into the background by a fork, which threads do not survive: the connection is the
                # parent's.
                self._loop = self._opening = None
            if self._loop is None:
                self._process = os.getpid()
                self._loop = asyncio.new_event_loop()
                self._loop.set_exception_handler(_unheard)
                self._thread = threading.Thread(target=self._loop.run_forever, name="repository", daemon=True)
                self._thread.start()
            return self._loop

    async def _run(self, operation: Callable[[Session], Awaitable[_T]]) -> _T:
        try:
            return await operation(await self._session())
        except Lost:
            return await operation(await self._session())

    async def _session(self) -> Session:
        opening = self._opening
        if opening is None or (opening.done() and _useless(opening)):
            # All who wait share one attempt, so that many of them do not wait one after the other.
            opening = self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(opening)

    async def _open(self) -> Session:
        connection = await connect(self.server, self._connect_seconds)
        return await Session.begin(connection, str(self.server), self._patience)

    async def _close(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()
            with suppress(OSError, asyncio.CancelledError):
                await (await opening).close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_default_executor()


def _unheard(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # Of the parts of a request that failed already, or that nobody waits for any more.
    _log.debug("{message}: {problem!r}", message=context["message"], problem=context.get("exception"))


def _useless(opening: asyncio.Task[Session]) -> bool:
    return opening.cancelled() or opening.exception() is not None or opening.result().lost
