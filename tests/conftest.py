"""What all tests share under pytest."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test's temporary files (trial makes them in the current directory) stay out of the tree."""
    monkeypatch.chdir(tmp_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no core waits for another at the end."""
    items.sort(key=lambda item: "/integration/" not in item.nodeid)
