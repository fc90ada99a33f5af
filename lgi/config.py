"""The project server's configuration file: TOML into frozen, checked values.

All mistakes are reported at once, each with its file, section and key. Relative paths count from the file's
directory.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import cattrs
from attrs.validators import ge, in_, instance_of, le, matches_re
from cattrs.errors import ClassValidationError, IterableValidationError
from cattrs.v import format_exception

_GIB = 1 << 30


class ConfigError(Exception):
    """Every mistake of a configuration file, a line each."""


def _https_url(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or not parts.path.strip("/"):
        raise ValueError(f"{attribute.name} is an address such as https://host:8443/LGI, not {value!r}")


def _at_least(minimum: int, maximum: int = 1 << 62) -> Any:
    return [instance_of(int), ge(minimum), le(maximum)]


@attrs.frozen(kw_only=True)
class ServerSection:
    """`[server]`: where the server listens, and what it is called from outside."""

    url: str = attrs.field(validator=_https_url)
    port: int = attrs.field(validator=_at_least(0, 65535))
    interface: str = ""
    certificate: Path
    private_key: Path
    ca_certificate: Path
    revoked: Path
    ca_certificate_url: str
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
    """`[scheduler]`: its certificate for other servers, and its times in seconds."""

    certificate: Path
    private_key: Path
    interval: int = attrs.field(default=60, validator=_at_least(1))
    pulse_timeout: int = attrs.field(default=3600, validator=_at_least(10))


@attrs.frozen(kw_only=True)
class LimitsSection:
    """`[limits]`: what one call may ask for; times in seconds."""

    work_default: int = attrs.field(default=32, validator=_at_least(1))
    work_maximum: int = attrs.field(default=256, validator=_at_least(1))
    list_default: int = attrs.field(default=128, validator=_at_least(1))
    list_maximum: int = attrs.field(default=4096, validator=_at_least(1))
    lock_wait: int = attrs.field(default=30, validator=_at_least(0))
    back_off: int = attrs.field(default=10, validator=_at_least(1))
    requests: int = attrs.field(default=256, validator=_at_least(1))


@attrs.frozen(kw_only=True)
class ProjectSection:
    """`[projects.NAME]`: one project that this server serves."""

    database: str = attrs.field(repr=lambda _value: "'…'", validator=matches_re(r".+"))
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


def _explain(problem: BaseException, kind: type | None) -> str:
    if isinstance(problem, KeyError):
        return f"{problem.args[0]} is missing"
    if isinstance(problem, cattrs.ForbiddenExtraKeysError):
        return "unknown: " + ", ".join(sorted(problem.extra_fields))
    if isinstance(problem, (ValueError, TypeError)) and problem.args:
        return str(problem.args[0])
    return format_exception(problem, kind)


def _converter(base: Path) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)

    def exactly(kind: type) -> Any:
        def structure(value: Any, _type: object) -> Any:
            if type(value) is not kind:
                raise ValueError(f"a value of type {kind.__name__} is needed, not {value!r}")
            return value

        return structure

    def path(value: Any, _type: object) -> Path:
        if not isinstance(value, str) or not value:
            raise ValueError(f"a path is needed, not {value!r}")
        return (base / value).resolve()

    converter.register_structure_hook(str, exactly(str))
    converter.register_structure_hook(int, exactly(int))
    converter.register_structure_hook(Path, path)
    return converter


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
    try:
        config = _converter(file.parent.resolve()).structure(data, ServerConfig)
    except (ClassValidationError, IterableValidationError) as problems:
        mistakes = cattrs.transform_error(problems, path="", format_exception=_explain)
        lines = [_placed(file, mistake) for mistake in mistakes]
        raise ConfigError("\n".join(lines)) from None
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


def _placed(file: Path, mistake: str) -> str:
    text, _, place = mistake.rpartition(" @ ")
    keys = [key for key in re.split(r"[.\[\]']+", place) if key] if text else []
    return f"{file}: {'.'.join(keys) or 'top level'}: {text or mistake}"
