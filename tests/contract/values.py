"""The contract of values and events: what goes in comes out, and what differs is different."""

from __future__ import annotations

from lgi.db.events import SCHEDULE_CYCLE, acknowledge, due, next_time, schedule
from lgi.db.grants import allow_user, fetch_grants
from lgi.db.jobs import list_readable, update_job
from lgi.db.locks import claim_offers
from lgi.db.log import entries_of_job, record
from lgi.db.resources import fetch_resource
from lgi.model import Grant
from lgi.wire.specifics import with_repository
from tests.contract.case import APPLICATION, NOW, THREADS, ContractCase

LONG = 65_354
# One character of four bytes in UTF-8, which the old character set of MariaDB cannot hold.
WIDE = "\N{GRINNING FACE}"
ALL_BYTES = bytes(range(256))


class ValuesContract(ContractCase):
    """See `DatabaseContract`."""

    def readable(self, name: str) -> list[int]:
        """The jobs that a name may read."""
        listed = self.run_in(list_readable, [name], state="any", application="any", start=0, limit=99)
        return [found.job_id for found in listed]

    def test_names_that_differ_in_case_or_accents_are_different(self) -> None:
        names = ("mark", "Mark", "MARK", "márk", "maŕk", "ſara", "sara", "straße", "strasse")
        ids = {name: self.submit(owners=(name,), read_access=(name,), write_access=(name,)) for name in names}
        for name in names:
            self.assertEqual(self.readable(name), [ids[name]], name)
        for name in ("Mark", "mark"):
            self.run_in(allow_user, Grant(name=name, application=APPLICATION, job_limit=len(name)))
            self.register(name, (name,))
        self.assertEqual(
            [row.name for row in self.run_in(fetch_grants, ["Mark"], [], APPLICATION).users_allowed], ["Mark"]
        )
        self.assertEqual(self.run_in(fetch_grants, [], [], "mark").offered_by, {"mark"})
        self.assertNotEqual(self.run_in(fetch_resource, "mark"), self.run_in(fetch_resource, "Mark"))

    def test_names_of_four_byte_characters(self) -> None:
        name = WIDE * 63
        job_id = self.submit(
            application=name, owners=(name,), read_access=(name,), write_access=(name,), target_resources=(name,)
        )
        self.assertEqual(self.readable(name), [job_id])
        self.assertEqual(self.readable(WIDE * 62), [])
        [found] = self.run_in(
            claim_offers,
            application=name,
            resource_name=name,
            resource_id=1,
            session_id=1,
            owners=(name,),
            start=0,
            limit=1,
            now=NOW,
        )
        self.assertEqual((found.application, found.owners, found.target_resources), (name, (name,), (name,)))

    def test_names_of_254_bytes_differ_in_the_last_one(self) -> None:
        first, second = "a" * 253 + "b", "a" * 253 + "c"
        ids = [self.submit(read_access=(name,), application=name) for name in (first, second)]
        self.assertEqual([self.readable(name) for name in (first, second)], [[ids[0]], [ids[1]]])

    def test_longest_specifics_and_the_servers_tags_are_kept_whole(self) -> None:
        for text in ("x" * LONG, WIDE * (LONG // 4)):
            specifics = with_repository(f"<a> {text} </a>", "LGI@localhost:/repository/JOB_1", "https://host/JOB_1")
            job_id = self.submit(job_specifics=specifics)
            self.assertEqual(self.fetch(job_id).job_specifics, specifics)

    def test_longest_lists_are_kept_whole(self) -> None:
        names = tuple(f"{number:06d}" for number in range(8000))
        job_id = self.submit(read_access=names)
        self.assertEqual(self.fetch(job_id).read_access, names)
        self.assertEqual(self.readable("007999"), [job_id])

    def test_blobs_of_any_bytes_and_of_the_longest_length(self) -> None:
        longest = (ALL_BYTES * 256)[:LONG]
        job_id = self.submit(input=ALL_BYTES, output=b"\x00")
        found = self.fetch(job_id)
        self.assertEqual((found.input, found.output), (ALL_BYTES, b"\x00"))
        self.assertTrue(self.run_in(update_job, found, {"output": longest, "input": b"\x00' OR 1=1 -- \\"}))
        found = self.fetch(job_id)
        self.assertEqual((found.input, found.output), (b"\x00' OR 1=1 -- \\", longest))

    def test_text_with_quotes_and_line_ends_comes_back(self) -> None:
        text = "'\"\\ % _ ; -- \t\r\n %s :name {0} \u2028"
        job_id = self.submit(job_specifics=text, owners=(text.strip(),))
        self.assertEqual(self.fetch(job_id).job_specifics, text)
        self.run_in(record, job_id=job_id, from_state="a", to_state="b", actor=WIDE, detail=text, now=NOW)
        last = self.run_in(entries_of_job, job_id)[-1]
        self.assertEqual((last.actor, last.detail, last.from_state, last.to_state), (WIDE, text, "a", "b"))

    def test_what_is_too_long_for_its_column_is_never_cut(self) -> None:
        # SQLite keeps it, MariaDB refuses it; neither stores something else.
        name = "a" * 300
        try:
            job_id = self.submit(application=name)
        except Exception as problem:
            self.assertIn("application", str(problem))
            self.assertEqual(self.readable("mark"), [])
        else:
            self.assertEqual(self.fetch(job_id).application, name)

    def test_an_event_scheduled_twice_for_a_second_is_one(self) -> None:
        for _ in range(2):
            self.run_in(schedule, SCHEDULE_CYCLE, NOW)
        self.run_in(schedule, "other", NOW)
        self.run_in(schedule, SCHEDULE_CYCLE, NOW + 1)
        self.assertEqual(self.run_in(due, NOW, 9), [(NOW, "other"), (NOW, SCHEDULE_CYCLE)])

    def test_events_are_due_from_their_second_on_oldest_first(self) -> None:
        self.assertIsNone(self.run_in(next_time))
        for at in (NOW + 2, NOW, NOW + 1):
            self.run_in(schedule, "event", at)
        self.assertEqual(self.run_in(next_time), NOW)
        self.assertEqual(self.run_in(due, NOW - 1, 9), [])
        self.assertEqual(self.run_in(due, NOW + 1, 9), [(NOW, "event"), (NOW + 1, "event")])
        self.assertEqual(self.run_in(due, NOW + 9, 1), [(NOW, "event")])

    def test_an_event_is_acknowledged_once(self) -> None:
        self.run_in(schedule, "event", NOW)
        self.run_in(schedule, "event", NOW + 1)
        taken: list[bool] = []
        self.at_once(THREADS, lambda _index: taken.append(self.run_in(acknowledge, NOW, "event")))
        self.assertEqual(sorted(taken), [False] * (THREADS - 1) + [True])
        self.assertEqual(self.run_in(due, NOW + 9, 9), [(NOW + 1, "event")])
        self.assertFalse(self.run_in(acknowledge, NOW + 1, "Event"))

    def test_many_schedule_one_event_at_once(self) -> None:
        self.at_once(THREADS, lambda _index: self.run_in(schedule, SCHEDULE_CYCLE, NOW))
        self.assertEqual(self.run_in(due, NOW, 9), [(NOW, SCHEDULE_CYCLE)])
