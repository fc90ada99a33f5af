"""The project server's configuration file: TOML into frozen, checked values.

All mistakes are reported at once, each with its file, section and key. Relative paths count from the file's
directory.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args, get_origin
from urllib.parse import urlsplit

import attrs
from attrs.validators import ge, in_, instance_of, le, min_len

_GIB = 1 << 30


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


def _at_least(minimum: int, maximum: int = 1 << 62) -> Any:
    return [instance_of(int), ge(minimum), le(maximum)]


@attrs.frozen(kw_only=True)
class ServerSection:
    """`[server]`: where the server listens, and what it is called from outside.

    In `run_directory` the programs of this server meet, see `lgi.bell`.
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


@attrs.frozen(kw_only=True)
class RepositorySection:
    """`[repository]`: where the files of jobs are; `location` is what clients are told, `user@host` style."""

    directory: Path
    location: str
    max_file_size: int = attrs.field(default=64 * _GIB, validator=_at_least(1))
    max_request_size: int = attrs.field(default=64 * _GIB, validator=_at_least(1))


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

    `work_wait` is how long a resource may wait for work in one call, 0 if not at all, `waiting` how many may do so.
    """

    work_default: int = attrs.field(default=32, validator=_at_least(1))
    work_maximum: int = attrs.field(default=256, validator=_at_least(1))
    list_default: int = attrs.field(default=128, validator=_at_least(1))
    list_maximum: int = attrs.field(default=4096, validator=_at_least(1))
    lock_wait: int = attrs.field(default=30, validator=_at_least(0))
    back_off: int = attrs.field(default=10, validator=_at_least(1))
    requests: int = attrs.field(default=256, validator=_at_least(1))
    work_wait: int = attrs.field(default=240, validator=_at_least(0, 1200))
    waiting: int = attrs.field(default=4096, validator=_at_least(1))


@attrs.frozen(kw_only=True)
class ProjectSection:
    """`[projects.NAME]`: one project that this server serves."""

    database: str = attrs.field(repr=lambda _value: "'…'", validator=min_len(1))
    threads: int = attrs.field(default=8, validator=_at_least(1, 256))


@attrs.frozen(kw_only=True)
class LoggingSection:
    """`[log]`: how much is logged."""

    level: str = attrs.field(default="info", validator=in_(("debug", "info", "warn", "error")))


@attrs.frozen(kw_only=True)
class ServerConfig:
    """A whole configuration file."""

    server: ServerSection
    repository: RepositorySection
    scheduler: SchedulerSection
    projects: dict[str, ProjectSection]
    limits: LimitsSection = LimitsSection()
    log: LoggingSection = LoggingSection()


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
        if field.type is Path:
            if not isinstance(value, str) or not value:
                return self._wrong(place, f"a path is needed, not {shown}")
            return self._base / value
        if type(value) is not field.type:
            return self._wrong(place, f"a value of type {getattr(field.type, '__name__', '')} is needed, not {shown}")
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
