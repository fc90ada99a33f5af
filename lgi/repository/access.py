"""Who may change a repository's files: its access file, and the list of the project's resources.

LGI 1.41, Repositories. Both are comma-separated lists of names, matched against the certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lgi.access import matches
from lgi.identity import Identity
from lgi.lists import encode_list
from lgi.repository.store import Store

ACCESS_FILE = ".LGI_repository_write_access"
RESOURCE_LIST = ".LGI_repository_resource_list"


def encode_access(names: Iterable[str]) -> bytes:
    """The content of an access file or a resource list."""
    return encode_list(names).encode()


def may_change(identity: Identity, writers: Sequence[str], store: Store) -> bool:
    """Whether the holder of a certificate may upload to and delete from a repository that these may change.

    Blocks, raises OSError. A missing list allows nobody: until the scheduler has written the list of resources, none
    of them may.
    """
    if matches(identity.names, writers):
        return True
    # A resource is in this list by its own name; groups of a user certificate do not make one a resource.
    return identity.name in store.resources()
