"""A user's ready configuration directory, as `~/.LGI` of the document (LGI 1.41, Example user session)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from lgi.admin.folder import PRIVATE, write_text
from lgi.ca import Issued
from lgi.durable import write_atomically
from lgi.lists import encode_list


def write_user_directory(
    directory: Path, issued: Issued, *, authority: bytes, server: str, project: str, groups: Sequence[str]
) -> None:
    """Fill an existing directory with what a user needs; keys and passwords are 0600."""
    write_credentials(directory, issued)
    write_text(directory / "ca_chain", authority.decode())
    for name, value in {
        "defaultserver": server,
        "defaultproject": project,
        "defaultapplication": "hello_world",
        "defaulttargetresources": "any",
        "user": issued.name,
        "groups": encode_list(groups or [issued.name]),
    }.items():
        write_text(directory / name, value + "\n")


def write_credentials(directory: Path, issued: Issued) -> None:
    """Write or replace certificate, key, and the PKCS12 file for browsers with its password beside it."""
    write_atomically(directory / "privatekey", issued.key_pem, mode=PRIVATE)
    write_text(directory / "certificate", issued.certificate_pem.decode())
    password = secrets.token_urlsafe(12)
    write_atomically(directory / "certificate.p12", issued.pkcs12(password.encode(), issued.name), mode=PRIVATE)
    write_text(directory / "certificate.p12.password", password + "\n", mode=PRIVATE)
