"""A project in a temporary directory, made as `lgi init` makes it."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lgi.admin.layout import Layout
from lgi.admin.project import NewProject, make_project


class AdminCase(SynchronousTestCase):
    """Each test has a directory of its own."""

    def setUp(self) -> None:
        """Make the directory."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.root = self.folder / "grid"

    def new(self, **changes: Any) -> NewProject:
        """What `lgi init` would be told."""
        values: dict[str, Any] = {"directory": self.root, "project": "LGI", "host": "grid.example.org", "port": 8443}
        return NewProject(**values | changes)

    def make(self, **changes: Any) -> Layout:
        """Make a project."""
        return make_project(self.new(**changes))

    def files(self, folder: Path | None = None) -> set[str]:
        """All files below a directory, by their relative paths."""
        root = folder or self.folder
        return {str(path.relative_to(root)) for path in root.rglob("*")}

    def mode(self, path: Path) -> int:
        """The permissions of a file."""
        return stat.S_IMODE(path.stat().st_mode)
