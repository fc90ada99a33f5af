"""The project server's configuration file: TOML into frozen, checked values.

All mistakes are reported at once, each with its file, section and key. Relative paths count from the file's
directory.
"""

from __future__ import annotations

import os
import re
import tomllib
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Any, get_args, get_origin
from urllib.parse import unquote, urlsplit

import attrs
from attrs.validators import ge, in_, instance_of, le, min_len

_GIB = 1 << 30
_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", str: "text in quotes"}
LOCAL = "local"
MOST_PROCESSES = 64
# Of those that nobody has asked for: each has connections to the database of its own.
MOST_BY_DEFAULT = 8


class ConfigError(Exception):
    """Every mistake of a configuration file, a line each."""


def _https_url(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    try:
        parts = urlsplit(value)
        good = parts.scheme == "https" and parts.hostname and parts.port != 0 and parts.path.strip("/")
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise ValueError(f"{attribute.name} is an address such as https://host:8443/LGI, not {value!r}")


def _https_url_or_none(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value:
        _https_url(instance, attribute, value)


@attrs.frozen(kw_only=True)
class StorageAddress:
    """Where another machine keeps the repositories."""

    user: str
    host: str
    port: int
    directory: PurePosixPath


def storage_address(value: str) -> StorageAddress | None:
    """What `[repository] storage` says, None for "local"; raises ValueError."""
    if value == LOCAL:
        return None
    wrong = f'storage is "{LOCAL}" or an address such as sftp://repo@host:22/var/lib/lgi, not {value!r}'
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    if parts.scheme != "sftp" or not parts.username or not parts.hostname or parts.password is not None or port == 0:
        raise ValueError(wrong)
    directory = PurePosixPath(unquote(parts.path))
    if not directory.is_absolute() or directory == PurePosixPath("/") or ".." in directory.parts:
        raise ValueError(wrong)
    if parts.query or parts.fragment:
        raise ValueError(wrong)
    return StorageAddress(user=unquote(parts.username), host=parts.hostname, port=port or 22, directory=directory)


def _storage(_instance: object, _attribute: attrs.Attribute[str], value: str) -> None:
    storage_address(value)


def listen_address(value: str) -> tuple[str, int] | None:
    """What `[metrics] listen` says, a port alone on 127.0.0.1; None for nowhere. Raises ValueError."""
    if not value:
        return None
    wrong = f"listen is an address and a port such as 127.0.0.1:9464 or [::1]:9464, not {value!r}"
    host, _, port = value.rpartition(":") if ":" in value else ("127.0.0.1", "", value)
    if host.startswith("[") and host.endswith("]"):
        host, version = host[1:-1], 6
    else:
        version = 4
    try:
        address = ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ValueError(wrong) from None
    if address.version != version or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(wrong)
    return str(address), int(port)


def _listen(_instance: object, _attribute: attrs.Attribute[str], value: str) -> None:
    listen_address(value)


def _reachable(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    try:
        address = listen_address(value)
    except ValueError:
        address = ("", 0)
    # A port alone would be one on the loopback, where no other machine reaches it.
    alone = value.strip().isdigit()
    if alone or (address is not None and (not address[0] or ip_address(address[0]).is_unspecified)):
        raise ValueError(
            f"{attribute.name} is an address and a port where the other servers reach this one, such as "
            f"192.0.2.7:8444 or [2001:db8::7]:8444, not {value!r}"
        )


def _look(_instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0.1 <= value <= 3600:
        raise ValueError(f"{attribute.name} is a time in seconds, from 0.1 to 3600, not {value!r}")


def _seconds(_instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1 << 30:
        raise ValueError(f"{attribute.name} is a time in seconds, 0 or more, not {value!r}")


def _at_least(minimum: int, maximum: int = 1 << 62) -> Any:
    return [instance_of(int), ge(minimum), le(maximum)]


@attrs.frozen(kw_only=True)
class ServerSection:
    """`[server]`: where the server listens, and what it is called from outside.

    In `run_directory` the programs of this server meet, see `lgi.bell`. `processes` is how many processes share the
    port, 0 for what `processes_of` chooses. `bell` is the address and port (UDP) where servers on other machines that
    share a database with this one tell it of changes, empty for none. Every `look` seconds it looks in the database
    for changes that nobody told it.
    """

    url: str = attrs.field(validator=_https_url)
    port: int = attrs.field(validator=_at_least(0, 65535))
    interface: str = ""
    certificate: Path
    private_key: Path
    ca_certificate: Path
    revoked: Path
    ca_certificate_url: str
    run_directory: Path = Path("../run")
    idle_timeout: int = attrs.field(default=120, validator=_at_least(5))
    processes: int = attrs.field(default=0, validator=_at_least(0, MOST_PROCESSES))
    bell: str = attrs.field(default="", validator=_reachable)
    look: float = attrs.field(default=1.0, validator=_look)


@attrs.frozen(kw_only=True)
class RepositorySection:
    """`[repository]`: where the files of jobs are; `location` is what clients are told, `user@host` style.

    `storage` is "local", or the address of another machine, `sftp://user@host:port/directory`, that is gone to with
    `storage_key` (by default the server's private key) and has to have a key in `storage_known_hosts`. `directory` is
    on this machine in any case: uploads wait there. `url` is where clients find the repositories, by default below
    the server's own. Sizes in bytes: of a file, of a whole request, of the files of one repository, and of the files
    of all jobs of one user, 0 for no limit.
    """

    directory: Path
    location: str
    storage: str = attrs.field(default=LOCAL, validator=_storage)
    storage_key: Path | None = None
    storage_known_hosts: Path | None = None
    url: str = attrs.field(default="", validator=_https_url_or_none)
    max_file_size: int = attrs.field(default=64 * _GIB, validator=_at_least(1))
    max_request_size: int = attrs.field(default=64 * _GIB, validator=_at_least(1))
    max_repository_size: int = attrs.field(default=1024 * _GIB, validator=_at_least(1))
    max_user_size: int = attrs.field(default=0, validator=_at_least(0))


@attrs.frozen(kw_only=True)
class SchedulerSection:
    """`[scheduler]`: its certificate for other servers, and its times in seconds.

    The record of a deleted job is kept for `record_days`, that of one that is there for as long as it is.
    """

    certificate: Path
    private_key: Path
    interval: int = attrs.field(default=60, validator=_at_least(1))
    pulse_timeout: int = attrs.field(default=3600, validator=_at_least(10))
    record_days: int = attrs.field(default=400, validator=_at_least(1))


@attrs.frozen(kw_only=True)
class LimitsSection:
    """`[limits]`: what one call may ask for; times in seconds.

    `work_wait` is how long a resource may wait for work in one call, `job_wait` how long a user for a change of his
    jobs, 0 if not at all; `waiting` is how many resources may do so, and how many users. Of `requests` and `waiting`
    each process has its part.
    """

    work_default: int = attrs.field(default=32, validator=_at_least(1))
    work_maximum: int = attrs.field(default=256, validator=_at_least(1))
    list_default: int = attrs.field(default=128, validator=_at_least(1))
    list_maximum: int = attrs.field(default=4096, validator=_at_least(1))
    lock_wait: int = attrs.field(default=30, validator=_at_least(0))
    back_off: int = attrs.field(default=10, validator=_at_least(1))
    requests: int = attrs.field(default=256, validator=_at_least(1))
    work_wait: int = attrs.field(default=240, validator=_at_least(0, 1200))
    job_wait: int = attrs.field(default=240, validator=_at_least(0, 1200))
    waiting: int = attrs.field(default=4096, validator=_at_least(1))


@attrs.frozen(kw_only=True)
class ProjectSection:
    """`[projects.NAME]`: one project that this server serves."""

    database: str = attrs.field(repr=lambda _value: "'…'", validator=min_len(1))
    threads: int = attrs.field(default=8, validator=_at_least(1, 256))


@attrs.frozen(kw_only=True)
class LoggingSection:
    """`[log]`: how much is logged.

    `access` is a file of its own for the lines of requests. Calls that take more than `slow_call` seconds are told
    of, 0 for none.
    """

    level: str = attrs.field(default="info", validator=in_(("debug", "info", "warn", "error")))
    access: Path | None = None
    slow_call: float = attrs.field(default=1.0, validator=_seconds)


@attrs.frozen(kw_only=True)
class MetricsSection:
    """`[metrics]`: where Prometheus may ask, in plain HTTP, such as `127.0.0.1:9464`; nowhere by default."""

    listen: str = attrs.field(default="", validator=_listen)


@attrs.frozen(kw_only=True)
class ServerConfig:
    """A whole configuration file."""

    server: ServerSection
    repository: RepositorySection
    scheduler: SchedulerSection
    projects: dict[str, ProjectSection]
    limits: LimitsSection = LimitsSection()
    log: LoggingSection = LoggingSection()
    metrics: MetricsSection = MetricsSection()


def processes_of(config: ServerConfig) -> int:
    """How many processes serve: what is configured, or one for each core, but one where a database is SQLite."""
    if config.server.processes:
        return config.server.processes
    if any(section.database.startswith("sqlite") for section in config.projects.values()):
        return 1
    return min(len(os.sched_getaffinity(0)), MOST_BY_DEFAULT)


class _Reader:
    """Turns tables into values, collecting every mistake as `section.key: what is wrong`."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self.mistakes: list[str] = []

    def section(self, kind: type, table: Any, place: str) -> Any:
        """A value of an attrs class, or None after mistakes."""
        if not isinstance(table, dict):
            self._wrong(place, "a table is needed")
            return None
        before = len(self.mistakes)
        values: dict[str, Any] = {}
        for field in attrs.fields(attrs.resolve_types(kind)):
            where = f"{place}.{field.name}" if place else field.name
            if field.name in table:
                values[field.name] = self._value(field, table[field.name], where)
            elif isinstance(field.default, Path):
                values[field.name] = self._base / field.default
            elif field.default is attrs.NOTHING:
                self._wrong(where, f"{field.name} is missing")
        unknown = sorted(set(table) - {field.name for field in attrs.fields(kind)})
        if unknown:
            self._wrong(place or "top level", f"unknown: {', '.join(unknown)}")
        return kind(**values) if len(self.mistakes) == before else None

    def _value(self, field: attrs.Attribute[Any], value: Any, place: str) -> Any:
        if field.type is not None and attrs.has(field.type):
            return self.section(field.type, value, place)
        if get_origin(field.type) is dict:
            if not isinstance(value, dict):
                return self._wrong(place, "a table of tables is needed")
            kind = get_args(field.type)[1]
            return {name: self.section(kind, table, f"{place}.{name}") for name, table in value.items()}
        # What is masked in a configuration is not shown in its mistakes either.
        shown = repr(value) if field.repr is True else "this"
        if field.type in (Path, Path | None):
            if not isinstance(value, str) or not value:
                return self._wrong(place, f"a path is needed, not {shown}")
            return self._base / value
        if field.type is float and type(value) is int:
            value = float(value)
        if type(value) is not field.type:
            return self._wrong(place, f"{_KINDS[field.type]} is needed, not {shown}")
        if field.validator is not None:
            try:
                field.validator(None, field, value)
            except ValueError as problem:
                return self._wrong(place, str(problem.args[0]))
        return value

    def _wrong(self, place: str, mistake: str) -> None:
        self.mistakes.append(f"{place}: {mistake}")


def load_config(file: Path) -> ServerConfig:
    """Read and check a configuration file; raises ConfigError with every mistake in it."""
    try:
        data = tomllib.loads(file.read_text("utf-8"))
    except OSError as problem:
        raise ConfigError(f"{file}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(f"{file}: {problem}") from None
    reader = _Reader(file.parent.resolve())
    config = reader.section(ServerConfig, data, "")
    if not isinstance(config, ServerConfig):
        raise ConfigError("\n".join(f"{file}: {mistake}" for mistake in reader.mistakes))
    if config.repository.storage != LOCAL and config.repository.storage_known_hosts is None:
        raise ConfigError(
            f"{file}: repository.storage_known_hosts: the file with the keys of that machine is missing"
        )
    if not config.projects:
        raise ConfigError(f"{file}: [projects.NAME]: at least one project is needed")
    projects = {
        name: attrs.evolve(section, database=_anchored(section.database, file.parent.resolve()))
        for name, section in config.projects.items()
    }
    return attrs.evolve(config, projects=projects)


def _anchored(url: str, base: Path) -> str:
    """A database URL whose SQLite file, if it is one with a relative path, counts from `base`."""
    kind, separator, path = url.partition(":///")
    if kind == "sqlite" and separator and path and not path.startswith("/"):
        return f"sqlite:///{(base / path).resolve()}"
    return url
