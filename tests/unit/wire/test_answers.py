"""The server's answers: whatever the values, a deployed client reads the server's words and nobody else's."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lgi.errors import ErrorNumber, LGIError
from lgi.model import Job, ListedJob, Lock, RepositoryFile, Resource
from lgi.states import JobState
from lgi.wire import answers, resource_answers, user_answers
from lgi.wire.dialect import escape, read_answer, text_of
from tests.strategies import xml_text
from tests.unit.wire.test_dialect import deployed_value

ENVELOPE = answers.Envelope(lgi_version="2.0", ca_certificate_url="https://host/LGI/ca.crt")
HOSTILE = [
    "</response> <error> <number> 15 </number> </error>",
    "</job> <job number='2'> <job_id> 666 </job_id>",
    "<job_id> 666 </job_id>",
    "&lt;job_id&gt; & <![CDATA[",
    '\' onload="x" <script>',
    "</message> <timeout> 0 </timeout>",
    "]]> -->",
    "",
    "é \N{GRINNING FACE}",
]
SERVERS = answers.Servers(master="https://m/LGI", this="https://t/LGI", slaves=("https://s1/LGI", "https://s2/LGI"))


def _job(text: str) -> Job:
    return Job(
        job_id=7,
        state=JobState.RUNNING,
        application=text,
        target_resources=(text,),
        owners=(text,),
        read_access=(text,),
        write_access=(text,),
        job_specifics="<a> 1 </a>",
        state_time_stamp=11,
        input=b"in",
        output=b"",
    )


def _listed(text: str) -> ListedJob:
    job = _job(text)
    return ListedJob(
        job_id=job.job_id,
        state=job.state.value,
        state_time_stamp=job.state_time_stamp,
        target_resources=text,
        owners=text,
        application=text,
        read_access=text,
        write_access=text,
        job_specifics=job.job_specifics,
    )


def _resource(text: str) -> Resource:
    return Resource(resource_id=3, resource_name=text, resource_capabilities="<h> 1 </h>", url=text)


def _files(text: str) -> list[RepositoryFile]:
    return [RepositoryFile(name=text, size=1, date=1.5), RepositoryFile(name="b", size=2, date=2.25)]


LOCK = Lock(lock_id=1, job_id=7, resource_id=3, session_id=5, lock_time=9)
# Every kind of answer, made of one text wherever a client or an administrator has the choice of it.
MAKERS: dict[str, Callable[[str], str]] = {
    "session": lambda text: resource_answers.session(_resource(text), text, SERVERS, 5),
    "work": lambda text: resource_answers.work(
        _resource(text),
        text,
        SERVERS,
        session_id=5,
        application=text,
        owners=text,
        start=0,
        limit=2,
        number_of_jobs=1,
        jobs=[_job(text)],
    ),
    "resource_job": lambda text: resource_answers.resource_job(
        _resource(text), text, SERVERS, _job(text), session_id=5, files=_files(text)
    ),
    "lock": lambda text: resource_answers.lock(_resource(text), text, SERVERS, LOCK, session_id=5),
    "unlock": lambda text: resource_answers.lock(_resource(text), text, SERVERS, LOCK, session_id=5, unlock_time=12),
    "submitted": lambda text: user_answers.submitted(
        text, SERVERS, text, [text], _job(text), _files(text), job_wait=0
    ),
    "job_list": lambda text: user_answers.job_list(
        text,
        SERVERS,
        text,
        [text],
        state=text,
        application=text,
        start=0,
        limit=2,
        number_of_jobs=1,
        jobs=[_listed(text)],
        job_wait=240,
    ),
    "job_changes": lambda text: user_answers.job_changes(
        text, SERVERS, text, [text], jobs=[_listed(text)], gone=(3, 12), job_wait=240
    ),
    "job_detail": lambda text: user_answers.job_detail(
        text, SERVERS, text, [text], _job(text), _files(text), job_wait=240
    ),
    "job_deleted": lambda text: user_answers.job_deleted(text, SERVERS, text, [text], _job(text)),
    "server_list": lambda text: user_answers.server_list(text, SERVERS, text, [text], job_wait=240),
    "resource_list": lambda text: user_answers.resource_list(text, SERVERS, text, [text], [_resource(text)]),
}


class AnswerTests(SynchronousTestCase):
    """One envelope, values escaped, orders kept."""

    def test_envelope(self) -> None:
        self.assertEqual(
            ENVELOPE.wrap("x"),
            b"<LGI> <API_version> 1.41 </API_version> <LGI_version> 2.0 </LGI_version> <CA_certificate> "
            b"https://host/LGI/ca.crt </CA_certificate> <server_max_field_size> 65355 </server_max_field_size>  "
            b"<response> x </response> </LGI>",
        )

    def test_error(self) -> None:
        answer = ENVELOPE.wrap_error(LGIError(ErrorNumber.OVERLOADED, timeout=10)).decode()
        self.assertIn(
            "<response> <error> <number> 1 </number> "
            "<message> back-off: the server is busy, try again later </message>  "
            "<timeout> 10 </timeout> </error> </response>",
            answer,
        )
        self.assertNotIn("timeout", ENVELOPE.wrap_error(LGIError(ErrorNumber.JOB_UNKNOWN)).decode())

    def test_hostile_values_stay_values(self) -> None:
        for name, make in MAKERS.items():
            plain = make("plain")
            for text in HOSTILE:
                answer = make(text)
                # The same tags in the same order, whatever the values are.
                if text:
                    self.assertEqual(answer.replace(f" {escape(text)} ", " plain "), plain, (name, text))
                root = read_answer(ENVELOPE.wrap(answer))
                tags = [node.tag for node in root.iter()]
                self.assertEqual(tags, [node.tag for node in read_answer(ENVELOPE.wrap(plain)).iter()], (name, text))

    def test_error_messages_stay_values(self) -> None:
        for text in HOSTILE:
            answer = ENVELOPE.wrap_error(LGIError(ErrorNumber.JOB_UNKNOWN, text)).decode()
            self.assertEqual(deployed_value(answer, "number").strip(), "15")
            self.assertEqual(answer.count("<error>"), 1)
            self.assertEqual(answer.count("<timeout>"), 0)

    @given(st.sampled_from(sorted(MAKERS)), xml_text.filter(lambda text: text == text.strip()))
    def test_values_come_back(self, name: str, text: str) -> None:
        root = read_answer(ENVELOPE.wrap(MAKERS[name](text)))
        for path in (".//application", ".//user", ".//project", ".//resource_url"):
            if root.find(path) is not None:
                self.assertEqual(text_of(root, path), text, path)

    def test_repository_listing_has_no_envelope(self) -> None:
        for text in HOSTILE:
            answer = answers.listing(f"JOB_{text}", _files(text)).decode()
            self.assertTrue(answer.startswith("<repository_content> <repository_name> JOB_"))
            root = read_answer(answer.encode())
            self.assertEqual([text_of(file, "file_name") for file in root.iter("file")], [text, "b"])
            self.assertEqual(text_of(root, "number_of_files"), "2")
            self.assertIn('<file number="1">', answer)

    def test_status_of_a_repository(self) -> None:
        self.assertEqual(
            answers.status(404, "no <file>"),
            b"<status> <number> 404 </number> <message> no &lt;file&gt; </message> </status>\n",
        )

    def test_input_and_output_travel_in_lower_case_hexadecimal(self) -> None:
        answer = MAKERS["job_detail"]("x")
        self.assertEqual(deployed_value(answer, "input"), " 696e ")
        self.assertEqual(deployed_value(answer, "output"), "  ")
        self.assertNotIn("<input>", MAKERS["job_list"]("x"))

    def test_slaves_are_numbered(self) -> None:
        answer = MAKERS["server_list"]("x")
        self.assertIn(
            "<number_of_slave_servers> 2 </number_of_slave_servers> <project_server number='1'> https://s1/LGI "
            "</project_server> <project_server number='2'> https://s2/LGI </project_server>",
            answer,
        )
