from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.error import SchemeNotSupported
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from lgi.client.post import connect


@implementer(IOpenSSLClientConnectionCreator)
class Creator:
    def clientConnectionForTLS(self, protocol: Any) -> Any:
        raise AssertionError("nothing is connected here")


@implementer(IPolicyForHTTPS)
class Policy:
    def __init__(self) -> None:
        self.asked: list[tuple[bytes, int]] = []

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        self.asked.append((hostname, port))
        return Creator()


class ConnectTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.policy = Policy()
        self.http, _pool = connect(MemoryReactorClock(), self.policy)

    def call(self, url: bytes) -> None:
        self.http.agent.request(b"GET", url).addErrback(lambda _: None)

    def test_the_way_to_a_server_is_made_once(self) -> None:
        for path in (b"a", b"b", b"repository/c"):
            self.call(b"https://one.example:1443/" + path)
        self.assertEqual(self.policy.asked, [(b"one.example", 1443)])

    def test_each_server_has_its_own(self) -> None:
        for url in (b"https://one.example/", b"https://two.example/", b"https://one.example:444/", b"https://[::1]/"):
            self.call(url)
        asked = [(b"one.example", 443), (b"two.example", 443), (b"one.example", 444), (b"::1", 443)]
        self.assertEqual(self.policy.asked, asked)

    def test_without_tls_no_certificate_is_shown(self) -> None:
        self.call(b"http://one.example/")
        self.assertEqual(self.policy.asked, [])

    def test_other_schemes(self) -> None:
        refused = self.failureResultOf(self.http.agent.request(b"GET", b"ftp://one.example/"), SchemeNotSupported)
        self.assertEqual(str(refused.value), "ftp: is not https")
