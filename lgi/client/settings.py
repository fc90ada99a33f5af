"""A user's configuration directory, `~/.LGI` (LGI 1.41, Basic command-line interface).

One value in a file: `certificate`, `privatekey`, `ca_chain`, `defaultserver`, `defaultproject`, `defaultapplication`,
`defaulttargetresources`, `defaultjobspecifics`, `user`, `groups`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import attrs

from lgi.lists import ANY, decode_list

CREDENTIAL_FILES = ("certificate", "privatekey", "ca_chain")


class SettingsError(Exception):
    """What is missing or unreadable, all of it, in one message."""


@attrs.frozen(kw_only=True)
class UserSettings:
    """The values of a configuration directory."""

    directory: Path
    certificate: Path
    privatekey: Path
    ca_chain: Path
    server: str
    project: str
    user: str
    groups: tuple[str, ...]
    application: str = ""
    target_resources: tuple[str, ...] = (ANY,)
    job_specifics: str = ""


def is_server_url(text: str) -> bool:
    """Whether `text` is an https:// address with a host, and a port that is a number if there is one."""
    try:
        parts = urlsplit(text)
        return parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and not text.split()[1:]
    except ValueError:
        return False


def read_settings(directory: Path, *, server: str = "", project: str = "") -> UserSettings:
    """Read a configuration directory; `server` and `project`, if given, go before what it says.

    Raises SettingsError naming every mistake in it.
    """
    mistakes: list[str] = []
    try:
        names = {entry.name for entry in directory.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        raise SettingsError(
            f"there is no configuration directory {directory}; your project's administrator issues one "
            "(lgi ca issue user …), copy it there or name it with --config"
        ) from None
    except OSError as problem:
        raise SettingsError(f"{directory} cannot be read: {problem.strerror}") from None

    def value(name: str, *, needed: bool) -> str:
        path = directory / name
        if name not in names:
            if needed:
                mistakes.append(f"{path} is missing")
            return ""
        try:
            text = path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            mistakes.append(f"{path} cannot be read: {getattr(problem, 'strerror', None) or 'it is not UTF-8 text'}")
            return ""
        if needed and not text:
            mistakes.append(f"{path} is empty")
        return text

    mistakes.extend(f"{directory / name} is missing" for name in CREDENTIAL_FILES if name not in names)
    origin = "--server" if server else str(directory / "defaultserver")
    server = server or value("defaultserver", needed=True)
    if server and not is_server_url(server):
        mistakes.append(f"{origin} has {server!r}, which is no https:// address")
    settings = UserSettings(
        directory=directory,
        certificate=directory / "certificate",
        privatekey=directory / "privatekey",
        ca_chain=directory / "ca_chain",
        server=server,
        project=project or value("defaultproject", needed=True),
        user=value("user", needed=True),
        groups=decode_list(value("groups", needed=True)),
        application=value("defaultapplication", needed=False),
        target_resources=decode_list(value("defaulttargetresources", needed=False)) or (ANY,),
        job_specifics=value("defaultjobspecifics", needed=False),
    )
    if mistakes:
        raise SettingsError("; ".join(mistakes))
    return settings
