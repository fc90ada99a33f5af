"""The sessions that a daemon has open, on disk, so that the next one ends those of one that was killed.

Otherwise the jobs that those hold locked would be nobody's for half an hour (LGI 1.41, running_sessions). A file that
is lost with the machine's power costs just that.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from pathlib import Path

import attrs

DIRECTORY = ".lgi-daemon.sessions"


@attrs.frozen(kw_only=True)
class OpenSession:
    """A session at a server."""

    project: str
    url: str
    session_id: int

    @property
    def name(self) -> str:
        """The name of its file, which says all of it: a full disk has room for a name, but for nothing in it."""
        said = json.dumps([self.project, self.url, self.session_id], separators=(",", ":"))
        return urlsafe_b64encode(said.encode()).decode().rstrip("=")

    @classmethod
    def of(cls, name: str) -> OpenSession:
        """The session that has a file of this name; raises ValueError, TypeError."""
        project, url, session_id = json.loads(urlsafe_b64decode(name + "=" * (-len(name) % 4)))
        if not (isinstance(project, str) and isinstance(url, str) and isinstance(session_id, int)):
            raise TypeError("a name of something else")
        return cls(project=project, url=url, session_id=session_id)


class OpenSessions:
    """The files of a run directory; one that cannot be written is no reason to stop."""

    def __init__(self, run_directory: Path) -> None:
        self._directory = run_directory / DIRECTORY

    def add(self, session: OpenSession) -> None:
        """It has been started."""
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            (self._directory / session.name).touch(mode=0o600)

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
                    found.append(OpenSession.of(file.name))
                except (ValueError, TypeError):
                    with suppress(OSError):
                        file.unlink()
        return found
