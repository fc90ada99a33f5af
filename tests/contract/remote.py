"""What tests with a store on the repository server need."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from lgi.repository.remote import RemoteStore
from lgi.repository.store import Store
from tests.contract import repository_store, sshd


class RemoteCase(repository_store.StoreCase):
    """A store over SSH, in a folder of this machine."""

    key: sshd.Key = sshd.private_key()

    def make_store(self) -> Store:
        self.addCleanup(shutil.rmtree, self.root)  # big files among them
        self.server = sshd.running()
        self.server.authorized_keys.write_text(f"{sshd.public_line(self.key)}\n")
        return self.remote()

    def remote(
        self,
        *,
        key: Path | None = None,
        known_hosts: Path | None = None,
        patience: float = 20.0,
        connect_seconds: float = 10.0,
        root: Path | None = None,
    ) -> RemoteStore:
        """A store with a connection of its own."""
        store = RemoteStore(
            host=sshd.HOST,
            port=self.server.port,
            user=self.server.user,
            directory=PurePosixPath(root or self.root),
            private_key=key or sshd.write_key(self.key, self.folder / "server.key"),
            known_hosts=known_hosts or self.server.known_hosts,
            patience=patience,
            connect_seconds=connect_seconds,
        )
        self.addCleanup(store.close)
        return store
