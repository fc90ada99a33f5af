"""The sessions that a daemon has open, on disk, so that the next one ends those of one that was killed.

Otherwise the jobs that those hold locked would be nobody's for half an hour (LGI 1.41, running_sessions). A file that
is lost with the machine's power costs just that.
"""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import attrs

from lgi.durable import read_regular

DIRECTORY = ".lgi-daemon.sessions"


@attrs.frozen(kw_only=True)
class OpenSession:
    """A session at a server."""

    project: str
    url: str
    session_id: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return sha256(f"{self.project} {self.url} {self.session_id}".encode()).hexdigest()[:32]


class OpenSessions:
    """The files of a run directory; one that cannot be written is no reason to stop."""

    def __init__(self, run_directory: Path) -> None:
        self._directory = run_directory / DIRECTORY

    def add(self, session: OpenSession) -> None:
        """It has been started."""
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            (self._directory / session.name).write_text(json.dumps(attrs.asdict(session)))

    def remove(self, session: OpenSession) -> None:
        """It has ended."""
        with suppress(OSError):
            (self._directory / session.name).unlink(missing_ok=True)

    def left(self) -> list[OpenSession]:
        """Those of a daemon before; files that are none are cleared away."""
        found = []
        with suppress(OSError):
            for file in sorted(self._directory.iterdir()):
                try:
                    found.append(OpenSession(**json.loads(read_regular(file))))
                except (OSError, ValueError, TypeError):
                    with suppress(OSError):
                        file.unlink()
        return found
