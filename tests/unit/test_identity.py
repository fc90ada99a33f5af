"""Who a certificate says its holder is."""

from __future__ import annotations

from hypothesis import assume, example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lgi.identity import Identity, parse_common_name
from tests.strategies import lists_of_names, names, unicode_text


class CommonNameTests(SynchronousTestCase):
    """LGI 1.41, Certificates."""

    def test_one_two_and_three_parts(self) -> None:
        for text, expected in (
            ("lgi.example.org", Identity(name="lgi.example.org")),
            ("r@host; LGI", Identity(name="r@host", projects=("LGI",))),
            ("mark; theor, chem; LGI, any", Identity(name="mark", groups=("theor", "chem"), projects=("LGI", "any"))),
            (" mark ;theor;LGI ", Identity(name="mark", groups=("theor",), projects=("LGI",))),
            ("mark;;LGI", Identity(name="mark", projects=("LGI",))),
            ("mark; theor;", Identity(name="mark", groups=("theor",), projects=())),
            ("mark;", Identity(name="mark", projects=())),
            ("márk \N{GRINNING FACE}; LGI", Identity(name="márk \N{GRINNING FACE}", projects=("LGI",))),
        ):
            self.assertEqual(parse_common_name(text), expected, text)

    def test_what_names_nobody_is_refused(self) -> None:
        for text, words in (
            ("", "no name before"),
            (" ", "no name before"),
            ("; theor; LGI", "no name before"),
            ("any; LGI", "'any'"),
            ("mark,piet; LGI", "'mark,piet'"),
            ("mark; a; b; c", "4 parts"),
            ("ma\x00rk; LGI", "control characters"),
            ("mark; the\nor; LGI", "control characters"),
            ("mark; theor; L\u202eGI", "control characters"),
        ):
            error = self.assertRaises(ValueError, parse_common_name, text)
            self.assertIn(words, str(error), text)

    @given(names, lists_of_names, lists_of_names)
    def test_three_parts_come_back(self, name: str, groups: tuple[str, ...], projects: tuple[str, ...]) -> None:
        text = f"{name}; {', '.join(groups)}; {', '.join(projects)}"
        self.assertEqual(parse_common_name(text), Identity(name=name, groups=groups, projects=projects))

    @given(unicode_text)
    @example("a;b;c;d")
    @example("\x85")
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            found = parse_common_name(text)
        except ValueError as problem:
            self.assertTrue(str(problem))
            return
        self.assertTrue(found.name)
        self.assertNotEqual(found.name, "any")
        self.assertFalse(set(found.name) & set(",;"))
        self.assertEqual(found.projects is None, ";" not in text)


class IdentityTests(SynchronousTestCase):
    """What a holder may do and act as."""

    def test_projects_of_the_certificate(self) -> None:
        for projects, expected in (
            (None, True),
            ((), False),
            (("other",), False),
            (("LGI",), True),
            (("any",), True),
        ):
            self.assertEqual(Identity(name="m", projects=projects).allows_project("LGI"), expected, projects)

    def test_project_names_are_compared_exactly(self) -> None:
        self.assertFalse(Identity(name="m", projects=("LGI",)).allows_project("lgi"))

    def test_own_name_counts_as_a_group(self) -> None:
        holder = Identity(name="mark", groups=("theor", "chem"))
        self.assertEqual(holder.names, ("mark", "theor", "chem"))
        self.assertEqual(holder.allowed_groups(("mark", "chem", "bio", "theor")), ("mark", "chem", "theor"))
        self.assertEqual(holder.allowed_groups(("Theor",)), ())
        self.assertEqual(holder.allowed_groups(()), ())

    def test_any_in_a_certificate_stands_for_every_group_but_itself(self) -> None:
        holder = Identity(name="portal", groups=("any",))
        self.assertEqual(holder.allowed_groups(("theor", "any", "chem")), ("theor", "chem"))

    def test_posting_any_gives_nothing(self) -> None:
        self.assertEqual(Identity(name="mark", groups=("theor",)).allowed_groups(("any",)), ())

    @given(names, lists_of_names, st.lists(names, max_size=5).map(tuple))
    def test_nobody_gets_a_group_he_does_not_hold(
        self, name: str, groups: tuple[str, ...], posted: tuple[str, ...]
    ) -> None:
        assume("any" not in groups)
        allowed = Identity(name=name, groups=groups).allowed_groups(posted)
        self.assertLessEqual(set(allowed), {name, *groups} & set(posted))
        self.assertEqual(list(allowed), [group for group in posted if group in {name, *groups}])
