"""TLS connections for large bodies: what takes time is done for many records at once, not for each.

A record of TLS has at most 16 KiB. Twisted hands each up through all layers by itself, and each down to the socket.
"""

from __future__ import annotations

from typing import Any

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure

_RECORD = 1 << 14
# Bytes read from a socket and handed up at once, not so many that the C library asks the kernel for them each time;
# and bytes encrypted at once and written to a socket: a piece of a file, so that pieces need not be joined.
_MANY = 7 << 14
_WRITTEN = 1 << 19
# What encryption adds to a record, and to spare.
_MORE = 256


class Transport(BufferingTLSTransport):
    """TLS over a socket."""

    def makeConnection(self, transport: Any) -> None:
        """Have the socket read and written in large pieces, with room for what encryption adds to one."""
        if hasattr(transport, "bufferSize"):
            transport.bufferSize, transport.SEND_LIMIT = _MANY, 2 * _WRITTEN
        super().makeConnection(transport)

    def _flushReceiveBIO(self) -> None:
        # As Twisted's, with many records in one call of `dataReceived`.
        pieces: list[bytes] = []
        size = 0
        while not self._lostTLSConnection:
            try:
                data = self._tlsConnection.recv(_RECORD)
            except WantReadError:
                break
            except ZeroReturnError:
                self._hand_up(pieces)
                self._shutdownTLS()
                self._tlsShutdownFinished(None)
            except Error:
                failure = Failure()
                self._hand_up(pieces)
                self._tlsShutdownFinished(failure)
            else:
                pieces.append(data)
                size += len(data)
                if size >= _MANY:
                    self._hand_up(pieces)
                    size = 0
        self._hand_up(pieces)
        self._flushSendBIO()

    def _hand_up(self, pieces: list[bytes]) -> None:
        data = b"".join(pieces)
        pieces.clear()
        if data and not self._aborted:
            ProtocolWrapper.dataReceived(self, data)

    def _write(self, bytes: bytes) -> None:
        # As Twisted's, with many records in one write to the socket.
        if self._lostTLSConnection:
            return
        left = memoryview(bytes)
        encrypted = 0
        while left:
            try:
                sent = self._tlsConnection.send(left[:_WRITTEN])
            except WantReadError:
                self._pass_down(encrypted)
                self._bufferedWrite(left.tobytes())
                return
            except Error:
                self._tlsShutdownFinished(Failure())
                return
            left = left[sent:]
            encrypted += sent + _MORE * (sent // _RECORD + 1)
            if encrypted >= _WRITTEN:
                self._pass_down(encrypted)
                encrypted = 0
        self._pass_down(encrypted)

    def _pass_down(self, most: int) -> None:
        if most:
            try:
                data = self._tlsConnection.bio_read(most + _RECORD)
            except WantReadError:
                return
            assert self.transport is not None
            self.transport.write(data)


def tls_factory(options: CertificateOptions, site: Any) -> TLSMemoryBIOFactory:
    """What makes these connections for a Site."""
    factory = TLSMemoryBIOFactory(options, False, site)
    factory.protocol = Transport
    return factory
