"""Hexadecimal text."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lgi.wire.binhex import decode_binhex, encode_binhex
from tests.strategies import unicode_text


class BinHexTests(SynchronousTestCase):
    """As `input` and `output` travel."""

    def test_either_case_is_read_and_lower_case_written(self) -> None:
        self.assertEqual(decode_binhex("  0aFF "), b"\x0a\xff")
        self.assertEqual(encode_binhex(b"\x0a\xff"), "0aff")
        self.assertEqual((decode_binhex(""), decode_binhex(" \r\n"), encode_binhex(b"")), (b"", b"", ""))

    def test_anything_else_is_refused(self) -> None:
        for text in ("0", "abc", "0g", "0a 0b", "0a\n0b", "0x0a", "-1", "٠١", "０１", "é1"):
            self.assertRaises(ValueError, decode_binhex, text)

    @given(st.binary(max_size=200))
    def test_bytes_come_back(self, data: bytes) -> None:
        self.assertEqual(decode_binhex(encode_binhex(data)), data)
        self.assertEqual(decode_binhex(f" {encode_binhex(data).upper()}"), data)

    @given(unicode_text | st.text("0123456789abcdefABCDEF", max_size=9))
    @example("1\x002")
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            data = decode_binhex(text)
        except ValueError:
            return
        self.assertEqual(encode_binhex(data), text.strip().lower())
