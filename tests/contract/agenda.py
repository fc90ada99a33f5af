"""The contract of the agenda under many changes: what is scheduled in vain is left out, and nothing else."""

from __future__ import annotations

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from twisted.internet import reactor

from lgi.db.database import Database
from lgi.db.events import REPOSITORY_RESOURCES, SCHEDULE_CYCLE, acknowledge, due, schedule
from lgi.errors import ErrorNumber, LGIError
from lgi.model import Changes
from tests.contract.case import NOW, ContractCase


class AgendaContract(ContractCase):
    """See `DatabaseContract`. Each server here has one connection, which all its changes are made on."""

    def busy(self) -> Database:
        """A server; `rings` has what its transactions change."""
        database = Database(reactor, self.new_engine(1), threads=1)
        database.start()
        self.addCleanup(database.stop)
        self.rings: list[Changes] = []
        database.committed = self.rings.append
        return database

    def agenda(self) -> list[int]:
        """When there are cycles."""
        return [at for at, event in self.run_in(due, NOW + 1000, 99) if event == SCHEDULE_CYCLE]

    async def test_a_busy_server_schedules_once_a_second(self) -> None:
        server = self.busy()
        for seconds, expected, rings in ((0, [0, 1], 2), (1, [0, 1, 2], 3), (2, [0, 1, 2, 3], 4)):
            for _ in range(5):
                await server.run("change", schedule, SCHEDULE_CYCLE, NOW + seconds)
            self.assertEqual(self.agenda(), [NOW + after for after in expected])
            self.assertEqual(self.rings, [Changes(agenda=True)] * rings)

    async def test_a_change_after_the_event_was_taken_has_one_of_its_own(self) -> None:
        server = self.busy()
        await server.run("change", schedule, SCHEDULE_CYCLE, NOW)
        self.assertTrue(self.run_in(acknowledge, NOW, SCHEDULE_CYCLE))
        for _ in range(2):
            await server.run("change", schedule, SCHEDULE_CYCLE, NOW)
            self.assertEqual(self.agenda(), [NOW + 1])
        self.assertTrue(self.run_in(acknowledge, NOW + 1, SCHEDULE_CYCLE))
        await server.run("change", schedule, SCHEDULE_CYCLE, NOW + 1)
        self.assertEqual(self.agenda(), [NOW + 2])
        # And after a pause at once.
        await server.run("change", schedule, SCHEDULE_CYCLE, NOW + 9)
        self.assertEqual(self.agenda(), [NOW + 2, NOW + 9])

    async def test_what_is_rolled_back_is_not_relied_upon(self) -> None:
        server = self.busy()

        def refuse(connection: Connection) -> None:
            schedule(connection, SCHEDULE_CYCLE, NOW)
            raise LGIError(ErrorNumber.LOCK_REFUSED)

        for expected in ([NOW], [NOW, NOW + 1]):
            with self.assertRaises(LGIError):
                await server.run("refuse", refuse)
            # Commits, but not what the one before it had in mind.
            await server.run("another", due, NOW, 9)
            await server.run("change", schedule, SCHEDULE_CYCLE, NOW)
            self.assertEqual(self.agenda(), expected)

    async def test_what_is_run_again_schedules_again(self) -> None:
        server = self.busy()
        await server.run("change", schedule, SCHEDULE_CYCLE, NOW)
        tries: list[int] = []

        def deadlocked(connection: Connection) -> None:
            schedule(connection, SCHEDULE_CYCLE, NOW)
            tries.append(1)
            if len(tries) == 1:
                raise OperationalError("update", {}, Exception(1213, "Deadlock found"))

        await server.run("again", deadlocked)
        self.assertEqual((len(tries), self.agenda()), (2, [NOW, NOW + 1]))

    async def test_one_for_later_does_not_stand_in_for_one_now(self) -> None:
        server = self.busy()
        for at in (NOW + 100, NOW, NOW + 50):
            await server.run("change", schedule, SCHEDULE_CYCLE, at)
        self.assertEqual(self.agenda(), [NOW, NOW + 50, NOW + 100])

    async def test_what_only_a_change_asks_for_is_scheduled_each_time(self) -> None:
        server = self.busy()
        for _ in range(3):
            await server.run("change", schedule, REPOSITORY_RESOURCES, NOW)
            self.assertTrue(self.run_in(acknowledge, NOW, REPOSITORY_RESOURCES))
        self.assertEqual(self.run_in(due, NOW + 1000, 9), [])

    async def test_servers_rely_upon_themselves_alone(self) -> None:
        one, other = self.busy(), self.busy()
        await one.run("change", schedule, SCHEDULE_CYCLE, NOW)
        self.assertTrue(self.run_in(acknowledge, NOW, SCHEDULE_CYCLE))
        await other.run("change", schedule, SCHEDULE_CYCLE, NOW)
        self.assertEqual(self.agenda(), [NOW])
