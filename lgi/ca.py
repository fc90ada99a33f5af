"""The private certificate authority of a project: create, issue, revoke, list.

Everything lives in one folder that only its owner may enter: `ca.key`, `ca.crt`, `crl.pem`, and each issued
certificate as `issued/SERIAL.crt`. Private keys of issued certificates are handed out and never kept.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self, cast, get_args

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lgi.certificate import (
    BACKDATE,
    COMMON_NAME_BYTES,
    AuthorityError,
    Clock,
    Entry,
    Issued,
    Kind,
    alternative_name,
    certificate_builder,
    certificate_pem_of,
    checked_name,
    checked_names,
    common_name_of,
    fingerprint,
    key_pem_of,
    key_usage,
    utc_now,
)
from lgi.durable import sync, write_atomically

__all__ = ["AuthorityError", "CertificateAuthority", "Entry", "Issued", "fingerprint"]

AUTHORITY_LIFE = timedelta(days=20 * 365 + 5)
CRL_LIFE = timedelta(days=10 * 365 + 2)  # a project without revocations must not stop working
_FILES = ("ca.key", "ca.crt", "crl.pem", "issued")
_SERIAL = re.compile(r"(0x)?[0-9a-fA-F]+(:[0-9a-fA-F]+)*")

Entries = list[Entry]  # within the authority, `list` is its method


@contextmanager
def _naming_files(path: Path) -> Iterator[None]:
    """Turn an operating system's error into one line of ours."""
    try:
        yield
    except OSError as error:
        raise AuthorityError(f"{error.filename2 or error.filename or path}: {error.strerror}") from error


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
        name = f"{checked_name('organisation', organisation)} certificate authority"
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
                sync((directory.parent,))
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
            certificate_builder(subject, key.public_key(), now, AUTHORITY_LIFE)
            .issuer_name(subject)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        write_atomically(folder / "ca.key", key_pem_of(key), mode=0o600)
        write_atomically(folder / "ca.crt", certificate_pem_of(certificate), mode=0o644)
        authority = cls(directory=folder, certificate=certificate, clock=clock, key=key)
        write_atomically(folder / "crl.pem", authority._signed_crl(1, []), mode=0o644)
        (folder / "issued").mkdir(mode=0o700)
        sync((folder,))

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
        return certificate_pem_of(self.certificate)

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
        parts = [checked_name("user name", name, reserved=True)]
        if groups:  # without them the second part is the projects
            parts.append(", ".join(checked_names("group", groups)))
        parts.append(self._projects(projects))
        return self._issue("user", name, common_name_of(*parts), days, None)

    def issue_resource(self, name: str, *, projects: Sequence[str], days: int = 730) -> Issued:
        """A certificate for a resource, or for a project server's scheduler: `name; projects`, valid for `days`."""
        checked_name("resource name", name, reserved=True)
        return self._issue("resource", name, common_name_of(name, self._projects(projects)), days, None)

    def issue_server(
        self, name: str, *, hosts: Sequence[str], projects: Sequence[str] = (), days: int = 730
    ) -> Issued:
        """A project server's own TLS certificate: `name` alone, unless it is given projects, valid for `days`.

        `hosts` are the names and IP addresses under which clients reach it; a `name` without `@` is one of them.
        """
        checked_name("server name", name, reserved=True)
        names = [alternative_name(host) for host in (*(() if "@" in name else (name,)), *hosts)]
        if not names:
            raise AuthorityError(f"server {name!r} needs a host name or an IP address under which clients reach it")
        common_name = common_name_of(name, self._projects(projects)) if projects else common_name_of(name)
        return self._issue("server", name, common_name, days, x509.SubjectAlternativeName(list(dict.fromkeys(names))))

    @staticmethod
    def _projects(projects: Sequence[str]) -> str:
        if not projects:
            raise AuthorityError("at least one project is needed")
        return ", ".join(checked_names("project", projects))

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
                certificate_builder(subject, key.public_key(), now, timedelta(days=days))
                .issuer_name(self.certificate.subject)
                .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                .add_extension(key_usage("digital_signature"), critical=True)
                .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
                .add_extension(self._identifier(), critical=False)
            )
            if hosts is not None:
                builder = builder.add_extension(hosts, critical=False)
            certificate = builder.sign(self._key, hashes.SHA256())
            # In the books first: a certificate that is not in them could never be revoked by its name.
            path = self.directory / "issued" / f"{certificate.serial_number:x}.crt"
            write_atomically(path, certificate_pem_of(certificate), mode=0o644)
        return Issued(
            kind=kind,
            name=name,
            common_name=common_name,
            serial=certificate.serial_number,
            certificate_pem=certificate_pem_of(certificate),
            key_pem=key_pem_of(key),
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
            write_atomically(self.crl_file, self._signed_crl(number + 1, [*old, *new]), mode=0o644)
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
