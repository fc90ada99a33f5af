"""A private sshd for tests: a real server process on loopback that gives sftp to one key, made in a temporary folder.

Nothing of an sshd that the machine itself may run is read or touched: host key, configuration, port and list of keys
are the tests' own. Processes are started here and ended by their numbers.
"""

from __future__ import annotations

import atexit
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

HOST = "127.0.0.1"
START_SECONDS = 20
_PLACES = ("/usr/sbin", "/usr/local/sbin")
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class SshdMissing(AssertionError):
    """There is no sshd to test with; the message says what to install."""


def _program() -> str:
    found = shutil.which("sshd", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_PLACES)))
    if found is None:
        raise SshdMissing(
            "sshd is not installed, and these tests need a real one (the machine's own need not run): "
            "apt-get install --no-install-recommends openssh-server"
        )
    return found


def private_key() -> Key:
    """A key as the project's authority makes them."""
    return ec.generate_private_key(ec.SECP256R1())


def write_key(key: Key, path: Path) -> Path:
    """Write a private key as the authority does: PEM, PKCS8."""
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def public_line(key: Key) -> str:
    """A public key as a line of `authorized_keys`."""
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


class PrivateSshd:
    """An sshd; it may be stopped and started again in between, on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = getpass.getuser()
        self.port = 0
        self.known_hosts = folder / "known_hosts"
        self.authorized_keys = folder / "authorized_keys"
        self.host_key = private_key()
        self._process: subprocess.Popen[bytes] | None = None

    def install(self) -> None:
        """Write the keys and the configuration."""
        host_key = self.folder / "host_key"
        host_key.touch(0o600)
        host_key.write_bytes(self.host_key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        self.authorized_keys.touch(0o600)
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        settings = {
            "ListenAddress": HOST,
            "Port": self.port,
            "HostKey": host_key,
            "PidFile": self.folder / "sshd.pid",
            "AuthorizedKeysFile": self.authorized_keys,
            "AuthenticationMethods": "publickey",
            "PermitRootLogin": "prohibit-password",
            "StrictModes": "no",
            "UsePAM": "no",
            "ForceCommand": "internal-sftp -u 0027",
            "Subsystem": "sftp internal-sftp",
            "LogLevel": "VERBOSE",
        }
        (self.folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        self.trust_host(public_line(self.host_key))

    def trust_host(self, line: str) -> None:
        """Make this the one key by which the server is known."""
        self.known_hosts.write_text(f"[{HOST}]:{self.port} {line}\n")

    def start(self) -> None:
        """Start the process, and wait until it answers."""
        if os.geteuid() == 0:
            # The service unit makes it where sshd runs as a service.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        log = self.folder / "sshd.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [_program(), "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with socket.create_connection((HOST, self.port), 5) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"sshd does not answer:\n{log.read_text('utf-8', 'replace')}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """The process that listens."""
        assert self._process is not None
        return self._process.pid

    def connections(self) -> int:
        """How many connections there are."""
        return len(_children(self.pid))

    def sessions(self) -> list[int]:
        """The processes of all connections, children before parents."""
        return _below(self.pid)

    def signal_sessions(self, number: signal.Signals) -> None:
        """Send a signal to the processes of all connections."""
        for pid in self.sessions():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def stop(self) -> None:
        """End the server and its connections."""
        if self._process is None:
            return
        self.signal_sessions(signal.SIGKILL)
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()
        self._process = None


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _below(pid: int) -> list[int]:
    return [found for child in _children(pid) for found in (*_below(child), child)]


_shared: list[PrivateSshd] = []


def running() -> PrivateSshd:
    """The sshd of this test process, ended with it."""
    if not _shared:
        folder = Path(tempfile.mkdtemp(prefix="lgi-sshd-"))
        server = PrivateSshd(folder)
        server.install()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        atexit.register(server.stop)
        server.start()
        _shared.append(server)
    return _shared[0]
