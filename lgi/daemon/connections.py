"""The daemon's connections to all servers, which can be made anew with another certificate while calls go on."""

from __future__ import annotations

from typing import Any

from treq.client import HTTPClient
from twisted.web.client import HTTPConnectionPool

from lgi.client.post import connect
from lgi.daemon.links import CALLS_AT_ONCE
from lgi.tls import ClientPolicy


class Connections:
    """An HTTP client, as far as calls of servers need one; kept-alive connections are shared."""

    def __init__(self, reactor: Any, policy: ClientPolicy) -> None:
        self._reactor = reactor
        self._former: list[HTTPConnectionPool] = []
        self._http, self._pool = self._connect(policy)

    def _connect(self, policy: ClientPolicy) -> tuple[HTTPClient, HTTPConnectionPool]:
        http, pool = connect(self._reactor, policy)
        pool.maxPersistentPerHost = CALLS_AT_ONCE
        return http, pool

    def post(self, *arguments: Any, **named: Any) -> Any:
        """As that of treq's client, by the policy of this moment."""
        return self._http.post(*arguments, **named)

    async def renew(self, policy: ClientPolicy) -> None:
        """From now on new calls are made by this policy; those under way end as they began.

        The connections they leave behind are closed when they have been idle for some seconds.
        """
        self._former.append(self._pool)
        self._http, self._pool = self._connect(policy)
        await self._former[-1].closeCachedConnections()

    async def close(self) -> None:
        """Close what is idle."""
        for pool in (*self._former, self._pool):
            await pool.closeCachedConnections()
