"""The error table."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lgi.errors import MESSAGES, ErrorNumber, LGIError

TABLE = Path(__file__).parents[1] / "data" / "errors.tsv"


class ErrorTableTests(SynchronousTestCase):
    """The numbers are those that deployed clients know."""

    def setUp(self) -> None:
        lines = TABLE.read_text("utf-8").splitlines()
        self.assertEqual(lines[0], "number\twhen")
        self.known = {int(number): when for number, when in (line.split("\t") for line in lines[1:])}

    def test_table_and_numbers_are_the_same(self) -> None:
        self.assertEqual({int(number) for number in ErrorNumber}, set(self.known))
        self.assertEqual(sorted(self.known), list(range(1, 74)))

    def test_every_number_has_a_text_of_its_own(self) -> None:
        self.assertEqual(set(MESSAGES), set(ErrorNumber))
        for number, text in MESSAGES.items():
            self.assertTrue(text.strip(), number)
            self.assertFalse(set(text) & set("<>&\n"), number)
        self.assertEqual(len(set(MESSAGES.values())), len(MESSAGES))

    def test_names_say_what_the_table_says(self) -> None:
        # The field named in the table is the one in the name and in the text.
        for number, when in self.known.items():
            name, text = ErrorNumber(number).name, MESSAGES[ErrorNumber(number)]
            for word, part in (("too big", "_TOO_BIG"), ("not well formed", "_MALFORMED")):
                if word in when:
                    self.assertTrue(name.endswith(part), (number, name))
            field = when.removesuffix(" too big").removesuffix(" missing")
            if field != when and " " not in field:
                self.assertIn(field, text, number)

    def test_numbers_that_clients_act_upon(self) -> None:
        for number, name in (
            (1, "OVERLOADED"),
            (15, "JOB_UNKNOWN"),
            (16, "SESSION_ENDED"),
            (17, "SESSION_HOLDS_LOCKS"),
            (24, "STATE_HIDDEN"),
            (33, "SUBMIT_REFUSED"),
        ):
            self.assertEqual(ErrorNumber(number).name, name)


class LGIErrorTests(SynchronousTestCase):
    """What an error says."""

    def test_message_is_the_tables_text_and_the_detail(self) -> None:
        plain = LGIError(ErrorNumber.JOB_UNKNOWN)
        self.assertEqual(str(plain), "there is no such job")
        self.assertEqual((plain.detail, plain.timeout), ("", None))
        self.assertEqual(str(LGIError(ErrorNumber.JOB_UNKNOWN, "number 7")), "there is no such job: number 7")

    def test_timeout_is_kept(self) -> None:
        self.assertEqual(LGIError(ErrorNumber.OVERLOADED, timeout=10).timeout, 10)
