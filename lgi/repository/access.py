"""Who may change a repository's files: its access file, and the list of the project's resources.

LGI 1.41, Repositories. Both are comma-separated lists of names, matched against the certificate.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lgi.access import matches
from lgi.identity import Identity
from lgi.lists import decode_list, encode_list

ACCESS_FILE = ".LGI_repository_write_access"
RESOURCE_LIST = ".LGI_repository_resource_list"


def encode_access(names: Iterable[str]) -> bytes:
    """The content of an access file or a resource list."""
    return encode_list(names).encode()


def may_change(identity: Identity, repository: Path, root: Path) -> bool:
    """Whether the holder of a certificate may upload to and delete from a repository.

    A missing list allows nobody: until the scheduler has written the list of resources, none of them may.
    """
    if matches(identity.names, _names(repository / ACCESS_FILE)):
        return True
    # A resource is in this list by its own name; groups of a user certificate do not make one a resource.
    return identity.name in _names(root / RESOURCE_LIST)


def _names(file: Path) -> tuple[str, ...]:
    try:
        return decode_list(file.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return ()
