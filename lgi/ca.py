"""The private certificate authority of a project: create, issue, revoke, list.

Everything lives in one folder that only its owner may enter: `ca.key`, `ca.crt`, `crl.pem`, and each issued
certificate as `issued/SERIAL.crt`. Private keys of issued certificates are handed out and never kept.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Self, cast, get_args

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Kind = Literal["user", "resource", "server"]
Clock = Callable[[], datetime]

COMMON_NAME_BYTES = 64  # X.520, ub-common-name; libraries count the UTF-8 bytes
AUTHORITY_LIFE = timedelta(days=20 * 365 + 5)
CRL_LIFE = timedelta(days=10 * 365 + 2)  # a project without revocations must not stop working
BACKDATE = timedelta(minutes=5)  # the clocks of users and resources are not those of the authority

_FILES = ("ca.key", "ca.crt", "crl.pem", "issued")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z)({_LABEL}\.)*(?!\d+\Z){_LABEL}")  # a last label of digits is a bad address
_SERIAL = re.compile(r"(0x)?[0-9a-fA-F]+(:[0-9a-fA-F]+)*")


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


Entries = list[Entry]  # within the authority, `list` is its method


def utc_now() -> datetime:
    """The time now, aware."""
    return datetime.now(UTC)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's DER form, as 64 lower case hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def write_file(path: Path, data: bytes, *, mode: int) -> None:
    """Put `data` at `path` whole or not at all, on disk when this returns, never readable beyond `mode`.

    Replaces what is there. Writers of one path must hold a lock of their own. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)  # left by a crash: nothing refers to it
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _naming_files(path: Path) -> Iterator[None]:
    """Turn an operating system's error into one line of ours."""
    try:
        yield
    except OSError as error:
        raise AuthorityError(f"{error.filename2 or error.filename or path}: {error.strerror}") from error


def _checked(what: str, text: str, *, reserved: bool = False) -> str:
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


def _checked_all(what: str, texts: Sequence[str]) -> tuple[str, ...]:
    checked = tuple(_checked(what, text) for text in texts)
    for text in checked:
        if checked.count(text) > 1:
            raise AuthorityError(f"{what} {text!r} is given twice")
    return checked


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.replace("%", " ")))  # no zone of one machine's interfaces
    except ValueError:
        if not _HOST_NAME.fullmatch(host.lower()):
            raise AuthorityError(f"host {host!r} is neither a host name nor an IP address") from None
        return x509.DNSName(host.lower())


def _common_name(*parts: str) -> str:
    """`name`, `name; projects` or `name; groups; projects` (LGI 1.41, Certificates)."""
    text = "; ".join(parts)
    if (size := len(text.encode())) > COMMON_NAME_BYTES:
        shorten = ("the name", "the name or the projects", "the name, the groups or the projects")[len(parts) - 1]
        raise AuthorityError(
            f"common name {text!r} takes {size} bytes, X.509 allows {COMMON_NAME_BYTES}: shorten {shorten}"
        )
    return text


