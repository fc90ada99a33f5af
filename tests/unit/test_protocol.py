"""The document of the protocol says what the code does, and names tests that are there."""

from __future__ import annotations

import re
from importlib import import_module
from unittest import TestCase

from twisted.trial.unittest import SynchronousTestCase

from lgi.config import LimitsSection, ServerSection
from lgi.errors import ErrorNumber
from lgi.wire.fields import DIGITS, JOBS, LIST, LONG, MISSING, SHORT, TOO_BIG
from tests.http.test_fields import MALFORMED, MISSING_IN
from tests.protocol import FIRST, REPOSITORY, ROOT, declared_fields

TEXT = (ROOT / "docs/protocol.md").read_text("utf-8")
FIELDS = declared_fields()
# What the document says once for all calls of a part.
COMMON = {"resources": {"project"}, "interfaces": {"project", "user", "groups"}, "servers": {"project"}}
ONCE = {"`resources/resource_NAME.php`": "resources", "`interfaces/interface_NAME.php`": "interfaces"}
ONCE |= {"`servers/server_NAME.php`": "servers"}
# Fields that are no posted values of the API.
APART = {"uploaded_file_N", "number_of_uploaded_files", "repository"}


def table(heading: str, first: str) -> list[list[str]]:
    """The rows of the table below a heading whose first column is called so, as the text of their cells."""
    section = TEXT.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    lines = section[section.index(f"| {first} |") :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines[2:]]


