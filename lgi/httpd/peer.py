"""Who is calling: the certificate of a request's connection as a value."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any

import attrs
from cryptography.hazmat.primitives.serialization import Encoding

from lgi.errors import ErrorNumber, LGIError
from lgi.identity import Identity, parse_common_name
from lgi.tls import RevocationList, common_name, peer_certificate


@attrs.frozen(kw_only=True)
class Caller:
    """The holder of the certificate of a connection, and the certificate itself in PEM."""

    identity: Identity
    certificate: str = attrs.field(repr=False)


class Peers:
    """Turns connections into callers; what a certificate says is read once for each connection.

    `clock` gives seconds since 1970.
    """

    def __init__(self, revocations: RevocationList, *, clock: Callable[[], float] = time.time) -> None:
        self._revocations = revocations
        self._clock = clock

    def identify(self, transport: Any) -> Caller:
        """The caller on this connection; raises LGIError(CERTIFICATE_REFUSED).

        Checked at every request: a certificate may be revoked or expire while its connection lives.
        """
        known = getattr(transport, "_lgi_caller", None)
        if known is None:
            known = self._read(transport)
            transport._lgi_caller = known
        caller, serial, not_after = known
        if self._revocations.is_revoked(serial):
            raise LGIError(ErrorNumber.CERTIFICATE_REFUSED, "it has been revoked")
        if self._clock() > not_after:
            raise LGIError(ErrorNumber.CERTIFICATE_REFUSED, "it has expired")
        assert isinstance(caller, Caller)
        return caller

    @staticmethod
    def _read(transport: Any) -> tuple[Caller, int, float]:
        try:
            certificate = peer_certificate(transport)
            if certificate is None:
                raise LGIError(ErrorNumber.CERTIFICATE_REFUSED, "the connection has none")
            identity = parse_common_name(common_name(certificate))
        except ValueError as problem:
            raise LGIError(ErrorNumber.CERTIFICATE_REFUSED, str(problem)) from None
        pem = ssl.DER_cert_to_PEM_cert(certificate.public_bytes(Encoding.DER))
        caller = Caller(identity=identity, certificate=pem)
        return caller, certificate.serial_number, certificate.not_valid_after_utc.timestamp()
