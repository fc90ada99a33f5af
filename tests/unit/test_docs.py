"""The documents say what is there."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]


class DocumentTests(SynchronousTestCase):
    """README and docs against the tree."""

    def test_architecture_names_every_part_of_the_package_and_no_other(self) -> None:
        told = set(re.findall(r"`lgi/(\w+(?:\.py|/))`", (ROOT / "docs/architecture.md").read_text("utf-8")))
        there = {
            f"{path.name}/" if path.is_dir() else path.name
            for path in (ROOT / "lgi").iterdir()
            if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
        } - {"__init__.py"}
        self.assertEqual(told, there)

    def test_links_lead_somewhere(self) -> None:
        for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
            for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text("utf-8")):
                self.assertTrue((document.parent / target).exists(), f"{document.name}: {target}")

    def test_every_dependency_has_its_reason_in_both_places(self) -> None:
        readme = (ROOT / "README.md").read_text("utf-8").lower()
        lines = re.findall(
            r'^    "([A-Za-z0-9_-]+)[^"]*",(.*)$', (ROOT / "setup.py").read_text("utf-8"), re.MULTILINE
        )
        self.assertGreater(len(lines), 20)
        for name, comment in lines:
            self.assertIn("# ", comment, name)
            if name not in ("lxml-stubs", "mypy-zope") and not name.startswith("types-"):
                self.assertIn(name.lower(), readme, name)
