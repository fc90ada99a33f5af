"""The contract of signs of life: many in one statement, and none that makes a job look older than it is."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from lgi.db.pulses import write_pulses
from lgi.db.schema import active_resources, job_queue
from tests.contract.case import NOW, ContractCase
from tests.contract.load import fill
from tests.contract.statements import listening

MANY = 300


class PulsesContract(ContractCase):
    """See `DatabaseContract`."""

    def write(self, jobs: dict[int, int], resources: dict[int, int]) -> int:
        """Write them; returns in how many statements."""
        with listening(self.engine) as found:
            self.run_in(write_pulses, jobs, resources)
        return len([text for text, _parameters in found if text.startswith("UPDATE")])

    def pulses(self) -> dict[int, int]:
        """The pulses of all jobs."""
        return self.run_in(_columns, job_queue.c.job_id, job_queue.c.daemon_pulse)

    def test_pulses_of_many_jobs_are_one_statement(self) -> None:
        ids = [self.submit() for _ in range(6)]
        self.assertEqual(self.write(dict.fromkeys(ids[1:], NOW), {}), 1)
        self.assertEqual(self.pulses(), dict.fromkeys(ids[1:], NOW) | {ids[0]: 0})

    def test_very_many_are_written_whole(self) -> None:
        self.run_in(fill, MANY)
        self.assertEqual(self.write(dict.fromkeys(range(1, MANY + 1), NOW), {}), 2)
        self.assertEqual(self.pulses(), dict.fromkeys(range(1, MANY + 1), NOW))

    def test_each_has_its_own_time(self) -> None:
        ids = [self.submit() for _ in range(4)]
        times = dict(zip(ids, (NOW, NOW + 1, NOW, NOW + 7), strict=True))
        self.assertEqual(self.write(times, {}), 3)
        self.assertEqual(self.pulses(), times)

    def test_an_earlier_pulse_does_not_stand_in_for_a_later_one(self) -> None:
        # Another server has written in the meantime.
        later, earlier = self.submit(daemon_pulse=NOW + 5), self.submit(daemon_pulse=NOW - 5)
        self.write({later: NOW, earlier: NOW}, {})
        self.assertEqual(self.pulses(), {later: NOW + 5, earlier: NOW})

    def test_calls_of_resources(self) -> None:
        ids = [self.register(f"r{number}@host") for number in range(3)]
        job_id = self.submit()
        self.assertEqual(self.write({job_id: NOW}, {ids[0]: NOW, ids[1]: NOW}), 2)
        self.write({}, {ids[0]: NOW - 1})
        calls = self.run_in(_columns, active_resources.c.resource_id, active_resources.c.last_call_time)
        self.assertEqual(calls, {ids[0]: NOW, ids[1]: NOW, ids[2]: 0})

    def test_what_is_gone_does_no_harm(self) -> None:
        job_id = self.submit()
        self.write({job_id + 1: NOW, job_id: NOW}, {12345: NOW})
        self.assertEqual(self.pulses(), {job_id: NOW})

    def test_nothing_is_nothing(self) -> None:
        self.assertEqual(self.write({}, {}), 0)


def _columns(connection: Connection, *columns: Any) -> dict[int, int]:
    return dict(tuple(row) for row in connection.execute(select(*columns)))
