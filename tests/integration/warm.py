"""Programs of ours without the second that Python takes to import each: they are processes of their own still.

A process that has imported `lgi` and the services under `twistd` waits for requests and forks for each. The program
has the caller's directory, environment and descriptors, and a status that its guardian reports.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

_TREE = Path(__file__).resolve().parents[2]
_MOST = 1 << 18  # bytes of a request
_SERVICES = (
    "lgi.daemon.tap",
    "lgi.scheduler.service",
    "lgi.scheduler.tap",
    "lgi.server.processes",
    "lgi.server.service",
    "lgi.server.tap",
    "twisted.scripts._twistd_unix",
)
_running: dict[Path, tuple[int, Path]] = {}


class Process:
    """What `subprocess.Popen` is, as far as it is needed, of a program with nothing on its standard input.

    `program` is `lgi` or `twistd`, of the Python beside it; `folder` is its directory. Without `err`, what it says
    there comes with its output.
    """

    def __init__(
        self, program: Path, arguments: Sequence[str], *, folder: Path | None = None, err: IO[bytes] | None = None
    ) -> None:
        self.args = [str(program), *arguments]
        self.returncode: int | None = None
        self.stdout = tempfile.TemporaryFile()  # noqa: SIM115, it stays open
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.connect(str(_server(program.with_name("python3"))))
        where = str(folder or Path.cwd())
        request = json.dumps({"arguments": self.args, "directory": where, "environment": dict(os.environ)})
        descriptors = [self.stdout.fileno(), (err or self.stdout).fileno()]
        socket.send_fds(self._connection, [request.encode()], descriptors)
        self.pid = int(self._connection.recv(64))

    def wait(self, timeout: float | None = None) -> int:
        """Its status once it has ended; raises TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = int(self._connection.recv(64))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its status if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[bytes, None]:
        """Wait for its end; gives its output the first time."""
        self.wait(timeout)
        if self.stdout.closed:
            return b"", None
        with self.stdout:
            self.stdout.seek(0)
            return self.stdout.read(), None


def run(program: Path, arguments: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run` gives of a program, its output captured as text."""
    with tempfile.TemporaryFile() as err:
        process = Process(program, arguments, err=err)
        try:
            out, _ = process.communicate(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        err.seek(0)
        return subprocess.CompletedProcess(process.args, process.wait(), out.decode(), err.read().decode())


def _server(python: Path) -> Path:
    """The socket of this process's own server of programs of a Python; the server ends with this process."""
    owner, path = _running.get(python, (0, Path()))
    if owner != os.getpid():
        # Not under TMPDIR, which may be too long for the path of a socket.
        folder = Path(tempfile.mkdtemp(prefix="lgi-warm-", dir="/tmp"))
        path = folder / "s"
        process = subprocess.Popen(
            [str(python), "-m", "tests.integration.warm", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_TREE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "the programs' server does not start"
        _running[python] = (os.getpid(), path)
        atexit.register(_end, os.getpid(), process)
    return path


def _end(owner: int, process: subprocess.Popen[bytes]) -> None:
    if owner == os.getpid():
        process.communicate()


def _import() -> None:
    """Import all commands and services, as the programs themselves do when they are called."""
    from importlib import import_module

    from lgi.cli.main import COMMANDS

    for name in (*(place.partition(":")[0] for place, _purpose in COMMANDS.values()), *_SERVICES):
        import_module(name)
    # A reactor has descriptors that must not be shared.
    assert "twisted.internet.reactor" not in sys.modules
    gc.freeze()


def _serve(path: str) -> None:
    """Fork a guardian for each connection until standard input ends; then the socket and its folder go."""
    import select

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen(64)
        os.write(1, b"ready\n")
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.close(nothing)
        while True:
            readable, _, _ = select.select([listening.fileno(), 0], [], [])
            if 0 in readable:
                shutil.rmtree(Path(path).parent, ignore_errors=True)
                return
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                _guard(connection)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _guard(connection: socket.socket) -> None:
    """Run a command and report its process and then its status; returns in the command's process alone."""
    data, descriptors, _, _ = socket.recv_fds(connection, _MOST, 2)
    request = json.loads(data)
    pid = os.fork()
    if pid == 0:
        connection.close()
        _command(request, descriptors)
    connection.send(str(pid).encode())
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        connection.send(str(status).encode())
    os._exit(0)


def _command(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Be the program."""
    from twisted.scripts.twistd import run as twistd

    from lgi.cli.main import main as lgi

    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate([nothing, *descriptors]):
        os.dup2(descriptor, number)
    for descriptor in (nothing, *descriptors):
        os.close(descriptor)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    status = 1
    try:
        twistd() if Path(sys.argv[0]).name == "twistd" else lgi()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    # As an interpreter ends, but for the freeing of its memory, which takes longer than most commands.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _import()
    _serve(sys.argv[1])
