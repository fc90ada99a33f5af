"""What certificates of a project look like: names, hosts, extensions, and a new one with its key."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, cast

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12

Kind = Literal["user", "resource", "server"]
Clock = Callable[[], datetime]

COMMON_NAME_BYTES = 64  # X.520, ub-common-name; libraries count the UTF-8 bytes
BACKDATE = timedelta(minutes=5)  # the clocks of users and resources are not those of the authority

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z)({_LABEL}\.)*(?!\d+\Z){_LABEL}")  # a last label of digits is a bad address


class AuthorityError(Exception):
    """What stops the authority, in one line that names the file or the name concerned and what is wrong with it."""


@attrs.frozen(kw_only=True)
class Issued:
    """A new certificate with its private key (PEM, PKCS8, unencrypted), which exists nowhere else."""

    kind: Kind
    name: str
    common_name: str
    serial: int
    certificate_pem: bytes
    key_pem: bytes = attrs.field(repr=False)
    authority_pem: bytes = attrs.field(repr=False)
    not_before: datetime
    not_after: datetime

    def pkcs12(self, password: bytes | None = None, friendly_name: str | None = None) -> bytes:
        """Certificate, key and the authority's certificate as one PKCS12 file, for a browser.

        Without a password the file is not encrypted; an empty one raises ValueError. `friendly_name` is what the
        browser shows, by default the name.
        """
        key = cast(ec.EllipticCurvePrivateKey, serialization.load_pem_private_key(self.key_pem, None))
        return pkcs12.serialize_key_and_certificates(
            (self.name if friendly_name is None else friendly_name).encode(),
            key,
            x509.load_pem_x509_certificate(self.certificate_pem),
            [x509.load_pem_x509_certificate(self.authority_pem)],
            serialization.NoEncryption() if password is None else serialization.BestAvailableEncryption(password),
        )


@attrs.frozen(kw_only=True)
class Entry:
    """A line in the authority's books; times are aware, in UTC."""

    serial: int
    kind: Kind
    name: str
    common_name: str
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None


def utc_now() -> datetime:
    """The time now, aware."""
    return datetime.now(UTC)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's DER form, as 64 lower case hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def checked_name(what: str, text: str, *, reserved: bool = False) -> str:
    """A name, group or project that survives in a common name, in a comma separated list and as a file name."""
    if not text:
        raise AuthorityError(f"{what} is empty")
    if text != text.strip():
        raise AuthorityError(f"{what} {text!r} begins or ends with a space")
    if not text.isprintable():
        raise AuthorityError(f"{what} {text!r} contains a character that cannot be printed")
    if bad := sorted(set(text) & set(";,/")):
        raise AuthorityError(f"{what} {text!r} contains {bad[0]!r}")
    if text in (".", ".."):
        raise AuthorityError(f"{what} {text!r} is the name of a folder")
    if reserved and text.casefold() == "any":
        raise AuthorityError(f"{what} {text!r} is reserved: it stands for everybody")
    return text


def checked_names(what: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Several of them, each once; raises AuthorityError."""
    checked = tuple(checked_name(what, text) for text in texts)
    for text in checked:
        if checked.count(text) > 1:
            raise AuthorityError(f"{what} {text!r} is given twice")
    return checked


def alternative_name(host: str) -> x509.GeneralName:
    """A host name or an IP address as a server's certificate holds it; raises AuthorityError."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host.replace("%", " ")))  # no zone of one machine's interfaces
    except ValueError:
        if not _HOST_NAME.fullmatch(host.lower()):
            raise AuthorityError(f"host {host!r} is neither a host name nor an IP address") from None
        return x509.DNSName(host.lower())


def common_name_of(*parts: str) -> str:
    """`name`, `name; projects` or `name; groups; projects` (LGI 1.41, Certificates)."""
    text = "; ".join(parts)
    if (size := len(text.encode())) > COMMON_NAME_BYTES:
        shorten = ("the name", "the name or the projects", "the name, the groups or the projects")[len(parts) - 1]
        raise AuthorityError(
            f"common name {text!r} takes {size} bytes, X.509 allows {COMMON_NAME_BYTES}: shorten {shorten}"
        )
    return text


def certificate_builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    """What all our certificates have; the issuer is the caller's."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def key_usage(*used: str) -> x509.KeyUsage:
    """The extension with these usages and no others."""
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{usage: usage in used for usage in every.split()})


def key_pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key in PEM, PKCS8, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_pem_of(certificate: x509.Certificate) -> bytes:
    """A certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)
