"""What is made of answers, good ones and broken ones."""

from __future__ import annotations

from lxml import etree
from twisted.trial.unittest import SynchronousTestCase

from lgi.client.answers import (
    AnswerMalformed,
    ServerRefused,
    read_files,
    read_integer,
    read_job,
    read_resources,
    read_response,
)
from lgi.states import JobState
from tests.unit.client import fakes


class ReadResponse(SynchronousTestCase):
    def test_job_detail(self) -> None:
        response = read_response(fakes.detail(7, "running", input=b"in\xff", output=b"OK\n", files={"a b.txt": 9}))
        found = read_job(response.find("job"))
        self.assertEqual((found.job.job_id, found.job.state), (7, JobState.RUNNING))
        self.assertEqual((found.job.input, found.job.output), (b"in\xff", b"OK\n"))
        self.assertEqual(found.job.owners, ("mark@localhost", "theor"))
        assert found.files is not None
        self.assertEqual([(file.name, file.size) for file in found.files][1:], [("a b.txt", 9)])

    def test_a_page_of_somebody_else(self) -> None:
        page = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
        self.assertRaisesRegex(AnswerMalformed, "cannot be read", read_response, page)

    def test_no_answer(self) -> None:
        for body in (b"", b"  \n", b"out of order", b"\x00\x01\x02"):
            self.assertRaises(AnswerMalformed, read_response, body)

    def test_every_half_answer_is_refused(self) -> None:
        whole = fakes.detail(7, "finished", output=b"OK\n")
        read_response(whole + b"\n")
        for length in range(len(whole)):
            self.assertRaises(AnswerMalformed, read_response, whole[:length])

    def test_listing_where_an_answer_belongs(self) -> None:
        listing = b"<repository_content> <number_of_files> 0 </number_of_files> </repository_content>"
        self.assertRaisesRegex(AnswerMalformed, "repository_content", read_response, listing)

    def test_refusal_with_number_message_and_time(self) -> None:
        refused = self.assertRaises(ServerRefused, read_response, fakes.refusal(1, "busy", timeout=10))
        self.assertEqual((refused.number, refused.message, refused.timeout), (1, "busy", 10))

    def test_refusal_without_number(self) -> None:
        self.assertRaises(AnswerMalformed, read_response, fakes.answer("<error> <message> x </message> </error>"))


class ReadJob(SynchronousTestCase):
    def refused(self, text: str, pattern: str) -> None:
        self.assertRaisesRegex(AnswerMalformed, pattern, read_job, etree.fromstring(text))

    def test_another_job(self) -> None:
        self.assertRaisesRegex(
            AnswerMalformed, "about job 6, not about job 7", read_job, etree.fromstring(fakes.job(6)), job_id=7
        )

    def test_state_left_out(self) -> None:
        without = fakes.job().replace("<state> queued </state>", "")
        self.refused(without, "state ''")
        self.assertIs(read_job(etree.fromstring(without), state=JobState.QUEUED).job.state, JobState.QUEUED)

    def test_values_that_are_none(self) -> None:
        self.assertRaises(AnswerMalformed, read_job, None)
        self.refused(fakes.job(state="confused"), "'confused'")
        self.refused(fakes.job().replace("<job_id> 6 ", "<job_id> six "), "job_id.*'six'")
        self.refused(fakes.job().replace("1795167314", "--1"), "state_time_stamp")
        self.refused(fakes.job(input=b"ab").replace("6162", "616"), "hexadecimal.*<input>")
        self.refused(fakes.job(output=b"ab").replace("6162", "zz"), "hexadecimal.*<output>")
        self.refused(fakes.job().replace("1795167086.4014803660", "nan"), "<date>")

    def test_a_number_too_long_to_be_one(self) -> None:
        self.assertRaises(AnswerMalformed, read_integer, etree.fromstring(f"<x> <n> {'9' * 5000} </n> </x>"), "n")

    def test_file_without_size(self) -> None:
        content = etree.fromstring("<c> <file> <file_name> x </file_name> <date> 1 </date> </file> </c>")
        self.assertRaises(AnswerMalformed, read_files, content)


class ReadResources(SynchronousTestCase):
    def test_applications(self) -> None:
        rows = read_resources(read_response(fakes.resources(old="", new="hello_world lj_md")))
        self.assertEqual([row.applications for row in rows], [(), ("hello_world", "lj_md")])

    def test_capabilities_are_never_expanded(self) -> None:
        [row] = read_resources(read_response(fakes.resources(one="a")))
        self.assertEqual(row.applications, ("a",))
