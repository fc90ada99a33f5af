"""What one program of a server changes, another one that waits for it hears."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet import reactor

from lgi.admin.store import on_project
from lgi.db.locks import unlock_jobs
from lgi.server import news
from lgi.server.news import News
from tests.http.case import ServerCase
from tests.http.memory import PROJECT


class WakeUpTests(ServerCase):
    """Calls that wait, and changes that come from outside this process."""

    async def test_lock_that_another_program_clears(self) -> None:
        # So that nothing is found by looking again.
        self.patch(news, "RECHECK", 3600.0)
        waits: list[int] = []
        wait = News.wait

        def noted(waiters: News, job_id: int, seconds: float) -> Coroutine[Any, Any, None]:
            waits.append(job_id)
            return wait(waiters, job_id, seconds)

        self.patch(News, "wait", noted)
        self.server.bell.listen(reactor)
        self.addCleanup(self.server.bell.close)
        job_id = await self.server.submit()
        session_id = await self.server.session()
        await self.server.resource("lock_job", session_id=session_id, job_id=job_id)
        waiting = self.server.user("job_state", job_id=job_id)
        await self.server.until(lambda: waits == [job_id])
        on_project(self.server.config, PROJECT, lambda connection: unlock_jobs(connection, [job_id]))
        answer = await waiting
        self.assertEqual((answer.value("job_id"), answer.value("state")), (str(job_id), "queued"))
