"""The XML dialect of deployed programs."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lgi.wire.dialect import (
    MalformedXML,
    element,
    escape,
    inner_xml,
    parse_fragment,
    raw_element,
    read_answer,
    refuse_tags,
    text_of,
)
from tests.strategies import fragments, tags, unicode_text, xml_text


def deployed_value(answer: str, tag: str) -> str:
    """What a deployed reader gets: what follows the first `<tag` and a space or `>`, up to the first end tag."""
    found = re.search(rf"<{tag}(?: [^>]*)?>(.*?)</{tag}>", answer, re.DOTALL)
    assert found is not None, f"no <{tag}>"
    return found[1]


class WritingTests(SynchronousTestCase):
    """What is written is what deployed readers can read."""

    def test_one_space_on_each_side_two_when_empty(self) -> None:
        self.assertEqual(element("state", "queued"), "<state> queued </state>")
        self.assertEqual(element("state", ""), "<state>  </state>")
        self.assertEqual(element("job_id", 7), "<job_id> 7 </job_id>")
        self.assertEqual(raw_element("job", "<a> 1 </a>", " number='1'"), "<job number='1'> <a> 1 </a> </job>")

    def test_five_escapes_and_no_others(self) -> None:
        self.assertEqual(escape("<a b=\"c\" d='e'> & é"), "&lt;a b=&quot;c&quot; d=&apos;e&apos;&gt; &amp; é")
        self.assertEqual(escape("&lt;"), "&amp;lt;")

    @given(unicode_text, tags)
    @example("</a> <a> x", "a")
    @example("]]>", "a")
    def test_a_value_never_ends_its_element(self, text: str, tag: str) -> None:
        written = element(tag, text)
        self.assertEqual(deployed_value(written, tag), f" {escape(text)} ")
        self.assertEqual(written.count("<"), 2)

    @given(xml_text, tags)
    def test_a_value_comes_back(self, text: str, tag: str) -> None:
        root = read_answer(f"<LGI> {element(tag, text)} </LGI>".encode())
        self.assertEqual(text_of(root, tag), text.strip())


class FragmentTests(SynchronousTestCase):
    """Posted XML is well formed, and means the same to every reader, or it is refused."""

    def test_elements_and_text_are_taken(self) -> None:
        root = parse_fragment("a <nprocs> 2 </nprocs> b <disk unit='G'> 5 </disk>")
        self.assertEqual([child.tag for child in root], ["nprocs", "disk"])
        self.assertEqual(len(parse_fragment("")), 0)
        self.assertEqual(text_of(parse_fragment("<a/>"), "a"), "")

    def test_what_is_not_well_formed_is_refused(self) -> None:
        for text in (
            "<a>",
            "</a>",
            "<a></b>",
            "<a><b></a></b>",
            "a < b",
            "a & b",
            "&nbsp;",
            "&#0;",
            "<a b=c/>",
            "<a b='1' b='2'/>",
            "]]>",
            "\x00",
            "<a>\x00</a>",
            "\x08",
            "\ud800",
            "\ufffe",
            "</fragment><fragment>",
            "</fragment>",
            "<!DOCTYPE a>",
            "<!ENTITY a 'b'>",
            "<?xml version='1.0'?>",
            "<x:a> 1 </x:a>",
            "<a>" * 300 + "</a>" * 300,
        ):
            self.assertRaises(MalformedXML, parse_fragment, text)

    def test_what_readers_would_see_differently_is_refused(self) -> None:
        for text in (
            "<!-- <repository> x </repository> -->",
            "<?php <repository> x </repository> ?>",
            "<![CDATA[<repository> x </repository>]]>",
            "<![CDATA[</job_specifics> <job_id> 1 </job_id>]]>",
            "<a xmlns='urn:x'> <repository> x </repository> </a>",
            "<a xmlns:b='urn:x'> <b:repository> x </b:repository> </a>",
            "<a xml:lang='nl'> 1 </a>",
        ):
            error = self.assertRaises(MalformedXML, parse_fragment, text)
            self.assertIn("no place", str(error), text)

    def test_tags_are_refused_at_every_depth(self) -> None:
        root = parse_fragment("<a> <b> <job> 1 </job> </b> </a>")
        self.assertIn("<job>", str(self.assertRaises(MalformedXML, refuse_tags, root, frozenset({"job"}))))
        refuse_tags(root, frozenset({"jobs", "JOB"}))

    @given(fragments)
    def test_the_dialect_is_taken_and_written_again_the_same(self, text: str) -> None:
        once = inner_xml(parse_fragment(text))
        self.assertEqual(inner_xml(parse_fragment(once)), once)

    @given(unicode_text | st.text("<>/&;ab='\"![-]", max_size=30))
    @example("\x85")
    @example("<a\xa0/>")
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            root = parse_fragment(text)
        except MalformedXML as problem:
            self.assertTrue(str(problem))
            return
        self.assertEqual(root.tag, "fragment")


class ReadingTests(SynchronousTestCase):
    """Answers of servers, also those that are a little broken."""

    def test_answer_that_is_not_closed_is_read(self) -> None:
        root = read_answer(b"<LGI> <response> <url> http://h </response> <number> 3 </number>")
        self.assertEqual(text_of(root, ".//number"), "3")

    def test_what_is_no_answer_is_refused(self) -> None:
        for data in (
            b"",
            b" \n",
            b"hello",
            b"<html><body> 502 Bad Gateway </body></html>",
            b"\x00\x00",
            b"\xff\xfe",
            b"<",
            b"{}",
        ):
            self.assertRaises(MalformedXML, read_answer, data)

    @given(st.binary(max_size=60) | unicode_text.map(str.encode))
    @example(b"\x00")
    def test_any_bytes_are_read_or_refused(self, data: bytes) -> None:
        try:
            read_answer(data)
        except MalformedXML:
            return
        self.assertIn(b"<", data)

    def test_entities_are_not_expanded_and_nothing_is_fetched(self) -> None:
        data = (
            b"<!DOCTYPE LGI [<!ENTITY a SYSTEM 'file:///etc/passwd'> <!ENTITY b 'bb'> <!ENTITY c '&b;&b;'>]>"
            b"<LGI> <user> x&a;y&c; </user> </LGI>"
        )
        text = inner_xml(read_answer(data))
        self.assertNotIn("root", text)
        self.assertNotIn("bb", text)

    def test_missing_text_is_empty(self) -> None:
        self.assertEqual((text_of(None), text_of(parse_fragment(""), "a"), inner_xml(None)), ("", "", ""))

    def test_inner_xml_keeps_what_follows_a_comment(self) -> None:
        root = read_answer(b"<LGI><a x='1\"'>1<!-- c -->2<b/>3</a>4</LGI>")
        self.assertEqual(inner_xml(root), "<a x='1&quot;'> 12<b>  </b>3 </a>4")
