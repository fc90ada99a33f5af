"""`kill -9` of the server while files come: nothing half is seen, what can be resumed is, the account is right."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import threading
from collections.abc import Mapping
from functools import partial
from http.client import HTTPException, HTTPResponse, HTTPSConnection

from lgi.admin.store import in_transaction
from lgi.config import load_config
from lgi.db.usage import used_by
from lgi.repository.files import SPOOL, UNFINISHED
from tests.integration.grid import USER, GridCase, until

SIZE = 8 << 20
# More than is written in one go, so that some of what was sent is on the disk.
SENT = 5 << 20
KEY = "one content"
SENDERS = 4


def digest(data: bytes) -> dict[str, str]:
    """The header that says what a file is."""
    return {"Repr-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"}


class KilledUploadTests(GridCase):
    """A job with a file, and a server that is killed."""

    def setUp(self) -> None:
        self.grid = self.make_grid()
        self.server = self.grid.start_server()
        said = self.grid.user("submit", "--json", "-a", "hello_world", "--input", "x")
        match = re.search(r"/LGI/repository/\w+/JOB_\w+", said)
        assert match is not None, said
        self.job_id, self.path = json.loads(said)["job_id"], match[0]
        self.root = self.grid.root / "repository"
        self.stored = self.root.joinpath(*self.path.split("/")[-2:])
        self.context = ssl.create_default_context(cafile=str(self.grid.home / "ca_chain"))
        self.context.load_cert_chain(self.grid.home / "certificate", self.grid.home / "privatekey")

    def ask(
        self, method: str, name: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[HTTPResponse, bytes]:
        """A single request, and what is answered."""
        connection = HTTPSConnection("localhost", self.grid.port, context=self.context, timeout=30)
        try:
            connection.request(method, f"{self.path}/{name}", body, dict(headers or {}))
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def begin(self, name: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send the headers of a PUT and some of its body, and no more."""
        plain = socket.create_connection(("localhost", self.grid.port), 30)
        connection = self.context.wrap_socket(plain, server_hostname="localhost")
        self.addCleanup(connection.close)
        lines = [f"PUT {self.path}/{name} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}"]
        lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + data[:SENT])

    def written(self, folder: str) -> list[int]:
        """The sizes of what has been written in one of the server's own directories."""
        return [path.stat().st_size for path in (self.root / folder).iterdir()]

    def kill(self) -> None:
        """As the system does it that is out of memory."""
        self.server.stop(signal.SIGKILL)

    def seen(self) -> dict[str, bytes]:
        """The files of the job, but not the server's own."""
        return {path.name: path.read_bytes() for path in self.stored.iterdir() if not path.name.startswith(".")}

    def test_killed(self) -> None:
        """In the middle of two uploads, and in a storm of them."""
        self.check_in_the_middle()
        self.check_in_a_storm()

    def check_in_the_middle(self) -> None:
        old, new, big = os.urandom(1000), os.urandom(SIZE), os.urandom(SIZE)
        self.assertEqual(self.ask("PUT", "whole", old)[0].status, 200)
        key = {"Upload-Key": KEY}
        self.begin("whole", new, digest(new))
        self.begin("parts", big, key | {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"})
        until(lambda: sum(self.written(SPOOL)) >= 1 << 20, "the first has come in part")
        until(lambda: sum(self.written(UNFINISHED)) >= 1 << 20, "the second has come in part")
        self.assertEqual(self.seen(), {"whole": old})
        self.kill()
        self.assertEqual(self.seen(), {"whole": old})
        self.server = self.grid.start_server()
        self.assertEqual(self.ask("GET", "whole")[1], old)
        self.assertEqual(self.ask("GET", "parts")[0].status, 404)
        listing = self.grid.user("--json", "files", "ls", f"https://localhost:{self.grid.port}{self.path}")
        self.assertEqual([file["name"] for file in json.loads(listing) if file["name"][0] != "."], ["whole"])
        asked = self.ask("PUT", "parts", headers=key | {"Content-Range": f"bytes */{SIZE}"})[0]
        offset = int(asked.headers["Upload-Offset"])
        self.assertEqual((asked.status, [offset]), (202, self.written(UNFINISHED)))
        self.assertTrue(1 << 20 <= offset <= SENT, offset)
        span = {"Content-Range": f"bytes {offset}-{SIZE - 1}/{SIZE}"}
        answer, said = self.ask("PUT", "parts", big[offset:], key | span | digest(big))
        self.assertEqual(answer.status, 200, said)
        self.assertEqual(self.ask("PUT", "whole", new, digest(new))[0].status, 200)
        self.assertEqual(self.seen(), {"whole": new, "parts": big})
        self.assertEqual(self.written(UNFINISHED), [])

    def check_in_a_storm(self) -> None:
        """Anywhere in changes that come one after the other: each file is one of those that were sent, whole."""
        bodies = [bytes([65 + number]) * (10_000 + number) for number in range(10)]
        # Of each sender's files, those bodies that may be there: what was acknowledged, and what was sent after that.
        possible: list[dict[str, set[bytes]]] = [{} for _ in range(SENDERS)]
        acknowledged: set[str] = set()
        problems: list[int] = []

        def send(sender: int) -> None:
            connection = HTTPSConnection("localhost", self.grid.port, context=self.context, timeout=30)
            try:
                for count in range(100_000):
                    name, body = f"{sender}-{count % 3}", bodies[count % len(bodies)]
                    possible[sender].setdefault(name, set()).add(body)
                    connection.request("PUT", f"{self.path}/{name}", body)
                    answer = connection.getresponse()
                    answer.read()
                    if answer.status != 200:
                        problems.append(answer.status)
                    possible[sender][name] = {body}
                    acknowledged.add(name)
            except (OSError, HTTPException):
                # It was killed.
                return
            finally:
                connection.close()

        there = self.seen()
        threads = [threading.Thread(target=send, args=(sender,)) for sender in range(SENDERS)]
        for thread in threads:
            thread.start()
        until(lambda: len(acknowledged) == 3 * SENDERS, "every file has been there")
        self.kill()
        for thread in threads:
            thread.join()
        self.assertEqual(problems, [])
        seen = self.seen()
        for slots in possible:
            for name, some in slots.items():
                self.assertIn(seen.pop(name), some, name)
        self.assertEqual(seen, there)
        # As where a file counts already and was not yet there.
        (self.stored / "0-0").unlink()
        said = self.grid.lgi("admin", "--config", str(self.grid.config), "check-db", "--repair")
        self.assertIn("repaired", said)
        database = load_config(self.grid.config).projects["LGI"].database
        used: int = in_transaction(database, partial(used_by, user=USER))
        self.assertEqual(used, sum(map(len, self.seen().values())))
