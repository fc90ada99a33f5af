"""What is measured: scenarios of the load generator, against the server and against a bare resource of Twisted."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import attrs

from bench.full_queue import APPLICATIONS, GROUP, USER
from tests.integration.grid import Grid, until

HERE = Path(__file__).resolve().parent
STRANGER, NO_GROUP = "nobody@localhost", "nobodies"
CEILING_STEP = 600
REFERENCE = 1200
"""Bytes of the answers that the old server's shares are of."""
ASKED = 8  # a loaded job of the measured user, for any resource
PATIENCE_SECONDS = 120.0
_INTERFACES, _RESOURCES = "interfaces/interface_{}.php", "resources/resource_{}.php"


class BenchFailed(Exception):
    """There is no figure: something does not work, or answers with errors."""


@attrs.frozen(kw_only=True)
class Scenario:
    """Calls of the load generator, `calls`; `limited` with a limit for each user's jobs, which nobody reaches."""

    name: str
    calls: str
    what: str
    user: str = USER
    group: str = GROUP
    limited: bool = False


SCENARIOS = (
    Scenario(name="slist", calls="slist", what="list of project servers, the smallest call"),
    Scenario(name="rstate", calls="rstate", what="a resource asks for the state of a job"),
    Scenario(name="list", calls="list", what="a user's list of 32 jobs"),
    Scenario(name="count", calls="count", what="the number of a user's jobs"),
    Scenario(name="detail", calls="detail", what="one job of a user, with its files"),
    Scenario(name="cycle", calls="cycle", what="sign up, request work, update, unlock, sign off: one request each"),
    Scenario(name="submit", calls="submit", what="a new job"),
    Scenario(name="list-nojobs", calls="list", what="list of a user without jobs", user=STRANGER, group=NO_GROUP),
    Scenario(name="submit-joblimit", calls="submit", what="a new job where users have a limit", limited=True),
)


@attrs.frozen(kw_only=True)
class Sample:
    """A run of the load generator; times in ms. `empty` are cycles that found no work."""

    rate: float
    p50: float
    p99: float
    empty: int = 0
    cycles: int = 0


@attrs.frozen(kw_only=True)
class Timing:
    """How long a run lasts, in seconds."""

    seconds: float

    @property
    def warm_up(self) -> float:
        """What comes before, and does not count."""
        return 1.0 if self.seconds >= 4 else self.seconds / 8


def certificate(grid: Grid, user: str) -> tuple[Path, Path]:
    """A user's certificate and key."""
    home = grid.root / "users" / user
    return home / "certificate", home / "privatekey"


def _resource(grid: Grid, number: str) -> tuple[str, str]:
    path = f"{grid.root}/resources/resource{number}@localhost/resource"
    return f"{path}.crt", f"{path}.key"


def take_sample(
    grid: Grid,
    base: str,
    scenario: Scenario,
    connections: int,
    timing: Timing,
    *,
    resources: int = 0,
    most_cycles: int = 0,
) -> Sample:
    """Run the load generator once against `base`; raises BenchFailed where any answer is an error.

    `resources` is the number of those that take jobs, where the scenario is about them.
    """
    result = grid.root / "sample.json"
    result.unlink(missing_ok=True)
    crt, key = certificate(grid, scenario.user)
    resource_crt, resource_key = _resource(grid, "{}")
    options = {
        "base": base,
        "ca": grid.root / "ca" / "ca.crt",
        "cert": crt,
        "key": key,
        "user": scenario.user,
        "groups": scenario.group,
        "res-cert": resource_crt,
        "res-key": resource_key,
        "res-count": resources,
        "apps": ",".join(APPLICATIONS),
        "scenarios": scenario.calls,
        "conc": connections,
        "seconds": timing.seconds,
        "warmup": timing.warm_up,
        "repeat": 1,
        "max-cycles": most_cycles,
        "json": result,
    }
    arguments = [sys.executable, str(HERE / "load.py"), *(f"--{name}={value}" for name, value in options.items())]
    with _group(arguments) as process:
        try:
            said, _ = process.communicate(timeout=timing.seconds + PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"{scenario.name}: the load generator does not end") from None
    if process.returncode or not result.exists():
        raise BenchFailed(f"{scenario.name}: the load generator ended with {process.returncode}:\n{said}")
    (run,) = json.loads(result.read_text("utf-8"))[0]["runs"]
    return checked_sample(scenario, connections, run)


