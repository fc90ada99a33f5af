"""The project's servers as they were known last, for when the one that would name them is down."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import attrs

from lgi.client.settings import is_server_url

MOST = 64


def cache_directory() -> Path:
    """Where programs of this user keep what they can do without (XDG Base Directory Specification)."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(named) if named.startswith("/") else Path.home() / ".cache") / "lgi"


@attrs.frozen(kw_only=True)
class KnownServers:
    """A file with an address in each line. That it cannot be read or written harms nobody.

    What it says is only ever an address to ask: whoever answers there has to show a certificate of the authority.
    """

    file: Path

    @classmethod
    def of(cls, server: str, project: str) -> KnownServers:
        """Those of a project, as the configured `server` names them."""
        digest = hashlib.sha256(f"{server}\n{project}".encode()).hexdigest()
        return cls(file=cache_directory() / f"servers-{digest[:16]}")

    def read(self) -> tuple[str, ...]:
        """The addresses, none where nothing usable is known."""
        try:
            lines = self.file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return ()
        return tuple(dict.fromkeys(line for line in lines[:MOST] if is_server_url(line)))

    def write(self, servers: Sequence[str]) -> None:
        """Remember the addresses for the next time."""
        if tuple(servers) == self.read():
            return
        with suppress(OSError):
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = self.file.with_name(f"{self.file.name}.{os.getpid()}")
            new.write_text("".join(f"{server}\n" for server in servers), "utf-8")
            new.replace(self.file)
