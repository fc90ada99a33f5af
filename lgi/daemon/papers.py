"""A resource's papers: its certificate and key, the authority it trusts, and for how long they are good."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from twisted.logger import Logger

from lgi.daemon.config import DaemonConfig
from lgi.identity import Identity, parse_common_name
from lgi.tls import ClientPolicy, Credentials, TLSFileError, common_name, load_credentials

_log = Logger()
NOTICE = timedelta(days=14)
DAY = 86400.0  # seconds
LOOK = 3600.0  # seconds; the date is that of the machine, which may be set meanwhile


class PapersError(Exception):
    """The resource cannot work with these; a line for each reason, with the file."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__("\n".join(self.reasons))


@attrs.frozen(kw_only=True)
class Papers:
    """What the resource shows to servers, and whom it trusts; `ends` has the files with their last moments."""

    identity: Identity
    credentials: Credentials
    policy: ClientPolicy
    ends: tuple[tuple[Path, datetime], ...]


def read_papers(config: DaemonConfig, *, strict_hostname: bool = True) -> Papers:
    """Read and verify the three files of a configuration; raises PapersError with all that is wrong."""
    reasons = []
    identity = credentials = policy = None
    certificate_file, authority_file = config.resource_certificate_file, config.ca_certificate_file
    try:
        credentials = load_credentials(certificate_file, config.resource_key_file)
        identity = parse_common_name(common_name(credentials.certificate))
        policy = ClientPolicy(credentials, authority_file, strict_hostname=strict_hostname)
    except TLSFileError as problem:
        reasons.append(str(problem))
    except ValueError as problem:
        reasons.append(f"{certificate_file}: {problem}")
    if identity is not None:
        reasons += [
            f"{certificate_file}: the certificate is not for project {project.name}"
            for project in config.projects
            if project.name and not identity.allows_project(project.name)
        ]
    if reasons or identity is None or credentials is None or policy is None:
        raise PapersError(reasons)
    return Papers(
        identity=identity,
        credentials=credentials,
        policy=policy,
        ends=(
            (certificate_file, credentials.certificate.not_valid_after_utc),
            # With several authorities one that is still good is enough.
            (authority_file, max(one.not_valid_after_utc for one in _authorities(authority_file))),
        ),
    )


def _authorities(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def copies(config: DaemonConfig) -> dict[str, bytes]:
    """What each job directory has of them, by the names there; raises OSError."""
    return {
        "LGI_key_file": config.resource_key_file.read_bytes(),
        "LGI_certificate_file": config.resource_certificate_file.read_bytes(),
        "LGI_ca_certificate_file": config.ca_certificate_file.read_bytes(),
    }


def missing_program() -> str | None:
    """The name of a program that scripts cannot be started without and that is not there."""
    return next((name for name in ("setsid", "sh") if shutil.which(name) is None), None)


class Watch:
    """Says in the log that papers end: from 14 days before it on each day, at the end, and each day from then on.

    `clock` is the reactor's time, `now` gives the date with its time zone. Nothing else is done about it: jobs are
    kept, and servers refuse the resource until its files have been renewed and read again.
    """

    def __init__(self, clock: Any, now: Callable[[], datetime]) -> None:
        self._clock = clock
        self._now = now
        self._ends: tuple[tuple[Path, datetime], ...] = ()
        self._said: dict[Path, tuple[float, bool]] = {}
        self._timer: Any = None

    def begin(self, papers: Papers) -> None:
        """Look at these papers, from now on, and no longer at others."""
        self.stop()
        self._ends = papers.ends
        self._said.clear()
        self._look()

    def stop(self) -> None:
        """Look no longer."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _look(self) -> None:
        now, pause = self._now(), LOOK
        for file, end in self._ends:
            left = end - now
            if left > timedelta(0):
                pause = min(pause, left.total_seconds() + 1)
            if left <= NOTICE and self._is_time(file, left <= timedelta(0)):
                self._say(file, end, left)
        self._timer = self._clock.callLater(pause, self._look)

    def _is_time(self, file: Path, over: bool) -> bool:
        seconds = self._clock.seconds()
        said = self._said.get(file)
        if said is not None and said[1] == over and seconds - said[0] < DAY - 1:
            return False
        self._said[file] = (seconds, over)
        return True

    def _say(self, file: Path, end: datetime, left: timedelta) -> None:
        if left > timedelta(0):
            _log.warn(
                "{file} is valid for {left} more, until {end:%Y-%m-%d %H:%M} UTC: renew it in time, then send SIGHUP",
                file=str(file),
                left=_spoken(left),
                end=end,
            )
        else:
            _log.critical(
                "{file} has expired at {end:%Y-%m-%d %H:%M} UTC: no server accepts this resource before it has been "
                "renewed and SIGHUP sent; the jobs that are here go on, and are reported then",
                file=str(file),
                end=end,
            )


def _spoken(left: timedelta) -> str:
    return f"{left.days} days" if left.days > 1 else f"{left.total_seconds() / 3600:.0f} hours"