def _builder(
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


def _key_usage(*used: str) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{usage: usage in used for usage in every.split()})


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@attrs.frozen(kw_only=True)
class CertificateAuthority:
    """The authority in `directory`; made by `create` or `open`, and safe to use from several processes at once.

    Every method raises AuthorityError, having changed nothing, where it cannot do what it is asked.
    """

    directory: Path
    certificate: x509.Certificate
    clock: Clock
    _key: ec.EllipticCurvePrivateKey = attrs.field(repr=False, alias="key")

    @classmethod
    def create(cls, directory: Path, *, organisation: str, clock: Clock = utc_now) -> Self:
        """Make a new authority; `directory` must be absent or empty, the folder above it must exist.

        It is built beside its place and moved there when it is whole, so that a crash leaves no authority at all.
        """
        name = f"{_checked('organisation', organisation)} certificate authority"
        if len(name.encode()) > COMMON_NAME_BYTES:
            raise AuthorityError(f"organisation {organisation!r}: too long, the authority's name is {name!r}")
        with _naming_files(directory):
            if directory.exists() and (found := sorted(path.name for path in directory.iterdir())):
                missing = [file for file in _FILES if file not in found]
                state = f"holds {', '.join(found)} but not {', '.join(missing)}" if missing else "holds an authority"
                raise AuthorityError(f"{directory}: already {state}; nothing is overwritten")
            partial = directory.with_name(f"{directory.name}.partial")
            try:
                partial.mkdir(mode=0o700)
            except FileExistsError:
                raise AuthorityError(
                    f"{partial}: half-made authority of an interrupted creation that issued nothing; remove it"
                ) from None
            try:
                cls._fill(partial, organisation, name, clock)
                partial.rename(directory)
                _sync_folder(directory.parent)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        return cls.open(directory, clock=clock)

    @classmethod
    def _fill(cls, folder: Path, organisation: str, name: str, clock: Clock) -> None:
        # P-256 rather than RSA: a signature, the dear part of a handshake at both ends, costs a tenth of RSA-2048's,
        # and whatever speaks TLS 1.2, the least we accept, has it (OpenSSL since 1.0.1).
        key = ec.generate_private_key(ec.SECP256R1())
        now = clock().replace(microsecond=0)
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        certificate = (
            _builder(subject, key.public_key(), now, AUTHORITY_LIFE)
            .issuer_name(subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_file(folder / "ca.key", _key_pem(key), mode=0o600)
        write_file(folder / "ca.crt", _certificate_pem(certificate), mode=0o644)
        authority = cls(directory=folder, certificate=certificate, clock=clock, key=key)
        write_file(folder / "crl.pem", authority._signed_crl(1, []), mode=0o644)
        (folder / "issued").mkdir(mode=0o700)
        _sync_folder(folder)

    @classmethod
    def open(cls, directory: Path, *, clock: Clock = utc_now) -> Self:
        """Open an existing authority; says which file is missing, cannot be read or does not belong to the others."""
        with _naming_files(directory):
            if not directory.is_dir():
                raise AuthorityError(f"{directory}: no certificate authority there")
            if missing := [file for file in _FILES if not (directory / file).exists()]:
                raise AuthorityError(f"{directory}: half-made or damaged authority, without {', '.join(missing)}")
            certificate_data, key_data = (directory / "ca.crt").read_bytes(), (directory / "ca.key").read_bytes()
        try:
            certificate = x509.load_pem_x509_certificate(certificate_data)
        except ValueError as error:
            raise AuthorityError(f"{directory / 'ca.crt'}: not a certificate in PEM format") from error
        try:
            key = serialization.load_pem_private_key(key_data, None)
        except (ValueError, TypeError) as error:
            raise AuthorityError(f"{directory / 'ca.key'}: not an unencrypted private key in PEM format") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise AuthorityError(f"{directory / 'ca.key'}: does not belong to {directory / 'ca.crt'}")
        authority = cls(directory=directory, certificate=certificate, clock=clock, key=key)
        authority._crl()
        return authority

    @property
    def certificate_pem(self) -> bytes:
        """What everybody who trusts this authority needs."""
        return _certificate_pem(self.certificate)

    @property
    def certificate_file(self) -> Path:
        """The authority's certificate, PEM."""
        return self.directory / "ca.crt"

    @property
    def crl_file(self) -> Path:
        """The signed list of what is revoked, PEM; replaced at each revocation."""
        return self.directory / "crl.pem"

    def issue_user(self, name: str, *, groups: Sequence[str], projects: Sequence[str], days: int = 730) -> Issued:
        """A certificate for a user or an application interface: `name; groups; projects`, valid for `days`."""
        parts = [_checked("user name", name, reserved=True)]
        if groups:  # without them the second part is the projects
            parts.append(", ".join(_checked_all("group", groups)))
        parts.append(self._projects(projects))
        return self._issue("user", name, _common_name(*parts), days, None)

    def issue_resource(self, name: str, *, projects: Sequence[str], days: int = 730) -> Issued:
        """A certificate for a resource, or for a project server's scheduler: `name; projects`, valid for `days`."""
        _checked("resource name", name, reserved=True)
        return self._issue("resource", name, _common_name(name, self._projects(projects)), days, None)

    def issue_server(
        self, name: str, *, hosts: Sequence[str], projects: Sequence[str] = (), days: int = 730
    ) -> Issued:
        """A project server's own TLS certificate: `name` alone, unless it is given projects, valid for `days`.

        `hosts` are the names and IP addresses under which clients reach it; a `name` without `@` is one of them.
        """
        _checked("server name", name, reserved=True)
        names = [_alternative_name(host) for host in (*(() if "@" in name else (name,)), *hosts)]
        if not names:
            raise AuthorityError(f"server {name!r} needs a host name or an IP address under which clients reach it")
        common_name = _common_name(name, self._projects(projects)) if projects else _common_name(name)
        return self._issue("server", name, common_name, days, x509.SubjectAlternativeName(list(dict.fromkeys(names))))

    @staticmethod
    def _projects(projects: Sequence[str]) -> str:
        if not projects:
            raise AuthorityError("at least one project is needed")
        return ", ".join(_checked_all("project", projects))

    def _issue(
        self, kind: Kind, name: str, common_name: str, days: int, hosts: x509.SubjectAlternativeName | None
    ) -> Issued:
        with self._locked():
            now = self.clock().replace(microsecond=0)
            left = (self.certificate.not_valid_after_utc - now).days
            if not 1 <= days <= left:
                raise AuthorityError(
                    f"{name}: {days} days of validity, from 1 to {left} can be given before the authority ends"
                )
            key = ec.generate_private_key(ec.SECP256R1())
            organisation = self.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
            subject = x509.Name(
                [
                    *organisation,
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, kind),
                    x509.NameAttribute(NameOID.COMMON_NAME, common_name),
                ]
            )
            usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
            if kind == "server":  # servers are clients of one another
                usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
            builder = (
                _builder(subject, key.public_key(), now, timedelta(days=days))
                .issuer_name(self.certificate.subject)
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(_key_usage("digital_signature"), critical=True)
                .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
                .add_extension(self._identifier(), critical=False)
            )
            if hosts is not None:
                builder = builder.add_extension(hosts, critical=False)
            certificate = builder.sign(self._key, hashes.SHA256())
            # In the books first: a certificate that is not in them could never be revoked by its name.
            path = self.directory / "issued" / f"{certificate.serial_number:x}.crt"
            write_file(path, _certificate_pem(certificate), mode=0o644)
        return Issued(
            kind=kind,
            name=name,
            common_name=common_name,
            serial=certificate.serial_number,
            certificate_pem=_certificate_pem(certificate),
            key_pem=_key_pem(key),
            authority_pem=self.certificate_pem,
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )

    def list(self) -> Entries:
        """Everything issued, oldest first."""
        revoked = {entry.serial_number: entry.revocation_date_utc for entry in self._crl()}
        with _naming_files(self.directory):
            entries = [self._entry(path, revoked) for path in (self.directory / "issued").glob("*.crt")]
        return sorted(entries, key=lambda entry: (entry.not_before, entry.serial))

    def revoke(self, selector: str) -> Entries:
        """Revoke all valid certificates of a name, or the one with this serial number (hexadecimal, `:` allowed).

        Returns what it revoked. Nothing to revoke, since unknown, expired or revoked before, is an AuthorityError.
        """
        with self._locked():
            now = self.clock().replace(microsecond=0)
            books = self.list()
            found = [entry for entry in books if entry.name == selector]
            chosen = [entry for entry in found if entry.revoked_at is None and entry.not_after > now]
            if not found and _SERIAL.fullmatch(selector):
                serial = int(selector.replace(":", ""), 16)
                found = [entry for entry in books if entry.serial == serial]
                chosen = [entry for entry in found if entry.revoked_at is None]
            if not found:
                raise AuthorityError(f"{selector}: no certificate with this name or serial number was issued")
            if not chosen:
                revoked = sum(entry.revoked_at is not None for entry in found)
                raise AuthorityError(
                    f"{selector}: nothing to revoke, {revoked} already revoked and {len(found) - revoked} expired"
                )
            old = self._crl()
            new = [x509.RevokedCertificateBuilder(entry.serial, now).build() for entry in chosen]
            number = old.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            write_file(self.crl_file, self._signed_crl(number + 1, [*old, *new]), mode=0o644)
        return [attrs.evolve(entry, revoked_at=now) for entry in chosen]

    def _entry(self, path: Path, revoked: dict[int, datetime]) -> Entry:
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            [common_name] = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            [unit] = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        except ValueError as error:
            raise AuthorityError(f"{path}: not a certificate of this authority") from error
        if unit.value not in get_args(Kind):
            raise AuthorityError(f"{path}: certificate of unknown kind {unit.value!r}")
        return Entry(
            serial=certificate.serial_number,
            kind=cast(Kind, unit.value),
            name=str(common_name.value).split(";")[0].strip(),
            common_name=str(common_name.value),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            revoked_at=revoked.get(certificate.serial_number),
        )

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())

    def _crl(self) -> x509.CertificateRevocationList:
        with _naming_files(self.crl_file):
            data = self.crl_file.read_bytes()
        try:
            crl = x509.load_pem_x509_crl(data)
        except ValueError as error:
            raise AuthorityError(f"{self.crl_file}: not a revocation list in PEM format") from error
        if not crl.is_signature_valid(self._key.public_key()):
            raise AuthorityError(f"{self.crl_file}: not signed by {self.certificate_file}")
        return crl

    def _signed_crl(self, number: int, revoked: Sequence[x509.RevokedCertificate]) -> bytes:
        now = self.clock().replace(microsecond=0)
        builder = (
            x509.CertificateRevocationListBuilder(revoked_certificates=list(revoked))
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATE)
            .next_update(now + CRL_LIFE)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._identifier(), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process and one thread at a time; the lock ends with its holder, however that ends."""
        with _naming_files(self.directory):
            descriptor = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield
            finally:
                os.close(descriptor)
