"""Whatever is posted to whichever call, by whomever: one clear answer, and nothing changed by what was refused."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_from_bytes

from hypothesis import example, given, settings
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from lgi.identity import parse_common_name
from tests.http.calls import CallsCase
from tests.http.memory import MARK, RESOURCE, Answer, Fields, multipart
from tests.http.servers import SLAVE
from tests.protocol import declared_fields
from tests.strategies import Posted, common_names, posted

# What a certificate's holder may not become by the way it is written, and what he then is.
ODD_NAMES: dict[str, int | None] = {
    "": 2,
    " ": 2,
    ";": 2,
    ";;": 2,
    "; theor; LGI": 2,
    "any; theor; LGI": 2,
    "mark@localhost, piet@localhost; theor; LGI": 2,
    "mark@localhost; theor; LGI; more": 2,
    "mark@localhost\x00; theor; LGI": 2,
    "mark@localhost\n; theor; LGI": 2,
    "mark\u202e@localhost; theor; LGI": 2,
    "mark@localhost; theor; ": 37,
    "mark@localhost; theor;": 37,
    "mark@localhost; theor; , ,": 37,
    "mark@localhost; theor; lgi": 37,
    "mark@localhost; theor; LGI2, XLGI": 37,
    "mark@localhost; LGI": 38,
    "mark@localhost": 38,
    "mark@localhost; ; LGI": 38,
    "mark@localhost; , ,; LGI": 38,
    "mark@localhost; Theor; LGI": 38,
    "mark@localhost; theory; LGI": 38,
    "Mark@localhost; theor; LGI": 30,
    "mark@localhos\u0442; theor; LGI": 30,
    "\uff4dark@localhost; theor; LGI": 30,
    "mark @localhost; theor; LGI": 30,
    "CN=mark@localhost; theor; LGI": 30,
    "' OR '1'='1; theor; LGI": 30,
    "  mark@localhost  ;  chem ,, theor  ;  x , LGI ": None,
    "mark@localhost;theor;any": None,
    "mark@localhost; any; LGI": None,
}


class AnythingTests(CallsCase):
    """Properties over all calls and fields."""

    async def ask(self, request: Posted) -> None:
        """Send one request, and check what has to hold."""
        call = self.calls[request.path]
        fields: Fields = dict(call.fields)
        for name, value in request.values:
            if value is None:
                fields.pop(name, None)
            else:
                fields[name] = value
        if request.urlencoded:
            kind, body = "application/x-www-form-urlencoded", urlencoded(fields)
        else:
            kind, body = multipart(fields)
        body = body[: max(0, len(body) - request.cut)]
        who = call.who if request.common_name is None else request.common_name
        sent: Deferred[Answer] = self.server.request(who, "POST", request.path, body, {"Content-Type": kind})
        await self.posting(call, fields, who=who, sent=sent)

    def all_of(self, test: Any) -> Deferred[Any]:
        """Run a property in a thread, from which it asks the server here."""
        finished: Deferred[Any] = deferToThread(test)
        return finished

    def asked(self, request: Posted) -> None:
        """From that thread: ask, and wait for the check."""
        here: Any = reactor
        checked: Any = lambda: Deferred.fromCoroutine(self.ask(request))  # noqa: E731, to be called over there
        blockingCallFromThread(here, checked)

    async def test_any_request(self) -> None:
        paths = {path: list(fields) for path, fields in declared_fields().items()}

        @settings(max_examples=200)
        @given(posted(paths))
        @example(Posted(path="interfaces/interface_job_state.php", values=(("job_id", b"1"), ("limit", b"1" * 10))))
        @example(
            Posted(
                path="servers/server_run_update.php", values=(("version", None), ("servers", None), ("update", None))
            )
        )
        @example(Posted(path="servers/server_run_update.php", values=(("version", b"999999999"),)))
        @example(Posted(path="resources/resource_signoff_resource.php", values=(("session_id", b"0"),)))
        @example(Posted(path="resources/resource_signup_resource.php", values=(("capabilities", b""),)))
        def test(request: Posted) -> None:
            self.asked(request)

        await self.all_of(test)

    async def test_any_common_name(self) -> None:
        @settings(max_examples=60)
        @given(common_names)
        def test(name: str) -> None:
            for path in (
                "interfaces/interface_delete_job.php",
                "resources/resource_unlock_job.php",
                "servers/server_run_update.php",
            ):
                try:
                    known = parse_common_name(name).name
                except ValueError:
                    known = ""
                self.asked(Posted(path=path, common_name=name))
                if known not in (MARK.partition(";")[0], RESOURCE.partition(";")[0], SLAVE.partition(";")[0]):
                    self.assertFalse(self.changed, name)

        await self.all_of(test)

    async def test_odd_common_names(self) -> None:
        """In the order of the checks: the name, the project, the user, the groups."""
        call = self.calls["interfaces/interface_delete_job.php"]
        for name, number in ODD_NAMES.items():
            self.assertEqual(await self.posting(call, call.fields, who=name), number, repr(name))

    async def test_names_of_all_languages(self) -> None:
        """Users, groups and owners with spaces, accents and other letters come back as they are."""
        for name in (
            "Åse Ünal@universität.example",
            "мария@пример",
            "試験@例え",
            "o'hara@x",
            'a "b" <c> & d@x',
            "a\\b%_@x",
        ):
            who = f"{name}; Ünï côde, 群; LGI"
            job_id = await self.server.submit(who=who)
            answer = await self.server.user("job_state", who=who, job_id=job_id)
            self.assertEqual(answer.number(), None, answer.text)
            self.assertEqual(answer.value("owners"), escaped(f"{name}, Ünï côde, 群"))
            self.assertEqual(answer.value("user"), escaped(name))


def escaped(text: str) -> str:
    for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&apos;")):
        text = text.replace(character, escape)
    return text


def urlencoded(fields: Fields) -> bytes:
    """A form as servers post it; any bytes, also those that are no text."""
    data = {name: value if isinstance(value, bytes) else str(value).encode() for name, value in fields.items()}
    return "&".join(f"{quote_from_bytes(name.encode())}={quote_from_bytes(data[name])}" for name in data).encode()
