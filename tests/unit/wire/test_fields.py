"""Posted fields: each one missing, empty, as big as may be, too big, of the wrong form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lgi.errors import ErrorNumber, LGIError
from lgi.states import JobState
from lgi.wire.fields import JOBS, KEY, LIST, LONG, MISSING, RECEIVED_MAXIMUM, SHORT, TOO_BIG, PostedFields
from tests.strategies import lists_of_names

SHORTS = ("application", "state", "user", "project", "resource_name")
NUMBERS = ("job_id", "session_id", "start", "limit", "version", "number_of_uploaded_files", "wait", "cancel")
NAMES = ("owners", "target_resources", "groups", "read_access", "write_access", "servers", "applications")
LONGS = ("job_specifics", "capabilities")
HEXES = ("input", "output", "update")
KEYS = ("submission_key",)
STATES = ("jobs",)
COMPULSORY = ("application", "user", "resource_name", "job_id", "session_id", "version", "owners", "target_resources")


def posted(**values: bytes | str | None) -> PostedFields:
    """Fields as they are received."""
    return PostedFields(
        values={name: value.encode() if isinstance(value, str) else value for name, value in values.items()}
    )


def reader(name: str, *, optional: bool = True) -> Callable[[PostedFields], Any]:
    """How a field is read."""
    kind = next(
        kind
        for kind, names in (
            ("short", SHORTS),
            ("integer", NUMBERS),
            ("names", NAMES),
            ("long", LONGS),
            ("binhex", HEXES),
            ("key", KEYS),
            ("job_states", STATES),
        )
        if name in names
    )
    method = kind if kind == "binhex" or not optional else f"optional_{kind}"
    return lambda fields: getattr(fields, method)(name)


class FieldTests(SynchronousTestCase):
    """The rules of the document and of the deployed server."""

    def refused(self, number: ErrorNumber, name: str, value: bytes | str | None, *, optional: bool = True) -> str:
        """Assert that a value is refused with a number, and return the message."""
        error = self.assertRaises(LGIError, reader(name, optional=optional), posted(**{name: value}))
        self.assertEqual(error.number, number, (name, value))
        return str(error)

    def test_every_field_of_the_wire_has_an_error_of_its_own(self) -> None:
        self.assertLessEqual({*SHORTS, *NUMBERS, *NAMES, *LONGS, *HEXES, *KEYS, *STATES}, set(TOO_BIG))
        for name, number in TOO_BIG.items():
            if number is not ErrorNumber.UPLOAD_FAILED and name not in STATES:
                self.assertEqual(number.name.removesuffix("_TOO_BIG").lower().split("_")[-1], _last(name))
        self.assertLessEqual(set(MISSING), set(TOO_BIG))

    def test_missing_fields_are_said_by_name_or_have_a_default(self) -> None:
        nothing = posted()
        for name in (*SHORTS, *NUMBERS, *NAMES, *LONGS, *HEXES):
            empty: object = "" if name in SHORTS else () if name in NAMES else None
            self.assertEqual(reader(name)(nothing), empty, name)
        for name in COMPULSORY:
            error = self.assertRaises(LGIError, reader(name, optional=False), nothing)
            self.assertEqual(error.number, MISSING[name], name)
            self.assertIn(name, str(error))

    def test_empty_fields_are_missing(self) -> None:
        for value in ("", " ", "\t\r\n"):
            for name in COMPULSORY:
                self.refused(MISSING[name], name, value, optional=False)
            for name in HEXES:
                self.assertEqual(reader(name)(posted(**{name: value})), b"")
            for name in LONGS:
                self.assertEqual(reader(name)(posted(**{name: value})), "")
        for value in (",", " , ,"):
            self.refused(ErrorNumber.OWNERS_MISSING, "owners", value, optional=False)

    def test_short_text_of_254_bytes(self) -> None:
        for name in SHORTS:
            for text in ("a" * SHORT, "é" * (SHORT // 2)):
                self.assertEqual(reader(name)(posted(**{name: text})), text)
            for value in ("a" * (SHORT + 1), "é" * (SHORT // 2) + "a", None):
                self.assertIn("254 bytes", self.refused(TOO_BIG[name], name, value))

    def test_numbers_of_nine_digits(self) -> None:
        for name in NUMBERS:
            self.assertEqual(reader(name)(posted(**{name: " 000000012 "})), 12)
            self.assertEqual(reader(name)(posted(**{name: "9" * 9})), 999_999_999)
            self.assertEqual(reader(name)(posted(**{name: "0"})), 0)
            for text in ("1" * 10, "0" * 10, "a" * 10, None):
                self.assertIn("9 digits", self.refused(TOO_BIG[name], name, text))

    def test_what_is_no_number_counts_as_not_posted(self) -> None:
        # interface_job_state lists the jobs then; where the number is compulsory, it is missing.
        for text in ("abc", "-1", "+1", "1.0", "1e3", "0x1", "1 2", "1_000", "٣", "", " "):
            for name in NUMBERS:
                self.assertIsNone(reader(name)(posted(**{name: text})), (name, text))
            for name in ("job_id", "session_id", "version"):
                self.refused(MISSING[name], name, text, optional=False)

    def test_long_text_of_65354_bytes(self) -> None:
        for name in LONGS:
            for text in ("a" * LONG, "\N{GRINNING FACE}" * (LONG // 4)):
                self.assertEqual(reader(name)(posted(**{name: text})), text)
            for value in ("a" * (LONG + 1), "é" * (LONG // 2 + 1), None):
                self.assertIn("65354 bytes", self.refused(TOO_BIG[name], name, value))

    def test_lists_and_the_names_in_them(self) -> None:
        for name in NAMES:
            self.assertEqual(reader(name)(posted(**{name: " a , b,,a "})), ("a", "b"))
            self.assertEqual(reader(name)(posted(**{name: "a" * SHORT + ", b"})), ("a" * SHORT, "b"))
            for text in ("a" * (SHORT + 1), "b, " + "é" * 128, "a, b\x07", "a\u202eb", "a\u2028b", "a\nb"):
                self.refused(TOO_BIG[name], name, text)
            for value in ("a," * LONG, None):
                self.assertIn("65354 bytes", self.refused(TOO_BIG[name], name, value))

    def test_keys(self) -> None:
        for text in ("a", "A-z_09", "x" * KEY):
            self.assertEqual(reader("submission_key")(posted(submission_key=f" {text}\n")), text)
        for value in (None, "", " "):
            fields = posted() if value is None else posted(submission_key=value)
            self.assertEqual(reader("submission_key")(fields), "")
        for wrong in ("x" * (KEY + 1), "x" * 300, None, "a b", "a:b", "é", "a\nb", "a\x00", "٣", b"\xff"):
            said = self.refused(ErrorNumber.UPLOAD_FAILED, "submission_key", wrong)
            self.assertIn("submission_key", said)

    def test_how_many_jobs(self) -> None:
        for text, number in (("1", 1), (f" {JOBS}\n", JOBS), ("02", 2)):
            self.assertEqual(posted(number_of_jobs=text).count("number_of_jobs"), number)
        wrong: tuple[tuple[ErrorNumber, tuple[str | None, ...]], ...] = (
            (ErrorNumber.LIMIT_TOO_BIG, ("0", str(JOBS + 1), "9" * 9, "1" * 10, None)),
            (ErrorNumber.JOB_ID_MISSING, ("", "x", "-1", "1.0")),
        )
        for due, values in wrong:
            for value in values:
                error = self.assertRaises(LGIError, posted(number_of_jobs=value).count, "number_of_jobs")
                self.assertEqual(error.number, due, value)
                self.assertIn("number_of_jobs", str(error))
        self.assertRaises(LGIError, posted().count, "number_of_jobs")

    def test_fields_of_one_of_several_jobs(self) -> None:
        fields = posted(
            job_id="1", job_id_2="2", output_2="6162", state_2="running", state_22="queued", output_3=None
        )
        second = fields.numbered(2)
        self.assertEqual((second.integer("job_id"), second.binhex("output")), (2, b"ab"))
        self.assertEqual((second.optional_short("state"), second.optional_long("job_specifics")), ("running", None))
        for read, name, number in (
            (fields.numbered(3).integer, "job_id", ErrorNumber.JOB_ID_MISSING),
            (fields.numbered(3).binhex, "output", ErrorNumber.OUTPUT_TOO_BIG),
        ):
            error = self.assertRaises(LGIError, read, name)
            self.assertEqual(error.number, number)
            self.assertIn(f"{name}_3", str(error))

    def test_jobs_and_their_states(self) -> None:
        read = reader("jobs")
        self.assertEqual(read(posted()), {})
        self.assertEqual(read(posted(jobs=" , ")), {})
        self.assertEqual(
            read(posted(jobs="12:queued, 3 : ?,, 999999999:deleted")),
            {12: JobState.QUEUED, 3: None, 999_999_999: JobState.DELETED},
        )
        most = dict.fromkeys(range(LIST))
        self.assertEqual(read(posted(jobs=",".join(f"{number}:?" for number in most))), most)
        for wrong, item in (
            ("1:?, 12", "'12'"),
            ("12:strange", "'12:strange'"),
            ("12:Queued", "'12:Queued'"),
            ("12:", "'12:'"),
            (":queued", "':queued'"),
            ("-1:?", "'-1:?'"),
            ("٣:?", "'٣:?'"),
            ("1234567890:?", "'1234567890:?'"),
            ("1:queued:2", "'1:queued:2'"),
            ("1:?, 01:queued", "job 1 "),
            (",".join(f"{number}:?" for number in range(LIST + 1)), f"{LIST + 1} items"),
            ("," * (LONG + 1), f"{LONG} bytes"),
            (None, f"{LONG} bytes"),
        ):
            said = self.refused(ErrorNumber.JOB_ID_MISSING, "jobs", wrong)
            self.assertIn("jobs: ", said)
            self.assertIn(item, said)

    def test_data_of_65354_bytes_after_decoding(self) -> None:
        for name in HEXES:
            data = b"\x00\xff" * (LONG // 2)
            self.assertEqual(reader(name)(posted(**{name: data.hex()})), data)
            self.assertEqual(reader(name)(posted(**{name: f"  {data.hex().upper()}\r\n"})), data)
            self.assertIn("65354 bytes", self.refused(TOO_BIG[name], name, data.hex() + "00"))
            for text in (" " * (RECEIVED_MAXIMUM + 1), None):
                self.refused(TOO_BIG[name], name, text)

    def test_data_that_are_not_hexadecimal(self) -> None:
        for name in HEXES:
            for text in ("0", "0g", "hello", "00 11"):
                self.assertIn("hexadecimal", self.refused(TOO_BIG[name], name, text))

    def test_nul_control_characters_and_invalid_utf8(self) -> None:
        for name in (*SHORTS, *NAMES, *LONGS, *HEXES):
            for value in (b"a\x00b", b"\x1b[0m", b"a\x08b"):
                self.assertIn("control characters", self.refused(TOO_BIG[name], name, value))
            for value in (b"\xff\xfe", b"a\xc3", b"\xed\xa0\x80", b"\xc0\x80"):
                self.assertIn("UTF-8", self.refused(TOO_BIG[name], name, value))
        for name in NUMBERS:
            for value in (b"1\x00", b"\xff"):
                self.refused(TOO_BIG[name], name, value)

    def test_line_ends_are_for_long_text_only(self) -> None:
        self.assertEqual(reader("job_specifics")(posted(job_specifics="<a>\r\n\t1\n</a>")), "<a>\r\n\t1\n</a>")
        for name in SHORTS:
            self.refused(TOO_BIG[name], name, "a\nb")

    @given(st.sampled_from([*SHORTS, *NUMBERS, *NAMES, *LONGS, *HEXES]), st.binary(max_size=40), st.booleans())
    @example("job_id", "²".encode(), False)
    @example("user", b"\xc2\xa0", False)
    @example("owners", b"\xc2\x85", False)
    def test_any_bytes_are_read_or_refused_by_number(self, name: str, value: bytes, optional: bool) -> None:
        if name not in COMPULSORY:
            optional = True
        try:
            reader(name, optional=optional)(posted(**{name: value}))
        except LGIError as problem:
            self.assertIn(problem.number, {TOO_BIG[name], MISSING.get(name)})

    @given(lists_of_names)
    def test_names_come_back(self, items: tuple[str, ...]) -> None:
        self.assertEqual(reader("owners")(posted(owners=", ".join(items))), items)


def _last(name: str) -> str:
    others = {"target_resources": "targets", "job_specifics": "specifics"}
    # Fields of ours take the number of the one they stand for.
    others |= {"applications": "application", "wait": "limit", "cancel": "state", "number_of_jobs": "limit"}
    return others.get(name, name).split("_")[-1]
