"""TLS for both ends: who we are, whom we trust, what is revoked, and who the other side is.

Each end shows a certificate of the project's authority (LGI 1.41, Certificates); HTTP/1.1 over TLS 1.2 or later.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

HTTP_1_1 = b"http/1.1"
_log = Logger()


class TLSFileError(Exception):
    """A certificate, key or revocation list that cannot be used: one line with the file and what is wrong with it."""


@attrs.frozen(kw_only=True)
class Credentials:
    """What one end proves itself with; `chain` holds the intermediate certificates that follow in the file."""

    certificate_file: Path
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...] = ()
    key: PrivateKeyTypes = attrs.field(repr=False)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _why_unreadable(path: Path) -> str:
    who = f"not readable by {_user(os.geteuid())}"
    try:
        status = path.stat()
    except OSError:
        return f"{who}, who may not enter a folder above it"
    return f"{who}: it belongs to {_user(status.st_uid)} and has mode {stat.S_IMODE(status.st_mode):04o}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    try:
        with path.open("rb") as file:
            return file.read(), os.fstat(file.fileno())
    except FileNotFoundError as error:
        raise TLSFileError(f"{path}: no such file") from error
    except PermissionError as error:
        raise TLSFileError(f"{path}: {_why_unreadable(path)}") from error
    except OSError as error:
        raise TLSFileError(f"{path}: {error.strerror}") from error


def _certificates(path: Path) -> list[x509.Certificate]:
    data, _ = _read(path)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise TLSFileError(f"{path}: not a certificate in PEM format") from error


def _check_dates(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    if certificate.not_valid_after_utc <= now:
        raise TLSFileError(f"{path}: expired since {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if certificate.not_valid_before_utc > now:
        raise TLSFileError(f"{path}: not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")


def load_credentials(
    certificate_file: Path, key_file: Path, *, clock: Callable[[], datetime] = _utc_now
) -> Credentials:
    """Read a certificate (with its chain, if any) and the private key that belongs to it; PEM, the key unencrypted.

    Raises TLSFileError; logs a warning where others than the owner may read the key. `clock` gives aware times.
    """
    certificate, *chain = _certificates(certificate_file)
    _check_dates(certificate_file, certificate, clock())
    data, status = _read(key_file)
    try:
        key = serialization.load_pem_private_key(data, None)
    except TypeError as error:
        raise TLSFileError(
            f"{key_file}: private key is encrypted, a service cannot ask for its passphrase"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TLSFileError(f"{key_file}: not a private key in PEM format") from error
    if key.public_key() != certificate.public_key():
        raise TLSFileError(f"{key_file}: does not belong to the certificate in {certificate_file}")
    # A job in a sandbox has a group of its own, with its uid's number, and reads by it what root has given it.
    ours = status.st_uid == 0 and 0 < status.st_gid == os.geteuid() == os.getegid()
    if status.st_mode & (stat.S_IROTH if ours else stat.S_IRGRP | stat.S_IROTH):
        _log.warn(
            "{file}: private key readable by others (mode {mode}), make it 0600",
            file=str(key_file),
            mode=f"{stat.S_IMODE(status.st_mode):04o}",
        )
    return Credentials(certificate_file=certificate_file, certificate=certificate, chain=tuple(chain), key=key)


def _load_authorities(ca_file: Path) -> list[x509.Certificate]:
    authorities = _certificates(ca_file)
    now = _utc_now()
    if all(authority.not_valid_after_utc <= now for authority in authorities):
        _check_dates(ca_file, authorities[0], now)
    return authorities


def _settings(credentials: Credentials, authorities: Sequence[x509.Certificate]) -> dict[str, Any]:
    """Arguments of CertificateOptions that both ends share; a trust root also makes the peer's certificate required.

    Key and certificates go in as they are, since TLS contexts have deprecated the pyOpenSSL objects that
    Twisted's own PrivateCertificate carries.
    """
    return {
        "privateKey": credentials.key,
        "certificate": credentials.certificate,
        "extraCertChain": list(credentials.chain),
        "trustRoot": _trust(authorities),
        "raiseMinimumTo": TLSVersion.TLSv1_2,
        "acceptableProtocols": [HTTP_1_1],
    }


def _trust(authorities: Sequence[x509.Certificate]) -> Any:  # an IOpenSSLTrustRoot, which Twisted keeps private
    roots = [Certificate(X509.from_cryptography(one)) for one in authorities]
    return trustRootFromCertificates(roots)  # both untyped in Twisted


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return HTTP_1_1 if HTTP_1_1 in offered else SSL.NO_OVERLAPPING_PROTOCOLS


# SSL_MODE_ENABLE_PARTIAL_WRITE of OpenSSL, which pyOpenSSL sets and gives no name.
_PARTIAL_WRITE = 1


class _ServerOptions(CertificateOptions):
    """A server's side: one context, whose settings nothing above it can widen.

    Sessions are not resumed: daemons keep their connection and tools make only one, and a full handshake looks at the
    certificate's dates each time. A client that offers a session gets that handshake instead of an error, by the
    session id context that Twisted sets.
    """

    def __init__(self, authorities: Sequence[x509.Certificate], **settings: Any) -> None:
        super().__init__(**settings, enableSessions=False, enableSessionTickets=False)
        self._authorities = tuple(authorities)

    def getContext(self) -> SSL.Context:
        """The context, made once."""
        if self._context is None:
            context = super().getContext()
            # A write of many records is one call of OpenSSL.
            context.clear_mode(_PARTIAL_WRITE)
            for authority in self._authorities:
                context.add_client_ca(authority)  # so that a browser offers the right one of its certificates
            # Twisted adds what its Site speaks: HTTP/2 once h2 is installed, which hides the peer certificate.
            context.set_alpn_select_callback(_select_protocol)
        assert self._context is not None
        return self._context


def _checked_context(options: CertificateOptions, credentials: Credentials) -> None:
    """Make the context now, so that what OpenSSL refuses (a short key, say) is known at the start."""
    try:
        options.getContext()
    except SSL.Error as error:
        reasons = ", ".join(reason for *_, reason in error.args[0]) or "no reason given"
        raise TLSFileError(f"{credentials.certificate_file}: refused by OpenSSL: {reasons}") from error


def server_context_factory(credentials: Credentials, ca_file: Path) -> CertificateOptions:
    """What a project server listens with: a client certificate of an authority in `ca_file` is required and verified.

    Raises TLSFileError.
    """
    authorities = _load_authorities(ca_file)
    options = _ServerOptions(authorities, **_settings(credentials, authorities))
    _checked_context(options, credentials)
    return options


@implementer(IOpenSSLClientConnectionCreator)
class _AnyHostName:
    """A client's side that verifies the server's certificate, but not that it is this server's."""

    def __init__(self, options: CertificateOptions, host: str) -> None:
        self._options = options
        self._host = host

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """A connection that names the host to the server as a strict one does."""
        connection = self._options.clientConnectionForTLS(tlsProtocol)
        if not (isIPAddress(self._host) or isIPv6Address(self._host)):
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection


