"""Datagrams between servers: each is signed for the one that it is sent to, and is taken once, within half a minute.

A datagram is MAGIC, the receiver's number, the sender's, which is drawn anew at each of its starts, the number of the
datagram, the time in milliseconds, what is said, and the HMAC-SHA256 of all that by the receiver's key. It is signed
and not encrypted.
"""

from __future__ import annotations

import hmac
import secrets
import struct
from collections.abc import Mapping

import attrs

MAGIC = b"LGIb"
KEY_BYTES, NUMBER_BYTES = 32, 8
LONGEST = 60_000
"""Bytes of a datagram at most: the network takes somewhat more."""
STALE_SECONDS = 30.0
"""By so much the clocks of two servers may differ, with the time on the way."""
WINDOW = 4096
"""A datagram that comes after so many later ones is too late."""
_HEAD = struct.Struct(f">{len(MAGIC)}s{NUMBER_BYTES}s{NUMBER_BYTES}sQQ")
_TAG_BYTES = 32


class Refused(Exception):
    """A datagram that is not taken; the message says why, in words that may be logged."""


def _tag(key: bytes, signed: bytes) -> bytes:
    return hmac.digest(key, signed, "sha256")


class Sealer:
    """Signs what one server sends."""

    def __init__(self) -> None:
        self._sender = secrets.token_bytes(NUMBER_BYTES)
        self._number = 0

    def seal(self, said: bytes, *, receiver: bytes, key: bytes, now: float) -> bytes:
        """A datagram for the receiver with this number and key; `now` in Unix seconds."""
        self._number += 1
        signed = _HEAD.pack(MAGIC, receiver, self._sender, self._number, int(now * 1000)) + said
        return signed + _tag(key, signed)


@attrs.define
class _Taken:
    """Which datagrams of a sender have been taken: the highest number, and those before it as bits."""

    highest: int = 0
    bits: int = 0
    last: float = 0.0


class Opener:
    """Opens what one server is sent; `keys` has its own keys by the numbers that it is known by."""

    def __init__(self, keys: Mapping[bytes, bytes]) -> None:
        self._keys = keys
        self._taken: dict[bytes, _Taken] = {}

    def open(self, datagram: bytes, now: float) -> tuple[bytes, bytes]:
        """The receiver's number and what is said; raises Refused, and then nothing has changed."""
        if not _HEAD.size + _TAG_BYTES <= len(datagram) <= LONGEST:
            raise Refused("it has another length")
        magic, receiver, sender, number, sent = _HEAD.unpack_from(datagram)
        key = self._keys.get(receiver)
        if magic != MAGIC or key is None:
            raise Refused("it is not for this server")
        signed, tag = datagram[:-_TAG_BYTES], datagram[-_TAG_BYTES:]
        if not hmac.compare_digest(_tag(key, signed), tag):
            raise Refused("it is not signed with the key of this server")
        if abs(now - sent / 1000) > STALE_SECONDS:
            raise Refused(f"it was sent at {sent / 1000:.0f} by the sender's clock, and this server's says {now:.0f}")
        self._take(sender, number, now)
        return receiver, signed[_HEAD.size :]

    def _take(self, sender: bytes, number: int, now: float) -> None:
        taken = self._taken.get(sender)
        if taken is None:
            # What those said who are forgotten is stale by now, and for longer than clocks differ.
            self._taken = {
                other: one for other, one in self._taken.items() if abs(now - one.last) <= 4 * STALE_SECONDS
            }
            taken = self._taken[sender] = _Taken()
        back = taken.highest - number
        if back >= WINDOW or (back >= 0 and taken.bits >> back & 1):
            raise Refused("it has come before, or is too late")
        if back < 0:
            taken.bits = (taken.bits << min(-back, WINDOW)) & ((1 << WINDOW) - 1)
            taken.highest, back = number, 0
        taken.bits |= 1 << back
        taken.last = now
