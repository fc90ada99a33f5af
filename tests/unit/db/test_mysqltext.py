"""MySQL's quoting, by MySQL's rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lgi.db.mysqltext import StatementRefused, Value, quoted, take_apart

WORDS = frozenset({"SET", "A"})
VALUES = st.one_of(st.text(), st.integers(-(10**17), 10**17), st.binary())


def read(text: str) -> tuple[Value, ...]:
    """The values in a text that has nothing else but the word A and signs."""
    return take_apart(text, WORDS).values


class MySQLTextTests(SynchronousTestCase):
    """Values in and out of statements."""

    def test_escapes(self) -> None:
        """Each of MySQL's escapes, and one that is none; the other quote needs none and is not folded."""
        for written, meant in (
            (r"'a\'b\"c'", "a'b\"c"),
            (r"'\0\b\n\r\t\Z\\'", "\0\b\n\r\t\x1a\\"),
            (r"'\x\q'", "xq"),
            (r"'50\% \_'", r"50\% \_"),
            ("'a''b'", "a'b"),
            ("'a\"\"b'", 'a""b'),
            ('"a""b"', 'a"b'),
            ("\"a''b\"", "a''b"),
            (r"'\''", "'"),
            (r"'\\'", "\\"),
            ("'; DROP TABLE x; -- '", "; DROP TABLE x; -- "),
            ("'line\nline'", "line\nline"),
            ("''", ""),
            ("-10", -10),
            ("0x4142", b"AB"),
            ("0xa", b"\n"),
            ("x'4142'", b"AB"),
            ("X''", b""),
        ):
            self.assertEqual(read(written), (meant,), written)

    def test_refused(self) -> None:
        """What is not a value, a known word or a sign, wherever it stands."""
        for text in (
            *("'a", '"a', "'a\\'", "'a''", "x'4'", "x'zz'", "0xg", "1.5", "1e3", "5abc", "9999999999999999999"),
            *("A'x'", "_utf8'x'", "_utf8 'x'", "N'x'", "b'1'", "A$", "`A b`", "`a`b`", "``", "B", "`B`", "Ａ"),
            *("A -- x", "A # x", "A /* x */", "A /*! x */", "--", "- 5", "A+1", "A*1", "A/1", "A%1", "A|A", "A&A"),
            *("@a", "@@a", ":a", "?", "A:=1", "A<=>1", "!A", "~A", "{A}", "[A]", "A\\", "A\0", "A\u00a0A", "A;A"),
            "(" * 40 + ")" * 40,
            "A," * 6000,
        ):
            with self.assertRaises(StatementRefused, msg=text):
                read(text)

    def test_skeleton(self) -> None:
        """What is left has no text of the values."""
        skeleton = take_apart("SET `a`='x' , A=-5;", WORDS)
        self.assertEqual((skeleton.text, skeleton.values), ("SET `a` = :v0 , A = :v1", ("x", -5)))

    @given(st.lists(VALUES, max_size=5))
    def test_round_trip(self, values: list[Value]) -> None:
        """What is written is read again; bytes that are ASCII may come back as text."""
        found = read(" , ".join(quoted(value) for value in values))
        self.assertEqual(
            [one.decode() if isinstance(one, bytes) and one.isascii() else one for one in values],
            [one.decode() if isinstance(one, bytes) and one.isascii() else one for one in found],
        )

    @given(st.text(), st.text())
    def test_text_cannot_leave_its_quotes(self, before: str, after: str) -> None:
        """However a value looks, what stands around it stays what it is."""
        skeleton = take_apart(f"A={quoted(before)},A={quoted(after)}", WORDS)
        self.assertEqual((skeleton.text, skeleton.values), ("A = :v0 , A = :v1", (before, after)))

    @given(st.text(alphabet="'\"\\`;-/*#x0aA=,() \n", max_size=40))
    def test_anything_is_read_or_refused(self, text: str) -> None:
        """No text makes the reader fail otherwise."""
        try:
            skeleton = take_apart(text, WORDS)
        except StatementRefused:
            return
        self.assertNotIn("'", skeleton.text)
        self.assertNotIn('"', skeleton.text)
