from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lgi.daemon.seal import KEY_FILE, Seal, SealError, load_seal

SEAL = Seal(key=b"k" * 32)


class SealTests(SynchronousTestCase):
    def test_everything_counts(self) -> None:
        found = SEAL.sign("A", "LGI_input", b"content")
        self.assertRegex(found, "^[0-9a-f]{64}$")
        self.assertTrue(SEAL.matches(f"{found}\n", "A", "LGI_input", b"content"))
        for seal, reference, name, content in (
            (Seal(key=b"j" * 32), "A", "LGI_input", b"content"),
            (SEAL, "B", "LGI_input", b"content"),
            (SEAL, "A", "LGI_output", b"content"),
            (SEAL, "A", "LGI_input", b"content "),
        ):
            self.assertFalse(seal.matches(found, reference, name, content))

    def test_one_of_several_is_enough(self) -> None:
        found = SEAL.sign("A", "n", b"new")
        self.assertTrue(SEAL.matches(f"{SEAL.sign('A', 'n', b'old')}\n{found}\n", "A", "n", b"new"))
        self.assertFalse(SEAL.matches("", "A", "n", b"new"))
        self.assertFalse(SEAL.matches("ü", "A", "n", b"new"))

    def test_the_key_is_not_shown(self) -> None:
        self.assertNotIn("kkk", repr(SEAL))


class KeyFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.file = self.directory / KEY_FILE

    def test_made_once_for_the_owner_alone(self) -> None:
        seal = load_seal(self.directory)
        self.assertEqual(os.stat(self.file).st_mode & 0o777, 0o600)
        self.assertEqual(load_seal(self.directory), seal)
        self.assertNotEqual(seal.key, b"")

    def test_a_file_that_is_no_key(self) -> None:
        for content in ("", "abcd", "x" * 64):
            self.file.write_text(content)
            error = self.assertRaises(SealError, load_seal, self.directory)
            self.assertIn(str(self.file), str(error))

    def test_no_place_for_it(self) -> None:
        self.assertRaises(SealError, load_seal, self.directory / "missing")
