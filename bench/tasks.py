"""What Celery's workers of `bench.others` run; the address of their Redis is in the environment."""

from __future__ import annotations

import os
import subprocess

from celery import Celery

REDIS = "LGI_BENCH_REDIS"
app = Celery("bench", broker=os.environ.get(REDIS), backend=os.environ.get(REDIS))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=4,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)


@app.task  # type: ignore[untyped-decorator]
def process() -> int:
    """Start `true` and wait for its end."""
    return subprocess.run(["true"], check=True).returncode


@app.task  # type: ignore[untyped-decorator]
def function() -> int:
    """Nothing at all."""
    return 0
