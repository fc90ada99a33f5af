"""Every field of every call: missing, empty, at its limit, over it, of the wrong kind, hostile."""

from __future__ import annotations

from collections.abc import Iterator

from lgi.errors import ErrorNumber
from lgi.wire.fields import DIGITS, JOBS, KEY, LIST, LONG, MISSING, RECEIVED_MAXIMUM, SHORT, TOO_BIG
from tests.http.calls import Call, CallsCase
from tests.http.memory import multipart
from tests.protocol import Declared, declared_fields
from tests.strategies import HOSTILE

FIELDS = declared_fields()
_N = ErrorNumber
# Where the number for a field that is missing is not the field's own.
MISSING_IN = {
    ("resources/resource_submit_job.php", "state"): _N.STATE_MISSING,
    ("servers/server_run_update.php", "servers"): _N.UPDATE_REFUSED,
    ("servers/server_run_update.php", "update"): _N.UPDATE_REFUSED,
}
MALFORMED = {"job_specifics": _N.SPECIFICS_MALFORMED, "capabilities": _N.CAPABILITIES_MALFORMED}
LARGEST: dict[str, tuple[str, ...]] = {
    "text": ("x" * SHORT, "é" * (SHORT // 2)),
    "number": ("9" * DIGITS, "0" * DIGITS),
    "count": (str(JOBS), f"{JOBS:0{DIGITS}}"),
    "list": ("x" * SHORT, ",".join(f"n{number}" for number in range(LIST)), "," * LONG),
    "XML": ("<a> " + "x" * (LONG - 9) + " </a>",),
    "hex": ("61" * LONG, f" {'6A' * LONG} "),
    "key": ("x" * KEY, "A-z_0", " k "),
    "states": (",".join(f"{number}:queued" for number in range(1, LIST + 1)), "999999999:?", "," * LONG, "1 : ? ,"),
}
TOO_LARGE: dict[str, tuple[str, ...]] = {
    "text": ("x" * (SHORT + 1), "é" * (SHORT // 2) + "x"),
    "number": ("1" * (DIGITS + 1), "0" * (DIGITS + 1)),
    "count": (str(JOBS + 1), "0", "9" * DIGITS, "1" * (DIGITS + 1)),
    "list": (
        "x" * (SHORT + 1),
        "a, " + "é" * (SHORT // 2) + "x",
        ",".join(f"n{number}" for number in range(LIST + 1)),
        "," * (LONG + 1),
    ),
    "XML": ("<a> " + "x" * (LONG - 8) + " </a>", "x" * (RECEIVED_MAXIMUM + 1)),
    "hex": ("61" * (LONG + 1), "6" * (RECEIVED_MAXIMUM + 1)),
    "key": ("x" * (KEY + 1), "a b", "a:b", "é", "a/b", "a,b", "a\tb"),
    "states": (
        ",".join(f"{number}:queued" for number in range(LIST + 1)),
        "," * (LONG + 1),
        *("1", "1:", ":queued", "one:queued", "1:strange", "1:Queued", "1:queued:2", "-1:?", "1234567890:?", "٣:?"),
        *("1:?, 1:queued", "1:?, 01:?", "1:?;2:?", "1:?, x"),
    ),
}
NO_TEXT = (b"a\x00b", b"\x00", b"a\x1bb", b"\xff", b"caf\xe9", b"\xed\xa0\x80", b"\xc0\x80", b"1\xc3")
NO_NUMBER = ("one", "-1", "+1", "1.5", "1e3", "0x1", "1 2", "٣", "²", "NULL", "1;--")
NO_HEX = ("6", "zz", "6 1", "0x61", "６１")
NO_XML = (
    "<a>",
    "</a>",
    "<a></b>",
    "<a b=1> x </a>",
    "a & b",
    "<a> &unknown; </a>",
    "</job_specifics> <owners> me </owners> <job_specifics>",
    "<!-- x -->",
    "<![CDATA[ x ]]>",
    "<?php x ?>",
    "<a xmlns='x'> y </a>",
    "<error> <number> 1 </number> </error>",
    "<a>" * 300 + "</a>" * 300,
)
ENTITIES = (
    '<!DOCTYPE a [<!ENTITY b "c">]><a> &b; </a>',
    '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a> &b; </a>',
    '<!DOCTYPE a [<!ENTITY b SYSTEM "http://127.0.0.1:9/x">]><a> &b; </a>',
    '<!DOCTYPE a SYSTEM "file:///etc/passwd"><a> x </a>',
    '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;">]> &d;',
    '<!DOCTYPE a [<!ENTITY % b SYSTEM "file:///etc/passwd"> %b;]> x',
)


class FieldTests(CallsCase):
    """Of each field the error that the document's table names, or none, and never anything else."""

    @property
    def of_who_waits(self) -> dict[str, Call]:
        """The calls for fields that say what somebody waits for."""
        return {"applications": self.waiting, "jobs": self.watching}

    def each(self, *kinds: str) -> Iterator[tuple[Call, str, Declared]]:
        """All fields of these kinds of all calls."""
        for path, fields in FIELDS.items():
            for name, declared in fields.items():
                if not kinds or declared.kind in kinds:
                    # Some fields are read of those alone who wait.
                    yield self.of_who_waits.get(name, self.calls[path]), name, declared

    def missing(self, call: Call, name: str, declared: Declared) -> int | None:
        """The error that is due where a field says nothing, None if that is well."""
        number = MISSING_IN.get((call.path, name), MISSING[declared.name] if declared.required else None)
        return None if number is None else int(number)

    async def refused(self, number: int | None, call: Call, name: str, value: str | bytes) -> None:
        """Check the error of one call with another value of one field."""
        found = await self.posting(call, call.fields | {name: value})
        self.assertEqual(found, number, (call.path, name, value[:80]))

    async def test_calls(self) -> None:
        """As they are they succeed, with exactly the fields that the code reads."""
        self.assertEqual(set(self.calls), set(FIELDS))
        for path, call in self.calls.items():
            self.assertEqual(set(call.fields), set(FIELDS[path]) - set(self.of_who_waits), path)
            self.assertIsNone(await self.posting(call, call.fields), path)
        for call in self.of_who_waits.values():
            self.assertIsNone(await self.posting(call, call.fields))

    async def test_missing(self) -> None:
        for call, name, declared in self.each():
            fields = {other: value for other, value in call.fields.items() if other != name}
            found = await self.posting(call, fields)
            self.assertEqual(found, self.missing(call, name, declared), (call.path, name))

    async def test_empty(self) -> None:
        for call, name, declared in self.each():
            for value in ("", " \t\r\n "):
                await self.refused(self.missing(call, name, declared), call, name, value)
            if declared.kind == "list":
                await self.refused(self.missing(call, name, declared), call, name, " , ,")

    async def test_largest(self) -> None:
        """What just fits is never too big, whatever else may be wrong with it."""
        for call, name, declared in self.each():
            for value in LARGEST[declared.kind]:
                found = await self.posting(call, call.fields | {name: value})
                self.assertNotEqual(found, TOO_BIG[declared.name], (call.path, name, value[:80]))

    async def test_too_big(self) -> None:
        for call, name, declared in self.each():
            for value in TOO_LARGE[declared.kind]:
                await self.refused(TOO_BIG[declared.name], call, name, value)

    async def test_no_text(self) -> None:
        """NUL bytes, other control characters, and bytes that are no UTF-8."""
        for call, name, declared in self.each():
            for value in NO_TEXT:
                await self.refused(TOO_BIG[declared.name], call, name, value)

    async def test_no_number(self) -> None:
        """Counts as not posted."""
        for call, name, declared in self.each("number", "count"):
            for value in NO_NUMBER:
                await self.refused(self.missing(call, name, declared), call, name, value)

    async def test_no_hexadecimal(self) -> None:
        for call, name, declared in self.each("hex"):
            for value in NO_HEX:
                await self.refused(TOO_BIG[declared.name], call, name, value)

    async def test_no_xml(self) -> None:
        for call, name, declared in self.each("XML"):
            for value in NO_XML:
                await self.refused(MALFORMED[declared.name], call, name, value)

    async def test_entities(self) -> None:
        """Neither expanded nor fetched, inside nor outside."""
        for call, name, declared in self.each("XML"):
            for value in ENTITIES:
                await self.refused(MALFORMED[declared.name], call, name, value)

    async def test_no_state(self) -> None:
        """A word that is no state of a job is one that no job has, for a user, and wrong for a resource."""
        for call, name, declared in self.each("text"):
            if declared.name == "state":
                number = 25 if call.path.startswith("resources/") else None
                for value in ("strange", "queued, running", "deleted' OR 1=1", "!"):
                    await self.refused(number, call, name, value)

    async def test_hostile(self) -> None:
        """What looks like SQL, a path, XML, a pattern or a command is a name like others."""
        for call, name, declared in self.each("text", "list"):
            # All at once where the server would wait for each.
            for value in [", ".join(HOSTILE)] if name == "applications" else HOSTILE:
                found = await self.posting(call, call.fields | {name: value})
                due = {int(TOO_BIG[declared.name]), self.missing(call, name, declared)}
                due = set() if declared.name == "state" else due
                self.assertNotIn(found or 0, due, (call.path, name, value))

    async def test_twice(self) -> None:
        """Of a field that is posted twice the last one counts."""
        for call, name, declared in self.each():
            others = [(other, value) for other, value in call.fields.items() if other != name]
            wrong, right = (name, TOO_LARGE[declared.kind][0]), (name, call.fields[name])
            for pairs, number in (
                ([wrong, *others, right], None),
                ([right, *others, wrong], TOO_BIG[declared.name]),
            ):
                kind, end = multipart({})
                parts = [multipart({key: value})[1].removesuffix(end) for key, value in pairs]
                sent = self.server.request(call.who, "POST", call.path, b"".join(parts) + end, {"Content-Type": kind})
                self.assertEqual(await self.posting(call, call.fields, sent=sent), number, (call.path, name))

    async def test_unknown_fields(self) -> None:
        """Nobody reads them."""
        for call in self.calls.values():
            for unknown in ("number_of_uploaded_files", "uploaded_file_1", "x" * 1000, "__proto__", "user[]", ""):
                self.assertIsNone(await self.posting(call, call.fields | {unknown: "x" * 300}), (call.path, unknown))