@implementer(IPolicyForHTTPS)
class ClientPolicy:
    """How a client meets project servers: shows its certificate, trusts the authorities in `ca_file` and nobody else.

    The server's certificate must be for the host name or IP address called, unless `strict_hostname` is False
    (LGI 1.41, option -W of the daemon and the tools). Raises TLSFileError when it is made.
    """

    def __init__(self, credentials: Credentials, ca_file: Path, *, strict_hostname: bool = True) -> None:
        self._settings = _settings(credentials, _load_authorities(ca_file))
        self._strict = strict_hostname
        self._options = CertificateOptions(**self._settings)
        _checked_context(self._options, credentials)
        self._creators: dict[str, IOpenSSLClientConnectionCreator] = {}  # a context costs milliseconds

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """What connects to this host; an IPv6 address may have its brackets."""
        host = hostname.decode("ascii").strip("[]")
        if host not in self._creators:
            self._creators[host] = self._creator(host)
        return self._creators[host]

    def _creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        if not self._strict:
            return _AnyHostName(self._options, host)
        settings = dict(self._settings)
        trust, protocols = settings.pop("trustRoot"), settings.pop("acceptableProtocols")
        return optionsForClientTLS(
            host, trustRoot=trust, acceptableProtocols=protocols, extraCertificateOptions=settings
        )


class RevocationList:
    """Which serial numbers the authority has revoked, as the file says now.

    The file is looked at on every question and read when it has changed. A list that cannot be read, is not signed by
    an authority in `ca_file` or is older than the one known never replaces it: the error is logged once for each
    change of the file, and reading is tried again on every question. Raises TLSFileError when it is made.
    """

    def __init__(self, crl_file: Path, ca_file: Path) -> None:
        self._file = crl_file
        self._path = str(crl_file)
        self._authorities = _load_authorities(ca_file)
        self._number = -1
        self._revoked: frozenset[int] = frozenset()
        self._complained: tuple[int, ...] | None = None
        self._seen = self._load()

    def is_revoked(self, serial: int) -> bool:
        """Whether the certificate with this serial number has been revoked; cheap, and never raises."""
        try:
            mark = _mark(os.stat(self._path))  # noqa: PTH116 (asked for each request)
        except OSError:
            mark = ()
        if mark != self._seen:
            self._reload(mark)
        return serial in self._revoked

    def _reload(self, mark: tuple[int, ...]) -> None:
        try:
            self._seen = self._load()
        except TLSFileError as error:
            if mark != self._complained:
                self._complained = mark
                _log.error("{error}; the revocation list known before stays in force", error=error)
        else:
            self._complained = None
            _log.info(
                "{file}: revocation list read, {count} certificates revoked",
                file=str(self._file),
                count=len(self._revoked),
            )

    def _load(self) -> tuple[int, ...]:
        """Take the file's list over, whole or not at all; returns the mark of the file as it was read."""
        data, status = _read(self._file)
        try:
            crl = x509.load_pem_x509_crl(data)
            signed = any(
                crl.issuer == authority.subject and crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
                for authority in self._authorities
            )
            number = _crl_number(crl)
            revoked = frozenset(entry.serial_number for entry in crl)
        except Exception as error:  # cryptography has many kinds for bytes that mean nothing
            raise TLSFileError(f"{self._file}: not a whole revocation list in PEM format") from error
        if not signed:
            raise TLSFileError(f"{self._file}: revocation list not signed by the certificate authority")
        if number < self._number:
            raise TLSFileError(f"{self._file}: revocation list {number} is older than {self._number}")
        self._number, self._revoked = number, revoked
        return _mark(status)


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return status.st_mtime_ns, status.st_ino, status.st_size


def _crl_number(crl: x509.CertificateRevocationList) -> int:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0  # RFC 5280 asks for one, but simple tools leave it out of all their lists


def peer_certificate(transport: object) -> x509.Certificate | None:
    """The certificate the other side has proved to own; None before the handshake and where there is no TLS."""
    get = getattr(transport, "getPeerCertificate", None)
    certificate: X509 | None = None if get is None else get()
    return None if certificate is None else certificate.to_cryptography()


def common_name(certificate: x509.Certificate) -> str:
    """The one common name of a certificate; raises ValueError where it has none or several."""
    names = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if len(names) != 1:
        raise ValueError(f"the certificate has {len(names)} common names, it should have one")
    return names[0]