def ticked(text: str) -> list[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`]+)`", text)


def found(name: str) -> bool:
    """Whether a test of this name, `module.Class.test`, is there and can be run."""
    module, case, method = name.rsplit(".", 2)
    kind = getattr(import_module(module if module.startswith("tests.") else f"tests.http.{module}"), case, None)
    return isinstance(kind, type) and issubclass(kind, TestCase) and callable(getattr(kind, method, None))


def posted(text: str) -> set[str]:
    """The names of fields in a cell: without what stands in brackets, but for fields that are needed instead."""
    instead = set(re.findall(r"instead: `(\w+)`", text))
    return set(ticked(re.sub(r"\([^)]*\)", "", text))) | instead


class MatrixTests(SynchronousTestCase):
    """docs/protocol.md against lgi."""

    def calls(self) -> dict[str, list[str]]:
        """The rows of all calls by their path."""
        rows = {}
        for heading in re.findall(r"^## (Calls of .*)$", TEXT, re.MULTILINE):
            part = ONCE[heading.partition(": ")[2]]
            for row in table(heading, "call"):
                [name] = ticked(row[0])
                rows[f"{part}/{part[:-1]}_{name}.php"] = row
        return rows

    def test_every_call_is_there_with_its_fields(self) -> None:
        calls = self.calls()
        self.assertEqual(set(calls), set(FIELDS))
        for path, (_name, needs, takes, _errors, _tests) in calls.items():
            # Of fields with a number the code's are those of the first job.
            declared = {re.sub(f"{FIRST}$", "_K", name): field for name, field in FIELDS[path].items()}
            required = {name for name, field in declared.items() if field.required}
            required |= {name for call, name in MISSING_IN if call == path}
            if path.endswith("run_update.php"):
                # All three or none.
                required = set()
            common = COMMON[path.partition("/")[0]]
            self.assertEqual(posted(needs), required - common, path)
            self.assertEqual(posted(takes) - APART, set(declared) - required - common, path)
            self.assertEqual("uploaded_file_N" in takes, path.endswith("submit_job.php"), path)

    def test_what_all_calls_of_a_part_take_is_said_once(self) -> None:
        for place, part in ONCE.items():
            before = TEXT.split(f": {place}\n", 1)[1].split("\n|", 1)[0]
            self.assertLessEqual(COMMON[part], set(ticked(before)), part)
            for fields in (fields for path, fields in FIELDS.items() if path.startswith(f"{part}/")):
                self.assertLessEqual(COMMON[part], set(fields))

    def test_every_field_is_there_with_its_kind_and_errors(self) -> None:
        rows = {ticked(row[0])[0]: row[1:] for row in table("Fields", "field")}
        kinds = {field.name: field.kind for fields in FIELDS.values() for field in fields.values()}
        self.assertEqual(set(rows), set(kinds) | APART)
        self.assertEqual(set(rows) - {"uploaded_file_N"}, set(TOO_BIG))
        for name in TOO_BIG:
            kind, missing, wrong, malformed, _shown = rows[name]
            self.assertEqual(kind, kinds.get(name, ""), name)
            self.assertEqual(missing, str(int(MISSING[name])) if name in MISSING else "", name)
            self.assertEqual(wrong, str(int(TOO_BIG[name])), name)
            self.assertEqual(malformed, str(int(MALFORMED[name])) if name in MALFORMED else "", name)

    def test_limits_are_those_of_the_code(self) -> None:
        said = " ".join(TEXT.split())
        limits = LimitsSection()
        self.assertIn(f"a *count* is a number from 1 to {JOBS}", said)
        idle = ServerSection.__attrs_attrs__.idle_timeout.default
        for words in (
            f"*text* has at most {SHORT} bytes, a *number* {DIGITS} digits",
            f"a *list* {LONG:,} bytes and {LIST:,} names of {SHORT} bytes, *XML* {LONG:,} bytes",
            f"*hex* (hexadecimal in either case) {LONG:,} bytes when decoded",
            f"`limit` ({limits.list_default}, at most {limits.list_maximum:,}; 0 counts)",
            f"`limit` ({limits.work_default}, at most {limits.work_maximum:,}; 0 counts)",
            f"`idle_timeout` ({idle}) seconds",
        ):
            self.assertIn(words, said)

    def test_every_error_is_there(self) -> None:
        rows = table("Errors", "number")
        self.assertEqual([int(row[0]) for row in rows], sorted(int(number) for number in ErrorNumber))
        for row in rows:
            self.assertEqual(len(row), 4, row)
            self.assertTrue(row[1] and row[2] and ticked(row[3]), row)

    def test_errors_are_raised_somewhere(self) -> None:
        sources = " ".join(
            path.read_text("utf-8") for path in (ROOT / "lgi").rglob("*.py") if path.name != "errors.py"
        )
        for number in ErrorNumber:
            self.assertRegex(sources, rf"\b(ErrorNumber|_E)\.{number.name}\b")

    def test_errors_of_calls_are_in_the_table(self) -> None:
        for path, row in self.calls().items():
            for number in filter(None, map(str.strip, row[3].split(","))):
                self.assertIn(int(number), set(ErrorNumber), path)
            for name in posted(row[1]) & set(MISSING):
                self.assertTrue(
                    str(int(MISSING[name])) in row[3].split(", ") or name in ("session_id", "job_id"), (path, name)
                )

    def test_every_request_to_a_repository_is_there(self) -> None:
        source = (ROOT / "lgi/repository/http.py").read_text("utf-8")
        rows = table("Repositories", "request")
        said = " ".join(row[0] for row in rows)
        for method in sorted(set(re.findall(r'b"([A-Z]+)"', source))):
            self.assertIn(method, said)
        self.assertIn(REPOSITORY, said)
        self.assertEqual({"repository"} & set(re.findall(r'fields\.get\("(\w+)"\)', source)), {"repository"})

    def test_every_row_names_a_test(self) -> None:
        for heading, first in (
            ("HTTP", "what"),
            ("Fields", "field"),
            ("Calls of users", "call"),
            ("Calls of resources", "call"),
            ("Calls of servers", "call"),
            ("Repositories", "request"),
            ("Errors", "number"),
        ):
            rows = table(heading, first)
            self.assertGreater(len(rows), 1, heading)
            for row in rows:
                self.assertTrue([name for name in ticked(row[-1]) if ".test_" in name], row)

    def test_every_test_that_is_named_is_there(self) -> None:
        names = {name for name in ticked(TEXT) if re.search(r"^[\w.]+\.[A-Z]\w+\.test_\w+$", name)}
        names |= {f"test_fields.FieldTests{name}" for name in ticked(TEXT) if name.startswith(".test_")}
        self.assertGreater(len(names), 100)
        self.assertEqual([name for name in sorted(names) if not found(name)], [])
        # Nothing that was meant to name a test has slipped through the pattern.
        meant = {name for name in ticked(TEXT) if ".test_" in name and not name.startswith(".test_")}
        self.assertLessEqual(meant, names)

    def test_a_name_that_is_wrong_is_seen(self) -> None:
        self.assertTrue(found("test_fields.FieldTests.test_too_big"))
        self.assertFalse(found("test_fields.FieldTests.test_too_bigg"))
        self.assertFalse(found("test_fields.NoTests.test_too_big"))