def checked_sample(scenario: Scenario, connections: int, run: dict[str, Any]) -> Sample:
    """The figures of a run, as the load generator gives them; raises BenchFailed where it counts an error."""
    problems = run["errors"], run.get("error_kinds"), run.get("fatal")
    if any(problems) or not run["requests"]:
        number, kinds, fatal = problems
        raise BenchFailed(
            f"{scenario.name}, {connections} connections: {number} errors in {run['requests']} requests: "
            f"{kinds or fatal or 'no answers'}"
        )
    if run["reconnects"]:
        raise BenchFailed(f"{scenario.name}: {run['reconnects']} of {connections} connections were cut")
    return Sample(
        rate=run["rps"],
        p50=run["p50_ms"],
        p99=run["p99_ms"],
        empty=run.get("cycles_without_work", 0),
        cycles=run["ops"] if scenario.calls == "cycle" else 0,
    )


@contextmanager
def _group(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A program with all processes it starts, which have ended afterwards."""
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            process.communicate()


@contextmanager
def ceiling(grid: Grid, answer_bytes: int, processes: int) -> Iterator[str]:
    """A bare resource with the server's certificate and as many processes: its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "port": port,
        "cert": grid.root / "server" / "server.crt",
        "key": grid.root / "server" / "server.key",
        "ca": grid.root / "ca" / "ca.crt",
        "bytes": answer_bytes,
        "processes": processes,
    }
    arguments = [sys.executable, str(HERE / "ceiling.py"), *(f"--{name}={value}" for name, value in options.items())]
    with _group(arguments) as process:

        def listening() -> bool:
            if process.poll() is not None:
                raise BenchFailed(f"the bare resource has ended: {process.communicate()[0]}")
            lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
            return sum(words[3] == "0A" and words[1].endswith(f":{port:04X}") for words in lines) == processes

        until(listening, "all processes of the bare resource listen")
        yield f"https://localhost:{port}/LGI"


def ceiling_bytes(answer_bytes: int) -> int:
    """As long as which answers the bare resource's are: to the nearest multiple of a step."""
    return max(1, round(answer_bytes / CEILING_STEP)) * CEILING_STEP


def answer_bytes(grid: Grid, scenario: Scenario) -> int:
    """The mean length of the answers' bodies, by asking once; changes the queue as the scenario does."""
    answers = list(_answers(grid, scenario))
    for answer in answers:
        if b"<error>" in answer:
            raise BenchFailed(f"{scenario.name}: the server answers {answer.decode(errors='replace')}")
    return sum(map(len, answers)) // len(answers)


def _answers(grid: Grid, scenario: Scenario) -> Iterator[bytes]:
    of_resource = scenario.calls in ("rstate", "cycle")
    crt, key = _resource(grid, "1") if of_resource else certificate(grid, scenario.user)
    context = ssl.create_default_context(cafile=str(grid.root / "ca" / "ca.crt"))
    context.load_cert_chain(crt, key)
    connection = http.client.HTTPSConnection("localhost", grid.port, timeout=30, context=context)

    def call(path: str, **fields: object) -> bytes:
        who = {} if of_resource else {"user": scenario.user, "groups": scenario.group}
        form = urlencode({"project": "LGI", **who, **fields})
        connection.request("POST", f"/LGI/{path}", form, {"Content-Type": "application/x-www-form-urlencoded"})
        return connection.getresponse().read()

    one: dict[str, tuple[str, dict[str, object]]] = {
        "slist": ("project_server_list", {}),
        "list": ("job_state", {"limit": 32}),
        "count": ("job_state", {"limit": 0}),
        "detail": ("job_state", {"job_id": ASKED}),
        "submit": (
            "submit_job",
            {
                "application": APPLICATIONS[0],
                "target_resources": "any",
                "job_specifics": "<bench> 1 </bench>",
                "input": "68656C6C6F20776F726C640A" * 4,
            },
        ),
    }
    try:
        if scenario.calls == "rstate":
            yield call(_RESOURCES.format("job_state"), job_id=ASKED)
        elif scenario.calls == "cycle":
            capabilities = " ".join(f"<{name}> </{name}>" for name in APPLICATIONS)
            signed_up = call(_RESOURCES.format("signup_resource"), capabilities=capabilities)
            yield signed_up
            session = _tag("session_id", signed_up)
            work = call(
                _RESOURCES.format("request_work"),
                session_id=session,
                application=APPLICATIONS[0],
                start=0,
                limit=1,
                owners="",
            )
            yield work
            job = _tag("job_id", work)
            yield call(_RESOURCES.format("update_job"), session_id=session, job_id=job, state="running")
            yield call(_RESOURCES.format("unlock_job"), session_id=session, job_id=job)
            yield call(_RESOURCES.format("signoff_resource"), session_id=session)
        else:
            name, fields = one[scenario.calls]
            yield call(_INTERFACES.format(name), **fields)
    finally:
        connection.close()


def _tag(name: str, answer: bytes) -> str:
    found = re.search(f"<{name}> *([^ <]+) *</{name}>", answer.decode())
    if found is None:
        raise BenchFailed(f"no {name} in the answer {answer.decode()}")
    return found[1]
