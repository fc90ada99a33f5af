from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lgi.access import owner_wanted
from lgi.daemon.config import Limits
from lgi.daemon.limits import OWNERS_FIELD, Level, Taken, posted_owners, refusal, room
from lgi.lists import encode_list


def level(
    allow: dict[str, int] | None = None, deny: Iterable[str] = (), job_limit: int = 10, held: Iterable[str] = ()
) -> Level:
    """`held` has the owners of each job held, separated by spaces."""
    return Level(
        name="level",
        limits=Limits(allow=allow or {}, deny=tuple(deny), job_limit=job_limit),
        jobs=[Taken(project="p", application="a", owners=tuple(owners.split())) for owners in held],
    )


class RefusalTests(SynchronousTestCase):
    TABLE = (
        # the level, the owners, whether taken
        (level(), "mark", True),
        (level(deny=["mark"]), "mark", False),
        (level(deny=["mark"]), "anna mark", False),
        (level(deny=["mark"]), "anna", True),
        (level(deny=["any"]), "anna", False),
        (level({"any": 1}), "mark", True),
        (level({"any": 1}, held=["mark"]), "mark", False),
        (level({"any": 1}, held=["mark"]), "anna", True),
        (level({"any": 2}, held=["mark physics", "anna physics"]), "otto physics", False),
        (level({"mark": 2, "any": 1}, held=["mark"]), "mark", True),
        (level({"mark": 2, "any": 1}, held=["mark", "mark"]), "mark", False),
        (level({"mark": 2, "any": 1}, held=["mark", "mark"]), "anna", True),
        (level({"mark": 0, "any": 1}), "mark", False),
        (level({"mark": 2}), "anna", False),
        (level({"mark": 2}), "anna mark", True),
        (level({"mark": 2}, held=["anna", "anna", "anna"]), "anna mark", True),
        (level(job_limit=0), "mark", False),
        (level(job_limit=1, held=["anna"]), "mark", False),
        (level({"mark@laptop": 1}, held=["mark@laptop"]), "mark@laptop", False),
    )

    def test_table(self) -> None:
        for one, owners, taken in self.TABLE:
            reason = refusal([one], owners.split())
            self.assertEqual(reason is None, taken, (one, owners, reason))

    def test_every_level_has_to_agree(self) -> None:
        full = level(job_limit=1, held=["x"])
        for levels in ([full, level(), level()], [level(), full, level()], [level(), level(), full]):
            self.assertIn("limit of 1 jobs", str(refusal(levels, ["mark"])))
            self.assertEqual(room(levels), 0)

    def test_room(self) -> None:
        self.assertEqual(room([level(job_limit=20), level(job_limit=5, held=["x", "y"]), level()]), 3)
        self.assertEqual(room([level(job_limit=100)]), 32)


class PostedOwnersTests(SynchronousTestCase):
    def test_denied_full_and_allowed(self) -> None:
        resource = level({"any": 5}, deny=["bad"])
        project = level({"any": 1}, held=["full"])
        application = level({"mark": 2, "nobody": 0})
        self.assertEqual(
            posted_owners([resource, project, application]), ("!bad", "!full", "!nobody", "mark", "nobody")
        )

    def test_any_names_nobody(self) -> None:
        self.assertEqual(posted_owners([level({"mark": 2, "any": 1})]), ())

    def test_it_fits_into_its_field(self) -> None:
        many = {f"user{number}@somewhere.example": 1 for number in range(100)}
        field = posted_owners([level(many, deny=[f"bad{number}@somewhere.example" for number in range(100)])])
        self.assertLessEqual(len(encode_list(field).encode()), OWNERS_FIELD)
        self.assertTrue(all(entry.startswith("!") for entry in field), "part of the allowed would be wrong")

    names = st.sampled_from(["a", "b", "c", "any"])
    owners = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, unique=True)
    some_level = st.builds(
        level,
        allow=st.dictionaries(names, st.integers(0, 2)),
        deny=st.lists(names, max_size=1),
        held=st.lists(owners.map(" ".join), max_size=3),
    )

    @given(st.lists(some_level, min_size=3, max_size=3), owners)
    def test_whatever_is_taken_is_asked_for(self, levels: list[Level], owners: list[str]) -> None:
        if refusal(levels, owners) is None:
            assert owner_wanted(owners, posted_owners(levels))
