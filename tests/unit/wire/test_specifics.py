"""A job's specifics."""

from __future__ import annotations

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from lgi.wire.dialect import MalformedXML, parse_fragment
from lgi.wire.specifics import posted_specifics, read_tag, with_repository, with_tags, without
from tests.strategies import fragments, unicode_text
from tests.unit.wire.test_dialect import deployed_value

PLACE, URL = "LGI@host:/repository/a/JOB_1", "https://host/LGI/repository/a/JOB_1"


class PostedTests(SynchronousTestCase):
    """What of posted specifics is kept."""

    def test_kept_as_posted(self) -> None:
        for text in ("", "<nprocs> 2 </nprocs>", "text <a b='1'>x</a>", "<a/>"):
            self.assertEqual(posted_specifics(f" {text}\n"), text)

    def test_the_servers_tags_are_dropped_at_every_depth(self) -> None:
        for text, expected in (
            ("<repository> /etc </repository>", ""),
            ("<a> 1 </a> <repository_url> x </repository_url> <b> 2 </b>", "<a> 1 </a>  <b> 2 </b>"),
            ("<a> <repository> /etc </repository> 1 </a>", "<a> 1 </a>"),
            ("<repository> <repository> a </repository> b </repository> c", "c"),
            ("<repository/><repository /> x", "x"),
            ("<repository a='b'> /etc </repository>tail", "tail"),
            ("a<repository/>b<c> </c>d<repository/>e", "ab<c>  </c>de"),
        ):
            self.assertEqual(posted_specifics(text), expected, text)

    def test_what_would_pass_for_the_answers_own_is_refused(self) -> None:
        for tag in ("job_specifics", "job", "response", "LGI", "error"):
            for text in (f"<{tag}> x </{tag}>", f"<a> <{tag}/> </a>", f"<{tag} number='2'> </{tag}>"):
                self.assertRaises(MalformedXML, posted_specifics, text)

    @given(fragments)
    def test_a_deployed_reader_finds_the_servers_repository(self, text: str) -> None:
        hostile = f"{text} <repository> /etc </repository> <x> <repository_url> evil </repository_url> </x>"
        kept = with_repository(posted_specifics(hostile), PLACE, URL)
        parse_fragment(kept)
        self.assertEqual(deployed_value(kept, "repository").strip(), PLACE)
        self.assertEqual(deployed_value(kept, "repository_url").strip(), URL)

    @given(unicode_text)
    def test_any_text_is_kept_well_formed_or_refused(self, text: str) -> None:
        try:
            kept = posted_specifics(text)
        except MalformedXML:
            return
        self.assertEqual(posted_specifics(kept), kept)


class TagTests(SynchronousTestCase):
    """The tags that the server and the daemon add."""

    def test_repository_comes_last(self) -> None:
        self.assertEqual(
            with_repository("<a> 1 </a>", "p", "u"),
            "<a> 1 </a> <repository> p </repository> <repository_url> u </repository_url>",
        )
        self.assertEqual(
            with_repository("", "p&", "u"), "<repository> p&amp; </repository> <repository_url> u </repository_url>"
        )

    def test_tags_come_first_and_once(self) -> None:
        text = with_tags("<a> 1 </a>", daemon_reference="X", exit_status=3)
        self.assertEqual(text, "<daemon_reference> X </daemon_reference> <exit_status> 3 </exit_status> <a> 1 </a>")
        again = with_tags(text, daemon_reference="Y")
        self.assertEqual(again, "<daemon_reference> Y </daemon_reference> <exit_status> 3 </exit_status> <a> 1 </a>")
        self.assertEqual(with_tags("", exit_status=0), "<exit_status> 0 </exit_status>")

    def test_reading(self) -> None:
        text = "<a> <exit_status> 1 </exit_status> </a> <exit_status> 2 </exit_status>"
        self.assertEqual((read_tag(text, "exit_status"), read_tag(text, "nothing")), ("1", ""))

    def test_malformed_specifics_are_refused(self) -> None:
        self.assertRaises(MalformedXML, with_tags, "<a>", exit_status=1)
        self.assertRaises(MalformedXML, without, "<a>", ["a"])
        self.assertRaises(MalformedXML, read_tag, "<a>", "a")

    @given(fragments, unicode_text.filter(lambda text: text.isprintable()))
    def test_a_tag_is_read_as_it_was_written(self, text: str, value: str) -> None:
        self.assertEqual(read_tag(with_tags(text, daemon_reference=value), "daemon_reference"), value.strip())
