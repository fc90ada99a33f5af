"""How sizes, times and jobs look."""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase

from lgi.cli.screen import as_text, printable
from lgi.cli.show import details, duration, exit_status, job_value, size, succeeded
from lgi.client.answers import JobAnswer, read_job, read_response
from tests.unit.client import fakes


def found(*args: object, **kwargs: object) -> JobAnswer:
    return read_job(read_response(fakes.detail(*args, **kwargs)).find("job"))


class Words(SynchronousTestCase):
    def test_sizes(self) -> None:
        for count, text in ((0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB")):
            self.assertEqual(size(count), text)
        self.assertEqual(size(5 * 10**15), "5000.0 TB")

    def test_durations(self) -> None:
        for seconds, text in (
            (-5.0, "0 s"),
            (0.9, "0 s"),
            (185, "3 min 5 s"),
            (7800, "2 h 10 min"),
            (90061, "1 d 1 h"),
        ):
            self.assertEqual(duration(seconds), text)

    def test_nothing_steers_the_terminal(self) -> None:
        self.assertEqual(printable("a\x1b[31m\r\n"), "a\\x1b[31m\\r\\n")
        self.assertEqual(as_text(b"caf\xc3\xa9\t\xff\x1b]0;x\x07\n"), "café\t\\xff\\x1b]0;x\\x07\n")


class Jobs(SynchronousTestCase):
    def test_exit_status(self) -> None:
        for specifics, state, status, good in (
            ("<exit_status> 0 </exit_status>", "finished", 0, True),
            ("<exit_status> 3 </exit_status>", "finished", 3, False),
            ("<exit_status> -9 </exit_status>", "finished", -9, False),
            ("<exit_status> soon </exit_status>", "finished", None, True),
            ("", "finished", None, True),
            ("<exit_status> 0 </exit_status>", "aborted", 0, False),
            ("<exit_status> 0 </exit_status>", "queued", None, False),
        ):
            job = found(state=state, specifics=specifics).job
            self.assertEqual((exit_status(job), succeeded(job)), (status, good), specifics)

    def test_json_loses_nothing(self) -> None:
        value = job_value(found(7, "finished", input=b"text \xc3\xa9", output=b"\xff\x00", files={"b": 2, "a": 1}))
        self.assertEqual((value["input"], value["output"]), ("text é", None))
        self.assertEqual(base64.b64decode(value["output_base64"]), b"\xff\x00")
        self.assertEqual([file["name"] for file in value["files"]], ["a", "b"])
        self.assertEqual(value["repository_url"], f"https://localhost:8443/LGI/repository/b07/{fakes.STORE}")
        self.assertEqual(
            (value["job_id"], value["state"], value["owners"]), (7, "finished", ["mark@localhost", "theor"])
        )

    def test_a_job_of_the_list_has_no_input(self) -> None:
        self.assertEqual({"input", "output", "files"} & set(job_value(found(input=None))), set())

    def test_details(self) -> None:
        specifics = "<exit_status> 2 </exit_status> <daemon_reference> ABC </daemon_reference> <nprocs> 2 </nprocs>"
        lines = list(
            details(
                found(
                    7,
                    "finished",
                    specifics=specifics,
                    input=b"in",
                    output=b"one\n\x1b\xfe\n",
                    files={"a b.csv": 12_345},
                )
            )
        )
        text = "\n".join(lines)
        self.assertEqual(lines[0], "Job 7")
        self.assertIn("finished (exit status 2) since 20", text)
        self.assertIn("Specifics:   <nprocs> 2 </nprocs>", text)
        self.assertNotIn("ABC", text)
        self.assertIn("    one\n    \\x1b\\xfe", text)
        self.assertRegex(text, r"a b\.csv +12\.3 kB")
        self.assertNotIn(".LGI_repository_write_access", text)
