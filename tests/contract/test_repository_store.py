"""The contract of repository backends, on the local file system and on a real sshd."""

from __future__ import annotations

from lgi.repository.local import LocalStore
from lgi.repository.store import Store
from tests.contract import remote, repository_store


class LocalStoreTests(repository_store.StoreContract):
    """On the local file system."""

    def make_store(self) -> Store:
        return LocalStore(root=self.root, spool=self.spool)


class RemoteStoreTests(remote.RemoteCase, repository_store.StoreContract):
    """Over SSH."""
