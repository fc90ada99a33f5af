"""The keyed hashes that stand beside a job directory's files (LGI 1.41, Resource daemon: the `.hash` files).

The document's hashes have no key, so that whoever can change a file can make its hash too; ours need the key in the
run directory. They cover the job's reference and the file's name as well: a file of one job is none of another's.
"""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

import attrs

from lgi.durable import read_regular, write_atomically

KEY_FILE = ".lgi-daemon.key"
_KEY_SIZE = 32


class SealError(Exception):
    """The key file cannot be used; one line."""


@attrs.frozen(kw_only=True)
class Seal:
    """Makes and checks hashes with one key."""

    key: bytes = attrs.field(repr=False)

    def sign(self, reference: str, name: str, content: bytes) -> str:
        """The hash of a file in hexadecimal: HMAC-SHA256 over the job's reference, the file's name and content."""
        covered = b"%s\0%s\0%s" % (reference.encode(), name.encode(), content)
        return hmac.digest(self.key, covered, "sha256").hex()

    def matches(self, hashes: str, reference: str, name: str, content: bytes) -> bool:
        """Whether one of the `hashes`, separated by white space, is that of the file."""
        wanted = self.sign(reference, name, content).encode()
        return any(hmac.compare_digest(wanted, found.encode()) for found in hashes.split())


def load_seal(run_directory: Path) -> Seal:
    """The seal of a run directory; its key is made at the first use. Raises SealError."""
    path = run_directory / KEY_FILE
    try:
        try:
            text = read_regular(path)
        except FileNotFoundError:
            text = secrets.token_hex(_KEY_SIZE).encode()
            write_atomically(path, text)
        key = bytes.fromhex(text.decode("ascii").strip())
    except OSError as problem:
        raise SealError(f"{path}: cannot be used: {problem.strerror or problem}") from None
    except ValueError:
        key = b""
    if len(key) != _KEY_SIZE:
        raise SealError(f"{path}: is not a key of {_KEY_SIZE} bytes in hexadecimal")
    return Seal(key=key)
