"""A user's configuration directory, `~/.LGI` (LGI 1.41, Basic command-line interface).

One value in a file: `certificate`, `privatekey`, `ca_chain`, `defaultserver`, `defaultproject`, `defaultapplication`,
`defaulttargetresources`, `defaultjobspecifics`, `user`, `groups`.
"""

from __future__ import annotations

from pathlib import Path

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


def read_settings(directory: Path) -> UserSettings:
    """Read a configuration directory; raises SettingsError naming every mistake in it."""
    mistakes: list[str] = []
    if not directory.is_dir():
        raise SettingsError(
            f"there is no configuration directory {directory}; your project's administrator issues one "
            "(lgi ca issue user …), copy it there or name it with --config"
        )

    def value(name: str, *, needed: bool) -> str:
        try:
            return (directory / name).read_text("utf-8").strip()
        except FileNotFoundError:
            if needed:
                mistakes.append(f"{directory / name} is missing")
        except (OSError, UnicodeDecodeError) as problem:
            mistakes.append(f"{directory / name} cannot be read: {getattr(problem, 'strerror', None) or problem}")
        return ""

    for name in CREDENTIAL_FILES:
        if not (directory / name).is_file():
            mistakes.append(f"{directory / name} is missing")
    server = value("defaultserver", needed=True)
    if server and not server.startswith("https://"):
        mistakes.append(f"{directory / 'defaultserver'} has {server!r}, which is no https:// address")
    settings = UserSettings(
        directory=directory,
        certificate=directory / "certificate",
        privatekey=directory / "privatekey",
        ca_chain=directory / "ca_chain",
        server=server,
        project=value("defaultproject", needed=True),
        user=value("user", needed=True),
        groups=decode_list(value("groups", needed=True)),
        application=value("defaultapplication", needed=False),
        target_resources=decode_list(value("defaulttargetresources", needed=False)) or (ANY,),
        job_specifics=value("defaultjobspecifics", needed=False),
    )
    if mistakes:
        raise SettingsError("; ".join(mistakes))
    return settings
