"""Digests of whole files in headers (RFC 9530): `Repr-Digest: sha-256=:BASE64:`."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from pathlib import Path

from twisted.web.http_headers import Headers

from lgi.httpd.refusal import Refused
from lgi.repository.store import OpenFile

REPR_DIGEST = "Repr-Digest"
_SHA_256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;[^,]*)?(?=,|$)")
_WANTED = re.compile(r"(?:^|,)\s*sha-256\s*(?:=\s*(\d{1,2}))?\s*(?=,|$)")
_PIECE = 1024 * 1024


def announced_digest(headers: Headers) -> bytes | None:
    """The SHA-256 that the file is said to have, None if nothing is said; raises Refused for what is no digest."""
    values = headers.getRawHeaders(b"repr-digest")
    if not values:
        return None
    found = _SHA_256.search(b", ".join(values).decode("latin-1"))
    if found is None:
        raise Refused(400, f"of {REPR_DIGEST} this server knows sha-256=:BASE64: alone")
    try:
        digest = base64.b64decode(found[1], validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise Refused(400, f"{REPR_DIGEST} is no SHA-256 in base64")
    return digest


def is_wanted(headers: Headers) -> bool:
    """Whether the digest of a file is asked for."""
    found = _WANTED.search(b", ".join(headers.getRawHeaders(b"want-repr-digest", [])).decode("latin-1"))
    return found is not None and found[1] != "0"


def encode_digest(digest: bytes) -> str:
    """The header's value."""
    return f"sha-256=:{base64.b64encode(digest).decode()}:"


def digest_of(file: OpenFile) -> bytes:
    """The SHA-256 of a whole file; blocks, raises OSError."""
    summed, offset = hashlib.sha256(), 0
    while data := file.read_at(offset, _PIECE):
        summed.update(data)
        offset += len(data)
    return summed.digest()


def digest_of_path(path: Path) -> bytes:
    """The SHA-256 of a file that has been received; blocks, raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def check_digest(found: bytes | None, announced: bytes | None) -> None:
    """Raise Refused where a file is not what its sender said."""
    if announced is not None and found is not None and found != announced:
        raise Refused(422, f"what arrived has the digest {encode_digest(found)}, not that of {REPR_DIGEST}")
