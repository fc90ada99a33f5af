"""Two servers that share a database, as on two machines: each with a port and a run directory of its own.

They look at the database once an hour: what wakes anybody in time is the bell between them.
"""

from __future__ import annotations

import copy
import re
import shutil
import signal
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import ClassVar

from tests import mariadb
from tests.integration.grid import RESOURCE, USER, Grid, Program, free_port, until
from tests.integration.test_processes import APPLICATION, Connection, submit, user_of

WAIT = 60


class Call(threading.Thread):
    """A call that waits, in a thread of its own."""

    def __init__(self, connection: Connection, path: str, **fields: object) -> None:
        super().__init__()
        self._call = connection, path, fields
        self.answer = ""
        self.ended = 0.0
        self.start()

    def run(self) -> None:
        connection, path, fields = self._call
        self.answer = connection.call(path, wait=WAIT, **fields)
        self.ended = time.monotonic()


class MachinesTests(unittest.TestCase):
    """The first one has two processes behind its port, the second one has one."""

    folder: ClassVar[Path]
    grids: ClassVar[list[Grid]]
    servers: ClassVar[list[Program]]
    database: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(tempfile.mkdtemp(prefix="lgi-machines-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        url = mariadb.server().create_database()
        cls.database = url.partition("?")[0].rpartition("/")[2]
        first = Grid(cls.folder / "grid", database=url)
        cls.addClassCleanup(first.stop)
        second = copy.copy(first)
        second.port = free_port()
        second.config = first.config.with_name("second.toml")
        text = first.config.read_text()
        common = '[server]\nlook = 3600\nbell = "127.0.0.1:0"\n'
        for grid, more in ((first, "processes = 2\n"), (second, 'processes = 1\nrun_directory = "../run2"\n')):
            changed = text.replace("[server]\n", common + more)
            changed = re.sub(r"(?m)^port = .*$", f"port = {grid.port}", changed)
            grid.config.write_text(changed)
        cls.grids = [first, second]
        cls.servers = [cls.start(machine) for machine in (0, 1)]
        cls.acquainted()

    @classmethod
    def start(cls, machine: int) -> Program:
        """Start the server of a machine."""
        log = cls.folder / f"server{machine}.log"
        program = Program("lgi-server", cls.grids[machine].config, log)
        cls.grids[0].programs.append(program)
        program.wait_for("listens on port")
        return program

    @classmethod
    def acquainted(cls) -> None:
        """Wait until each tells the other."""
        for server in cls.servers:
            server.wait_for("is told of changes in project LGI")

    def bells(self) -> set[str]:
        """The addresses that servers have written."""
        return {str(row[0]) for row in mariadb.server().execute(f"SELECT address FROM {self.database}.server_bells")}

    def user(self, machine: int) -> Connection:
        """A connection of the user's to a machine."""
        connection = user_of(self.grids[machine])
        self.addCleanup(connection.close)
        return connection

    def waiting_resource(self, machine: int) -> tuple[Connection, str]:
        """A resource that has looked, and the number of its session."""
        home = self.grids[0].root / "resources" / RESOURCE
        resource = Connection(self.grids[machine], home / "resource.crt", home / "resource.key")
        self.addCleanup(resource.close)
        answer = resource.call("resources/resource_signup_resource")
        found = re.search(r"<session_id>\s*(\d+)\s*</session_id>", answer)
        assert found is not None
        session = found[1]
        resource.call("resources/resource_request_work", session_id=session, wait=1, applications=APPLICATION)
        return resource, session

    def woken(self, here: int, there: int) -> float:
        """Seconds from a submission on one machine until a resource that waits on the other has its answer."""
        resource, session = self.waiting_resource(here)
        path = "resources/resource_request_work"
        call = Call(resource, path, session_id=session, applications=APPLICATION)
        user = self.user(there)
        time.sleep(0.3)
        self.assertEqual(call.answer, "")
        begun = time.monotonic()
        submit(user)
        call.join(WAIT / 2)
        self.assertIn(APPLICATION, call.answer)
        resource.call("resources/resource_signoff_resource", session_id=session)
        return call.ended - begun

    def test_work(self) -> None:
        """A resource that waits at one server hears of a job that is submitted to the other."""
        for here, there in ((0, 1), (1, 0)):
            seconds = self.woken(here, there)
            print(f"submitted at {there}, heard at {here} after {1000 * seconds:.1f} ms, submission included")

    def test_changes(self) -> None:
        """A user who waits at one server hears what is done to his job at the other."""
        for here, there in ((0, 1), (1, 0)):
            user = self.user(there)
            job = submit(user)
            who = {"user": USER, "groups": "theor"}
            call = Call(self.user(here), "interfaces/interface_job_state", jobs=f"{job}:queued", **who)
            time.sleep(0.3)
            self.assertEqual(call.answer, "")
            user.call("interfaces/interface_delete_job", job_id=job, **who)
            call.join(WAIT / 2)
            self.assertRegex(call.answer, rf"<gone>\s*{job}\s*</gone>")

    def test_one_is_killed(self) -> None:
        """The other goes on; and it tells the next one that starts there, and no more the one that has gone."""
        before = self.bells()
        self.assertEqual(len(before), 2)
        self.servers[1].stop(signal.SIGKILL)
        submit(self.user(0))
        begun = len(self.servers[0].logged())
        self.servers[1] = self.start(1)
        until(lambda: "is told of changes" in self.servers[0].logged()[begun:], "the next one is told", 20)
        self.servers[1].wait_for("is told of changes")
        self.woken(1, 0)
        self.woken(0, 1)
        # One that ends in order takes its row with it.
        self.servers[1].stop()
        self.assertEqual(len(self.bells() & before), 2)
        self.assertEqual(len(self.bells()), 2)
        self.servers[1] = self.start(1)
        self.servers[1].wait_for("is told of changes")
        for server in self.servers:
            self.assertNotIn("Traceback", server.logged())


class StartTests(unittest.TestCase):
    """A bell that cannot be had."""

    def test_address_of_another(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="lgi-machines-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        grid = Grid(folder / "grid")
        self.addCleanup(grid.stop)
        text = grid.config.read_text()
        grid.config.write_text(text.replace("[server]\n", '[server]\nbell = "192.0.2.1:8444"\n'))
        status, said = grid.start("lgi-server", grid.config).ended()
        self.assertEqual(status, 1)
        self.assertIn("lgi-server cannot start: the bell's 192.0.2.1:8444 cannot be had: ", said)
