"""Comma-separated lists."""

from __future__ import annotations

from hypothesis import example, given
from twisted.trial.unittest import SynchronousTestCase

from lgi.lists import decode_list, encode_list
from tests.strategies import lists_of_names, unicode_text


class ListTests(SynchronousTestCase):
    """As fields, access lists and certificates hold them."""

    def test_spaces_and_empty_items_do_not_count(self) -> None:
        for text, expected in (
            ("", ()),
            (" ", ()),
            (",", ()),
            (" , ,, ", ()),
            ("a", ("a",)),
            (" a , b ", ("a", "b")),
            ("a,,b,", ("a", "b")),
            ("b,a,b", ("b", "a")),
            ("a b, a  b", ("a b", "a  b")),
            ("a,A", ("a", "A")),
            ("\ta\n,\r\nb", ("a", "b")),
        ):
            self.assertEqual(decode_list(text), expected, repr(text))

    def test_written_as_deployed_servers_do(self) -> None:
        self.assertEqual(encode_list(()), "")
        self.assertEqual(encode_list(["admin", "mark", "admin"]), "admin, mark")

    @given(lists_of_names)
    def test_what_is_written_is_read(self, items: tuple[str, ...]) -> None:
        self.assertEqual(decode_list(encode_list(items)), items)

    @given(unicode_text)
    @example("a,\xa0,b")
    def test_items_are_distinct_stripped_and_not_empty(self, text: str) -> None:
        items = decode_list(text)
        self.assertEqual(len(set(items)), len(items))
        for item in items:
            self.assertTrue(item)
            self.assertEqual(item, item.strip())
            self.assertNotIn(",", item)
        self.assertEqual(decode_list(encode_list(items)), items)
