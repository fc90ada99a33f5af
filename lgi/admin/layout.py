"""Where things are under a project's directory."""

from __future__ import annotations

from pathlib import Path

import attrs


class AdminError(Exception):
    """What cannot be done and why, in one line."""


@attrs.frozen
class Layout:
    """The paths of a project that `lgi init` made at `root`."""

    root: Path

    @property
    def authority(self) -> Path:
        """The certificate authority."""
        return self.root / "ca"

    @property
    def config(self) -> Path:
        """The server's configuration file."""
        return self.root / "etc" / "lgi-server.toml"

    @property
    def server(self) -> Path:
        """Certificates and keys of this server and its scheduler."""
        return self.root / "server"

    @property
    def repository(self) -> Path:
        """The files of jobs."""
        return self.root / "repository"

    def user(self, name: str) -> Path:
        """A user's configuration directory; raises AdminError for a name that cannot be one directory's."""
        return self.root / "users" / _checked(name)

    def resource(self, name: str) -> Path:
        """What is handed to the administrator of a resource; raises AdminError like `user`."""
        return self.root / "resources" / _checked(name)

    def issued_server(self, name: str) -> Path:
        """Certificate and key of another server; raises AdminError like `user`."""
        return self.root / "servers" / _checked(name)


def _checked(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or not name.isprintable():
        raise AdminError(f"{name!r} cannot be the name of a user, a resource or a server")
    return name


def existing(root: Path) -> Layout:
    """The layout of a project that is there; raises AdminError."""
    layout = Layout(root.resolve())
    if not layout.config.is_file() or not layout.authority.is_dir():
        raise AdminError(f"{root} is not the directory of a project; make one with: lgi init {root}")
    return layout
