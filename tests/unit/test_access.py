"""Who may submit, read, modify and take."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lgi.access import Grants, Permit, denied_groups, leaves_room, matches, owner_wanted, permits
from lgi.model import Denial, Grant
from tests.strategies import few_applications, few_people, grants, names

APPLICATION = "hello_world"


def _grants(text: str) -> Grants:
    """Rows written as `table name application [limit]`, with tables u+ g+ u- g-."""
    tables: dict[str, list[Grant | Denial]] = {"u+": [], "g+": [], "u-": [], "g-": []}
    for row in filter(None, map(str.strip, text.split("/"))):
        table, name, application, *limit = row.split()
        if table.endswith("+"):
            tables[table].append(Grant(name=name, application=application, job_limit=int(limit[0]) if limit else 0))
        else:
            tables[table].append(Denial(name=name, application=application))
    return Grants(
        users_allowed=tuple(row for row in tables["u+"] if isinstance(row, Grant)),
        groups_allowed=tuple(row for row in tables["g+"] if isinstance(row, Grant)),
        users_denied=tuple(row for row in tables["u-"] if isinstance(row, Denial)),
        groups_denied=tuple(row for row in tables["g-"] if isinstance(row, Denial)),
    )


def _said(found: Sequence[Permit]) -> list[str]:
    """Permits as `owner: table name application limit`."""
    return [
        f"{permit.owner}: {'g' if permit.of_group else 'u'} {permit.grant.name} {permit.grant.application}"
        f" {permit.grant.job_limit}"
        for permit in found
    ]


# The precedence of the document: its rule, rows, then who is permitted by which, for mark with theor and chem.
PRECEDENCE: list[tuple[str, str, list[str]]] = [
    ("Nothing is a refusal, and what is about others is nothing", "", []),
    ("Nothing is a refusal, and what is about others is nothing", "u+ piet any / g+ bio any / u+ mark lj_md", []),
    ("Nothing is a refusal, and what is about others is nothing", "u+ Mark any / u+ mark HELLO_WORLD", []),
    ("A row for the application comes before one for any", "u+ mark hello_world 3", ["mark: u mark hello_world 3"]),
    ("A row for the application comes before one for any", "u+ mark any 4", ["mark: u mark any 4"]),
    (
        "A row for the application comes before one for any",
        "u+ mark any 4 / u+ mark hello_world 3",
        ["mark: u mark hello_world 3"],
    ),
    (
        "A row for the application comes before one for any",
        "g+ theor any 4 / g+ theor hello_world 3",
        ["theor: g theor hello_world 3"],
    ),
    (
        "A row for the application comes before one for any",
        "u+ any any 4 / u+ any hello_world 3",
        ["mark: u any hello_world 3"],
    ),
    (
        "The user's own row overrules all groups, also when it is only about any application",
        "u+ mark any 1 / g+ theor hello_world 9 / u+ any any 8 / g+ any any 7",
        ["mark: u mark any 1"],
    ),
    (
        "A group's own row overrules the any user",
        "g+ chem hello_world 2 / u+ any any 8 / g+ any any 7",
        ["chem: g chem hello_world 2"],
    ),
    (
        "A group's own row overrules the any user",
        "g+ theor any 1 / g+ chem hello_world 2",
        ["theor: g theor any 1", "chem: g chem hello_world 2"],
    ),
    ("The any user overrules the any group", "u+ any any 8 / g+ any any 7", ["mark: u any any 8"]),
    ("The any user overrules the any group", "g+ any any 7", ["theor: g any any 7", "chem: g any any 7"]),
    ("A denial overrules everything", "u- mark hello_world / u+ mark hello_world", []),
    ("A denial overrules everything", "u- mark any / u+ mark hello_world / g+ theor any", []),
    ("A denial overrules everything", "u- any hello_world / u+ mark hello_world", []),
    ("A denial overrules everything", "u- any any / u+ any any", []),
    ("A denial overrules everything", "u- mark lj_md / u- piet any / u+ mark any", ["mark: u mark any 0"]),
    (
        "A denied group gives nothing; the user's other groups and his own row still do",
        "g- theor any / g+ theor any / g+ chem any",
        ["chem: g chem any 0"],
    ),
    (
        "A denied group gives nothing; the user's other groups and his own row still do",
        "g- theor hello_world / g+ any any",
        ["chem: g any any 0"],
    ),
    (
        "A denied group gives nothing; the user's other groups and his own row still do",
        "g- theor any / u+ mark any",
        ["mark: u mark any 0"],
    ),
    (
        "A denied group gives nothing; the user's other groups and his own row still do",
        "g- theor lj_md / g+ theor any",
        ["theor: g theor any 0"],
    ),
    ("With all groups denied nothing is left", "g- theor any / g- chem any / u+ mark any", []),
    ("With all groups denied nothing is left", "g- any any / u+ mark any / g+ theor any", []),
    ("With all groups denied nothing is left", "g- any hello_world / u+ any any", []),
    ("A group's own row overrules the any user", "g+ theor any 2 / u+ any hello_world 8", ["theor: g theor any 2"]),
    ("The any user overrules the any group", "g+ any hello_world 7 / u+ any any 8", ["mark: u any any 8"]),
    ("A denial overrules everything", "u- any lj_md / g- any lj_md / u+ mark any", ["mark: u mark any 0"]),
    ("A denial overrules everything", "g- theor any / g- chem any / g+ theor hello_world / u+ any any", []),
    (
        "Limits are those of the row that decides",
        "u+ mark hello_world -3 / u+ mark any 0 / g+ theor any 9",
        ["mark: u mark hello_world -3"],
    ),
    (
        "Limits are those of the row that decides",
        "g+ theor any -4 / g+ chem any 0",
        ["theor: g theor any -4", "chem: g chem any 0"],
    ),
    ("Limits are those of the row that decides", "g+ any any -2", ["theor: g any any -2", "chem: g any any -2"]),
]

# An owner whom a resource names may be a user or a group, and is looked for as both.
OWNER: list[tuple[str, str, list[str]]] = [
    ("Nothing is a refusal", "", []),
    ("A user by his own row", "u+ mark any 1 / g+ mark any 2", ["mark: u mark any 1"]),
    ("A group by its own row", "g+ mark any 2 / u+ any any 3", ["mark: g mark any 2"]),
    ("Anybody by the any user", "u+ any any 3 / g+ any any 4", ["mark: u any any 3"]),
    ("Anybody by the any group", "g+ any any 4", ["mark: g any any 4"]),
    ("Denied as a user", "u- mark any / g+ mark any / u+ mark any", []),
    ("Denied as a group", "g- mark any / u+ mark any", []),
    ("Denied with everybody", "u- any hello_world / g+ mark hello_world", []),
    ("Denied with all groups", "g- any any / u+ mark any", []),
    ("Denied for something else", "u- mark lj_md / g- mark lj_md / u+ mark any", ["mark: u mark any 0"]),
]


class PermitTests(SynchronousTestCase):
    """LGI 1.41, tables users_allowed to groups_denied."""

    def test_precedence(self) -> None:
        for rule, rows, expected in PRECEDENCE:
            found = permits("mark", ("theor", "chem"), APPLICATION, _grants(rows))
            self.assertEqual(_said(found), expected, (rule, rows))

    def test_owner_of_a_resources_job(self) -> None:
        for rule, rows, expected in OWNER:
            self.assertEqual(_said(permits("mark", ("mark",), APPLICATION, _grants(rows))), expected, (rule, rows))

    def test_without_groups_only_users_rows_count(self) -> None:
        self.assertEqual(
            _said(permits("mark", (), APPLICATION, _grants("g- any any / u+ mark any"))), ["mark: u mark any 0"]
        )
        self.assertEqual(permits("mark", (), APPLICATION, _grants("g+ any any")), ())

    def test_denied_groups_may_not_own(self) -> None:
        rows = _grants("g- theor any / g- chem lj_md / g- bio hello_world")
        self.assertEqual(denied_groups(("theor", "chem", "bio", "x"), APPLICATION, rows), {"theor", "bio"})
        self.assertEqual(denied_groups(("a", "b"), APPLICATION, _grants("g- any any")), {"a", "b"})

    @given(few_people, st.lists(few_people, max_size=3, unique=True), few_applications, grants)
    def test_a_denial_always_wins(self, user: str, groups: list[str], application: str, rows: Grants) -> None:
        found = permits(user, groups, application, rows)
        for row in rows.users_denied:
            if row.name in (user, "any") and row.application in (application, "any"):
                self.assertEqual(found, ())
        denied = denied_groups(groups, application, rows)
        self.assertFalse([permit for permit in found if permit.of_group and permit.owner in denied])
        if groups and denied == set(groups):
            self.assertEqual(found, ())

    @given(few_people, st.lists(few_people, max_size=3, unique=True), few_applications, grants)
    def test_a_permit_rests_on_a_row_that_fits(
        self, user: str, groups: list[str], application: str, rows: Grants
    ) -> None:
        found = permits(user, groups, application, rows)
        for permit in found:
            table = rows.groups_allowed if permit.of_group else rows.users_allowed
            self.assertIn(permit.grant, table)
            self.assertIn(permit.grant.application, (application, "any"))
            self.assertIn(permit.grant.name, (permit.owner, "any"))
            self.assertIn(permit.owner, groups if permit.of_group else [user])
        self.assertEqual(len({permit.owner for permit in found}), len(found))
        if any(permit.grant.name == user and not permit.of_group for permit in found):
            self.assertEqual(len(found), 1)


class LimitTests(SynchronousTestCase):
    """A negative limit counts queued and running jobs, a positive one all, zero is none."""

    def test_room(self) -> None:
        for limit, active, total, expected in (
            (0, 10**9, 10**9, True),
            (3, 0, 2, True),
            (3, 0, 3, False),
            (3, 3, 3, False),
            (3, 0, 4, False),
            (-3, 2, 99, True),
            (-3, 3, 3, False),
            (-3, 4, 4, False),
            (1, 0, 0, True),
            (-1, 0, 7, True),
            (-1, 1, 1, False),
        ):
            grant = Grant(name="mark", application="any", job_limit=limit)
            self.assertEqual(leaves_room(grant, active, total), expected, (limit, active, total))

    @given(st.integers(-5, 5).filter(bool), st.integers(0, 9), st.integers(0, 9))
    def test_one_more_never_passes_the_limit(self, limit: int, active: int, others: int) -> None:
        grant = Grant(name="mark", application="any", job_limit=limit)
        if leaves_room(grant, active, active + others):
            counted = active if limit < 0 else active + others
            self.assertLessEqual(counted + 1, abs(limit))


class MatchTests(SynchronousTestCase):
    """Access lists and the owners that a resource takes work of."""

    def test_access_lists(self) -> None:
        for held, access, expected in (
            (("mark",), (), False),
            (("mark",), ("mark",), True),
            (("mark", "theor"), ("admin", "theor"), True),
            (("mark",), ("Mark", "mar", "marks"), False),
            (("mark",), ("any",), True),
            ((), ("any",), True),
            (("any",), ("mark",), False),
        ):
            self.assertEqual(matches(held, access), expected, (held, access))

    def test_owners_wanted(self) -> None:
        owners = ("mark", "theor")
        for posted, expected in (
            ((), True),
            (("any",), True),
            (("mark",), True),
            (("theor", "x"), True),
            (("x",), False),
            (("!x",), True),
            (("!mark",), False),
            (("! mark",), False),
            (("any", "!theor"), False),
            (("mark", "!theor"), False),
            (("!any",), False),
            (("mark", "!any"), False),
        ):
            self.assertEqual(owner_wanted(owners, posted), expected, posted)

    @given(st.lists(names, min_size=1, max_size=4), st.lists(names, max_size=4))
    def test_who_is_refused_is_never_wanted(self, owners: list[str], posted: list[str]) -> None:
        self.assertFalse(owner_wanted(owners, [*posted, f"!{owners[-1]}"]))
