"""Hexadecimal text ("BinHex") in which `input`, `output`, updates and certificates travel."""

from __future__ import annotations


def encode_binhex(data: bytes) -> str:
    """Two lower-case hexadecimal digits for each byte, as the deployed server writes."""
    return data.hex()


def decode_binhex(text: str) -> bytes:
    """Bytes of hexadecimal `text` in either case, white space around it skipped.

    Raises ValueError on an odd number of digits or on anything that is not a digit (the deployed programs read those
    as zeros; we refuse them).
    """
    digits = text.strip()
    if not digits.isascii() or any(character.isspace() for character in digits):
        raise ValueError("not hexadecimal")
    return bytes.fromhex(digits)
