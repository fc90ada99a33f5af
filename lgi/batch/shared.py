"""One answer for all: what the queue said, shared by a user's processes, so that it is asked at a polite interval.

A job's scripts are many short processes. The first that finds the answer too old asks for all of them, under a lock;
the others wait for it. A failure is shared in the same way, so that a batch system that hangs is not asked by each.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.task import deferLater

from lgi.batch.system import System
from lgi.batch.values import BatchError, Entry, State, Status, unit_name
from lgi.durable import read_regular, write_atomically

MAX_AGE = 10.0  # seconds
PATIENCE = 150.0  # seconds for which the lock is waited for
VARIABLE = "LGI_BATCH_CACHE"
_LOOK = 0.05  # seconds
_KEPT = 14 * 86400.0  # seconds for which ends are remembered


def shared_directory(environment: Mapping[str, str]) -> Path:
    """Where the answers are shared: what LGI_BATCH_CACHE says, or a directory of this user under /tmp.

    Raises BatchError when it is not a directory of this user that nobody else can write to.
    """
    path = Path(environment.get(VARIABLE) or f"/tmp/lgi-batch-{os.geteuid()}")  # noqa: S108, looked at below
    try:
        path.mkdir(0o700, exist_ok=True)
        status = path.lstat()
    except OSError as problem:
        raise BatchError(f"{path}: {problem.strerror}; say another directory in {VARIABLE}") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise BatchError(f"{path} is not a directory that only this user can write to; say another in {VARIABLE}")
    return path


@attrs.frozen(kw_only=True)
class Snapshot:
    """What the queue showed to one look that began at `taken`, in seconds since 1970."""

    taken: float
    entries: tuple[Entry, ...]


class Shared:
    """The shared answers of one batch system; `reactor` gives time to wait, `now` the seconds since 1970."""

    def __init__(
        self, *, system: System, directory: Path, reactor: Any, now: Callable[[], float] = time.time
    ) -> None:
        self._system = system
        self._reactor = reactor
        self.now = now
        mark = hashlib.sha256(system.cluster().encode()).hexdigest()[:12]
        self._file = directory / f"{system.name}-{mark}.json"
        self._lock = directory / f"{system.name}-{mark}.lock"

    async def look(self, oldest: float, jobs: Collection[str] = ()) -> Snapshot:
        """What the queue showed at `oldest` or later, in seconds since 1970; asks only where nobody has.

        Raises BatchError, also for another process's failure at `oldest` or later.
        """
        return _usable(self._load(), oldest, self.now()) or await self._asked(oldest, jobs)

    async def _asked(self, oldest: float, jobs: Collection[str]) -> Snapshot:
        async with self._locked():
            state = self._load()
            found = _usable(state, oldest, self.now())
            if found is not None:
                return found
            began = self.now()
            try:
                entries = tuple(await self._system.queue(jobs))
            except BatchError as problem:
                self._store({**state, "failed": {"when": self.now(), "why": str(problem)}})
                raise
            state.pop("failed", None)
            state["ended"] = _ends(state.get("ended", {}), entries, jobs, began)
            self._store({**state, "taken": began, "entries": [attrs.asdict(entry) for entry in entries]})
            return Snapshot(taken=began, entries=entries)

    def ends(self) -> list[Entry]:
        """Jobs that a look at the queue showed as over, and that no later one showed as anything else.

        The queue forgets them after some minutes, and there may be no accounting.
        """
        return [_entry(one["entry"]) for one in self._load().get("ended", {}).values()]

    async def forget(self) -> None:
        """Let the next look be a new one, since something was changed."""
        async with self._locked():
            state = self._load()
            if "taken" in state or "failed" in state:
                self._store(
                    {name: value for name, value in state.items() if name not in ("taken", "entries", "failed")}
                )

    async def accounting(self, jobs: Collection[str], oldest: float) -> list[Entry]:
        """What the accounting has of jobs that are over; each is asked for again where it was before `oldest`."""
        if not jobs:
            return []
        async with self._locked():
            state = self._load()
            known: dict[str, Any] = state.get("accounted", {})
            ask = [job for job in jobs if not _answered(known.get(job), oldest, self.now())]
            if ask:
                found = await self._system.accounting(ask)
                for job in ask:
                    entries = [attrs.asdict(entry) for entry in found if entry.job == job]
                    known[job] = {"when": self.now(), "entries": entries}
                kept = {job: one for job, one in known.items() if one["when"] > self.now() - _KEPT}
                self._store({**state, "accounted": kept})
            return [_entry(one) for job in jobs for one in known.get(job, {}).get("entries", ())]

    async def missing(self, away: Collection[str], seen: Collection[str], taken: float) -> dict[str, float]:
        """For how many seconds, by the looks at the queue, each of `away` has been missing; `seen` are back."""
        since: dict[str, float] = self._load().get("missing", {})
        if any(name not in since or since[name] > taken for name in away) or any(name in since for name in seen):
            async with self._locked():
                state = self._load()
                since = state.get("missing", {})
                since = {name: when for name, when in since.items() if name not in seen and when > taken - _KEPT}
                for name in away:
                    since[name] = min(since.get(name, taken), taken)
                self._store({**state, "missing": since})
        return {name: taken - since[name] for name in away}

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            until = self._reactor.seconds() + PATIENCE
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self._reactor.seconds() > until:
                        raise BatchError(
                            f"another process has been asking {self._system.name} for too long"
                        ) from None
                # Nothing tells when the lock is free, unless a thread waits for it: look again.
                await deferLater(self._reactor, _LOOK, lambda: None)
            yield
        finally:
            os.close(descriptor)

    def _load(self) -> dict[str, Any]:
        try:
            state = json.loads(read_regular(self._file))
        except (FileNotFoundError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _store(self, state: dict[str, Any]) -> None:
        write_atomically(self._file, json.dumps(state).encode())


def _usable(state: dict[str, Any], oldest: float, now: float) -> Snapshot | None:
    failed = state.get("failed")
    if failed and oldest <= failed["when"] <= now:
        raise BatchError(failed["why"])
    if oldest <= state.get("taken", -1.0) <= now:
        return Snapshot(taken=state["taken"], entries=tuple(map(_entry, state["entries"])))
    return None


def _ends(known: dict[str, Any], entries: Collection[Entry], jobs: Collection[str], taken: float) -> dict[str, Any]:
    kept = {name: one for name, one in known.items() if one["when"] > taken - _KEPT}
    for entry in entries:
        name = unit_name(entry.job, entry.task)
        if entry.status.state.over and (entry.key or entry.job in jobs):
            kept[name] = {"when": taken, "entry": attrs.asdict(entry)}
        else:
            kept.pop(name, None)
    return kept


def _answered(known: dict[str, Any] | None, oldest: float, now: float) -> bool:
    return known is not None and oldest <= known["when"] <= now


def _entry(values: dict[str, Any]) -> Entry:
    status = values["status"]
    return Entry(**{**values, "status": Status(**{**status, "state": State(status["state"])})})
