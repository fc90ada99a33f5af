"""Signed datagrams: what is taken, once, and what is not."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lgi.server import sealing
from lgi.server.sealing import LONGEST, STALE_SECONDS, WINDOW, Opener, Refused, Sealer

RECEIVER, OTHER = b"receiver", b"another1"
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
NOW = 1_700_000_000.0


class SealingTests(SynchronousTestCase):
    """One sender, one receiver that is known by two numbers."""

    def setUp(self) -> None:
        self.sealer = Sealer()
        self.opener = Opener({RECEIVER: KEY, OTHER: OTHER_KEY})

    def seal(self, said: bytes = b"said", receiver: bytes = RECEIVER, key: bytes = KEY, now: float = NOW) -> bytes:
        return self.sealer.seal(said, receiver=receiver, key=key, now=now)

    def refused(self, datagram: bytes, now: float = NOW) -> str:
        """Why; nothing has changed by it."""
        before = repr(self.opener._taken)
        text = str(self.assertRaises(Refused, self.opener.open, datagram, now))
        self.assertEqual(repr(self.opener._taken), before)
        return text

    def test_there_and_back(self) -> None:
        self.assertEqual(self.opener.open(self.seal(), NOW), (RECEIVER, b"said"))
        self.assertEqual(self.opener.open(self.seal(b"", OTHER, OTHER_KEY), NOW), (OTHER, b""))

    def test_once(self) -> None:
        datagram = self.seal()
        self.opener.open(datagram, NOW)
        self.assertIn("come before", self.refused(datagram))
        self.assertIn("come before", self.refused(datagram, NOW + STALE_SECONDS - 1))
        self.assertIn("sent at", self.refused(datagram, NOW + STALE_SECONDS + 1))

    def test_every_bit_counts(self) -> None:
        datagram = self.seal()
        for place in range(len(datagram)):
            forged = bytearray(datagram)
            forged[place] ^= 1
            self.refused(bytes(forged))
        for length in range(len(datagram)):
            self.refused(datagram[:length])
        self.refused(datagram + b"x")
        self.opener.open(datagram, NOW)

    def test_key_of_another(self) -> None:
        self.assertIn("not signed", self.refused(self.seal(key=OTHER_KEY)))
        self.assertIn("not for this", self.refused(self.seal(receiver=b"nobody's", key=KEY)))
        # Who has the key of one project cannot ring in another.
        self.assertIn("not signed", self.refused(self.seal(receiver=OTHER, key=KEY)))

    def test_nonsense(self) -> None:
        for datagram in (b"", b"x", b"\0" * 200, sealing.MAGIC + b"\xff" * 200, b"y" * (LONGEST + 1)):
            text = self.refused(datagram)
            self.assertNotIn("y" * 8, text)

    def test_clocks(self) -> None:
        for difference in (STALE_SECONDS + 1, -STALE_SECONDS - 1):
            self.assertIn("by the sender's clock", self.refused(self.seal(now=NOW + difference)))
        for difference in (STALE_SECONDS - 1, 1 - STALE_SECONDS):
            self.opener.open(self.seal(now=NOW + difference), NOW)

    def test_in_any_order(self) -> None:
        datagrams = [self.seal() for _ in range(WINDOW)]
        for datagram in (datagrams[-1], *datagrams[:-1]):
            self.opener.open(datagram, NOW)
        for datagram in (datagrams[0], datagrams[-1], datagrams[7]):
            self.refused(datagram)

    def test_too_late(self) -> None:
        late = self.seal()
        for _ in range(WINDOW):
            last = self.seal()
        self.opener.open(last, NOW)
        self.refused(late)
        for _ in range(3 * WINDOW):
            last = self.seal()
        self.opener.open(last, NOW)
        self.refused(last)

    def test_senders_that_are_gone_are_forgotten(self) -> None:
        for number in range(50):
            sealer = Sealer()
            now = NOW + 10 * STALE_SECONDS * number
            self.opener.open(sealer.seal(b"", receiver=RECEIVER, key=KEY, now=now), now)
        self.assertEqual(len(self.opener._taken), 1)
