"""`LGI.LGI_Client` of the document: answers as dictionaries, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import LGI
from tests.unit.client.fakes import detail, job, listed, refusal, resources


class AnswerTests(SynchronousTestCase):
    """What becomes of the XML."""

    def read(self, body: bytes) -> Any:
        response: Any = type("Response", (), {"status": 200})
        return LGI.LGI_Client._answer(response, body)

    def test_a_job(self) -> None:
        specifics = "<a> 1 </a> <a> x </a> <b n='2'> y </b> <output> none </output>"
        answer = self.read(detail(6, "finished", input=b"\x00in", output=b"out\xff", specifics=specifics))
        entry = answer["LGI"]["response"]["job"]
        self.assertEqual(entry["attributes"], {"number": 1})
        self.assertEqual((entry["job"]["job_id"], entry["job"]["state"]), (6, "finished"))
        self.assertEqual((entry["job"]["input"], entry["job"]["output"]), (b"\x00in", b"out\xff"))
        told = entry["job"]["job_specifics"]
        self.assertEqual(told["a"], [1, "x"])
        self.assertEqual(told["b"], {"attributes": {"n": 2}, "b": "y"})
        self.assertEqual(told["output"], "none")

    def test_lists_and_errors(self) -> None:
        answer = self.read(listed(job(1, input=None), job(2, input=None)))
        self.assertEqual([one["job"]["job_id"] for one in answer["LGI"]["response"]["job"]], [1, 2])
        answer = self.read(resources(one="hello_world lj_md"))
        resource = answer["LGI"]["response"]["resource"]["resource"]
        self.assertEqual(resource["resource_capabilities"], {"hello_world": "", "lj_md": ""})
        answer = self.read(refusal(15, "no such job"))
        self.assertEqual(answer["LGI"]["response"]["error"], {"number": 15, "message": "no such job"})
        problem = self.assertRaises(LGI.LGI_Error, self.read, b"<html> Bad gateway </html>")
        self.assertIn("HTTP status 200", str(problem))

    def test_numbers_are_digits_of_ours(self) -> None:
        answer = self.read(f"<LGI> <a> 007 </a> <b> ² </b> <c> {'9' * 5000} </c> <d> -1 </d> </LGI>".encode())
        told = answer["LGI"]
        self.assertEqual((told["a"], told["b"], len(told["c"]), told["d"]), (7, "²", 5000, "-1"))


class SettingsTests(SynchronousTestCase):
    """What it is told, and what it reads."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp())
        self.home.mkdir()

    def make(self, **more: Any) -> LGI.LGI_Client:
        self.patch(os, "environ", {"LGI_CONFIG": str(self.home)})
        return LGI.LGI_Client(**more)

    def test_what_is_missing_is_named(self) -> None:
        self.assertIn("defaultserver", str(self.assertRaises(LGI.LGI_Error, self.make)))
        given = {"Project": "LGI", "User": "u", "Groups": "g"}
        for url in ("http://a.example/LGI", "nonsense", "https://", "https://a.example:x/LGI"):
            problem = self.assertRaises(LGI.LGI_Error, self.make, URL=url, **given)
            self.assertIn(repr(url), str(problem))
        client = self.make(URL="https://a.example/LGI", **given)
        self.assertIn("certificate", str(self.assertRaises(LGI.LGI_Error, client.GetServerList)))

    def test_a_file_that_changes_is_not_sent(self) -> None:
        file = self.home / "file"
        file.write_bytes(b"x" * 100)
        form = LGI._Form({"a": 1}, [str(file)])
        file.write_bytes(b"x" * 50)
        with form:
            self.assertRaises(LGI.LGI_Error, lambda: b"".join(form.pieces()))
        form = LGI._Form({"a": 1}, [str(file)])
        with form:
            body = b"".join(form.pieces())
        self.assertEqual(len(body), int(form.headers["Content-Length"]))
        self.assertIn(b'name="uploaded_file_1"; filename="file"', body)
        self.assertRaises(FileNotFoundError, LGI._Form, {}, [str(file), "/no/such/file"])
