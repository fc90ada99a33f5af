"""The contract of prepared statements that are sent together with others, or as the last of a transaction."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from lgi.db.prepared import Prepared
from lgi.db.schema import running_sessions, users_allowed
from tests.contract.case import ContractCase

_ADD = Prepared(
    insert(users_allowed)
    .inline()
    .values(
        {"user_name": bindparam("name"), "application": bindparam("application"), "job_limit": bindparam("limit")}
    )
)
_RAISE = Prepared(
    update(users_allowed)
    .where(users_allowed.c.user_name == bindparam("name"))
    .values(job_limit=users_allowed.c.job_limit + 1)
)
REMOVE = Prepared(delete(users_allowed).where(users_allowed.c.user_name == bindparam("name")))
_LIMITS = Prepared(select(users_allowed.c.user_name, users_allowed.c.job_limit))
_STARTING = Prepared.numbering_from(
    running_sessions,
    ["resource_id", "session_time_stamp"],
    select(users_allowed.c.job_limit, users_allowed.c.job_limit + bindparam("more")).where(
        users_allowed.c.user_name == bindparam("name")
    ),
)
_NAMED = Prepared(
    select(users_allowed.c.user_name, users_allowed.c.job_limit).where(users_allowed.c.user_name == bindparam("name"))
)

HOSTILE = [
    "it's; COMMIT; END",
    'a "quoted" -- comment',
    "back\\slash\\'",
    "100 %s %d %%",
    "; END; DROP TABLE users_allowed",
    "/* ",
    "line\nend\r\n\t",
    "Zoë 𝄞 \x1a",
]


def add(connection: Connection, name: str, limit: int = 0, application: str = "any") -> None:
    """Add a row in time."""
    _ADD.later(connection, name=name, application=application, limit=limit)


def limits(connection: Connection) -> dict[str, int]:
    """All rows."""
    return {row.user_name: row.job_limit for row in _LIMITS(connection)}


class TogetherContract(ContractCase):
    """See `DatabaseContract`."""

    def test_in_their_order_and_seen_by_the_next(self) -> None:
        def work(connection: Connection) -> dict[str, int]:
            add(connection, "a")
            _RAISE.later(connection, name="a")
            add(connection, "b", 5)
            _RAISE.later(connection, name="a")
            found = limits(connection)
            REMOVE.later(connection, name="b")
            add(connection, "c", 7)
            return found

        self.assertEqual(self.run_in(work), {"a": 2, "b": 5})
        self.assertEqual(self.run_in(limits), {"a": 2, "c": 7})

    def test_seen_by_statements_that_are_not_prepared(self) -> None:
        def work(connection: Connection) -> int | None:
            add(connection, "a", 3)
            return connection.scalar(select(users_allowed.c.job_limit))

        self.assertEqual(self.run_in(work), 3)

    def test_one_alone(self) -> None:
        self.run_in(add, "a")
        self.assertEqual(self.run_in(limits), {"a": 0})

    def test_what_is_rolled_back_is_not_sent(self) -> None:
        with self.engine.connect() as connection:
            with connection.begin() as transaction:
                add(connection, "a")
                add(connection, "b")
                transaction.rollback()
            with connection.begin():
                add(connection, "c")
        self.assertEqual(self.run_in(limits), {"c": 0})

    def test_mistake_undoes_all(self) -> None:
        """Whether it shows at the next statement or when all is committed."""
        self.run_in(add, "there")

        def work(connection: Connection, *, look: bool) -> None:
            add(connection, "a")
            add(connection, "there")
            add(connection, "b")
            if look:
                limits(connection)

        for look in (True, False):
            with self.assertRaises(IntegrityError):
                self.run_in(work, look=look)
            self.assertEqual(self.run_in(limits), {"there": 0})

    def test_values_stay_values(self) -> None:
        for number, name in enumerate(HOSTILE):
            with self.engine.begin() as connection:
                add(connection, name, number)
                add(connection, f"{name}2", number, "other")
        found = self.run_in(limits)
        wanted = {name: number for number, name in enumerate(HOSTILE)}
        self.assertEqual(found, wanted | {f"{name}2": number for name, number in wanted.items()})

    def test_the_last_one(self) -> None:
        self.run_in(add, "a")

        def remove(connection: Connection) -> int:
            add(connection, "b")
            return REMOVE.last(connection, name="a")

        self.assertEqual(self.run_in(remove), 1)
        self.assertEqual(self.run_in(limits), {"b": 0})
        self.assertEqual(self.run_in(lambda connection: REMOVE.last(connection, name="a")), 0)

    def test_a_question_after_the_last_one(self) -> None:
        for name in "ab":
            self.run_in(add, name)

        def remove(connection: Connection, name: str) -> tuple[int, list[str]]:
            add(connection, f"{name}2", 7)
            changed, found = REMOVE.last_with(_LIMITS, connection, name=name)
            return changed, sorted(found.scalars())

        self.assertEqual(self.run_in(remove, "a"), (1, ["a2", "b"]))
        self.assertEqual(self.run_in(remove, "c"), (0, ["a2", "b", "c2"]))
        self.assertEqual(self.run_in(limits), {"a2": 7, "b": 0, "c2": 7})

    def test_two_questions(self) -> None:
        def work(connection: Connection) -> tuple[list[object], list[object]]:
            add(connection, "a", 1)
            first, second = _LIMITS.with_(_NAMED, connection, name="b")
            self.assertEqual((list(first), list(second)), ([("a", 1)], []))
            add(connection, "b", 2)
            first, second = _NAMED.with_(_LIMITS, connection, name="b")
            return list(first), sorted(second)

        for _ in range(2):
            self.assertEqual(self.run_in(work), ([("b", 2)], [("a", 1), ("b", 2)]))
            for name in "ab":
                self.run_in(lambda connection, name=name: REMOVE(connection, name=name).rowcount)

    def test_mistake_in_a_question(self) -> None:
        wrong = Prepared(text("SELECT nothing FROM users_allowed"))
        self.run_in(add, "b")

        def work(connection: Connection, first: Prepared, second: Prepared) -> None:
            add(connection, "a")
            first.with_(second, connection, name="a")

        for questions in ((wrong, _LIMITS), (_LIMITS, wrong)):
            with self.assertRaises(DBAPIError):
                self.run_in(work, *questions)
            self.assertEqual(self.run_in(limits), {"b": 0})

    def test_the_last_one_that_changes_nothing(self) -> None:
        """Nothing is committed with it."""
        with self.engine.connect() as connection:
            with connection.begin() as transaction:
                add(connection, "a")
                self.assertEqual(REMOVE.last(connection, name="b"), 0)
                transaction.rollback()
            with connection.begin():
                add(connection, "c")
        self.assertEqual(self.run_in(limits), {"c": 0})

    def test_the_last_one_that_writes_what_is_there(self) -> None:
        """A row that is found counts, whether it differs afterwards or not."""
        keep = Prepared(
            update(users_allowed)
            .where(users_allowed.c.user_name == bindparam("name"))
            .values(job_limit=users_allowed.c.job_limit)
        )
        self.run_in(add, "a")
        self.assertEqual(self.run_in(lambda connection: keep.last(connection, name="a")), 1)
        self.assertEqual(self.run_in(lambda connection: keep(connection, name="a").rowcount), 1)

    def test_the_last_one_tells_its_number(self) -> None:
        self.run_in(add, "a")
        with self.engine.connect() as connection:
            numbers = []
            for stamp in range(3):
                with connection.begin():
                    number, found = _STARTING.last_key_with(_NAMED, connection, name="a", more=stamp)
                    numbers.append(number)
                    self.assertEqual(list(found), [("a", 0)])
            with connection.begin():
                # None where there is no new row, whatever the number of the one before.
                self.assertEqual(_STARTING.last_key_with(_NAMED, connection, name="b", more=1)[0], 0)
            with connection.begin():
                stamps = dict(
                    connection.execute(
                        select(running_sessions.c.session_id, running_sessions.c.session_time_stamp)
                    ).all()
                )
        self.assertEqual(stamps, dict(zip(numbers, range(3), strict=True)))

    def test_mistake_in_the_last_one_undoes_all(self) -> None:
        def remove(connection: Connection) -> None:
            add(connection, "a")
            add(connection, "a")
            REMOVE.last(connection, name="b")

        with self.assertRaises(IntegrityError):
            self.run_in(remove)
        self.assertEqual(self.run_in(limits), {})

    def test_what_follows_the_last_one_is_committed_too(self) -> None:
        """Nothing should, but it is not lost."""

        self.run_in(add, "b")

        def work(connection: Connection) -> None:
            self.assertEqual(REMOVE.last(connection, name="b"), 1)
            add(connection, "a")

        self.run_in(work)
        self.assertEqual(self.run_in(limits), {"a": 0})
