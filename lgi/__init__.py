"""Leiden Grid Infrastructure: project server, scheduler, resource daemon and clients.

What Python programs use is here by name (`lgi.Client`, `lgi.AsyncClient`, `lgi.Executor`) and loaded when it is used.
"""

from importlib import import_module

__version__ = "2.0.0.dev0"

_WHERE = {
    "AnswerMalformed": "lgi.client.answers",
    "AsyncClient": "lgi.api.aio",
    "AsyncJob": "lgi.api.aio",
    "Client": "lgi.api.client",
    "ClientClosed": "lgi.api.errors",
    "Executor": "lgi.api.executor",
    "GridFuture": "lgi.api.executor",
    "Job": "lgi.api.client",
    "JobFailed": "lgi.api.errors",
    "JobState": "lgi.states",
    "Me": "lgi.api.values",
    "NoReactor": "lgi.api.errors",
    "ServerRefused": "lgi.client.answers",
    "ServerUnreachable": "lgi.client.answers",
    "SettingsError": "lgi.client.settings",
    "SubmissionUnknown": "lgi.client.grid",
    "UnknownReference": "lgi.client.reference",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'lgi' has no attribute {name!r}")
    value: object = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
