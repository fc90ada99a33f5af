"""TLS connections for large bodies: what takes time is done for many records at once, not for each.

A record of TLS has at most 16 KiB. Twisted hands each up through all layers by itself, and each down to the socket.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.protocol import connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.tcp import Connection
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

_RECORD = 1 << 14
# Bytes read from a socket and handed up at once, not so many that the C library asks the kernel for them each time;
# and bytes encrypted at once and written to a socket: a piece of a file, so that pieces need not be joined.
_MANY = 7 << 14
_WRITTEN = 1 << 19
# What encryption adds to a record, and to spare.
_MORE = 256


# Bytes of small writes that are encrypted together.
_TOGETHER = 64_000


class Transport(TLSMemoryBIOProtocol):
    """TLS over a socket.

    Small writes are encrypted together, in the reactor's next turn, or when `flush` is called while they are
    `gathering`. What is encrypted is sent at once as far as the socket takes it.
    """

    gathering = False

    def __init__(self, factory: Any, wrapped: Any, connect: bool = True) -> None:
        super().__init__(factory, wrapped, connect)
        self._reactor = factory.wrappedFactory.reactor
        self._small: list[bytes] = []
        self._size = 0
        self._turn: Any = None
        self._settled = False

    def write(self, data: bytes) -> None:
        """Write, soon."""
        self._small.append(bytes(data))
        self._size += len(data)
        if self._size > _TOGETHER:
            self.flush()
        elif self._turn is None and not self.gathering:
            self._turn = self._reactor.callLater(0, self._next_turn)

    def writeSequence(self, sequence: Iterable[bytes]) -> None:
        """Write, soon."""
        self.write(b"".join(sequence))

    def _next_turn(self) -> None:
        self._turn = None
        self.flush()

    def flush(self) -> None:
        """Encrypt what has been written, and send it."""
        if self._small:
            data = b"".join(self._small)
            self._small.clear()
            self._size = 0
            super().write(data)

    def loseConnection(self) -> None:
        """Close when all is written."""
        self.flush()
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        self._small.clear()
        super().connectionLost(reason)

    def makeConnection(self, transport: Any) -> None:
        """Have the socket read and written in large pieces, with room for what encryption adds to one."""
        if hasattr(transport, "bufferSize"):
            transport.bufferSize, transport.SEND_LIMIT = _MANY, 2 * _WRITTEN
        super().makeConnection(transport)

    def _flushReceiveBIO(self) -> None:
        # As Twisted's, with many records in one call of `dataReceived`.
        pieces: list[bytes] = []
        size = 0
        heard = False
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
                heard = True
                pieces.append(data)
                size += len(data)
                if size >= _MANY:
                    self._hand_up(pieces)
                    size = 0
        self._hand_up(pieces)
        if not (heard and self._settled):
            # What TLS itself has to say to data goes with the next that is written, and there is hardly ever any.
            self._settled = True
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
            self._send(data)

    def _send(self, data: bytes) -> None:
        """Send now what the socket takes, and have the reactor send the rest."""
        transport: Any = self.transport
        # Nothing overtakes what waits already.
        waiting = transport.dataBuffer or transport._tempDataBuffer if isinstance(transport, Connection) else True
        if not waiting and transport.connected and not transport.disconnecting:
            sent = transport.writeSomeData(data)
            if sent == len(data):
                return
            if isinstance(sent, int) and sent > 0:
                data = data[sent:]
        transport.write(data)


def tls_factory(options: CertificateOptions, site: Any) -> TLSMemoryBIOFactory:
    """What makes these connections for a Site."""
    factory = TLSMemoryBIOFactory(options, False, site)
    factory.protocol = Transport
    return factory
