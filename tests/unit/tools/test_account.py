"""Who the tools speak as: options, configuration directories, job directories."""

from __future__ import annotations

import os
from pathlib import Path

from lgi.client.settings import SettingsError
from lgi.tools import qsub
from lgi.tools.account import JobAccount, UserAccount, repository_url, user_account
from tests.unit.tools.case import ToolTestCase

URL = "https://grid.example/LGI/repository/001/JOB_00000000000000000000000000000001"
USER = {
    "privatekey": "key",
    "certificate": "certificate",
    "ca_chain": "chain",
    "defaultserver": "https://grid.example/LGI\n",
    "defaultproject": "LGI\n",
    "user": "mark@laptop\n",
    "groups": "theor, chem\n",
    "defaultapplication": "hello_world\n",
    "defaulttargetresources": "resource1@laptop\n",
    "defaultjobspecifics": "<default>hello</default>\n",
}
JOB = {
    "LGI_key_file": "key",
    "LGI_certificate_file": "certificate",
    "LGI_ca_certificate_file": "chain",
    "LGI_this_project_server": "https://slave.example/LGI",
    "LGI_project": "LGI",
    "LGI_owners": "mark@laptop, theor",
    "LGI_read_access": "admin, mark@laptop",
    "LGI_write_access": "admin",
    "LGI_job_specifics": f"<a> &lt; </a> <repository_url> {URL} </repository_url>",
}
OTHER = "https://other.example/LGI"
ALL = ["-K", "k", "-C", "c", "-CA", "a", "-S", OTHER, "-U", "piet@laptop", "-G", "chem", "-P", "XYZ"]


def make(path: Path, files: dict[str, str]) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def submission(*words: str) -> qsub.Submission:
    return qsub.submission(qsub.TOOL.parse(list(words)))


class AccountTests(ToolTestCase):
    """In an empty directory, with an empty home."""

    def setUp(self) -> None:
        super().setUp()
        self.here = Path.cwd()
        self.home = self.here / "home"
        self.home.mkdir()
        self.patch(os, "environ", {**os.environ, "HOME": str(self.home)})
        self.addCleanup(os.chdir, self.here)

    def configured(self, name: str = ".LGI", **changes: str) -> Path:
        return make(self.home / name, USER | changes)

    def refused(self, *words: str) -> str:
        with self.assertRaises(SettingsError) as problem:
            submission(*words)
        return str(problem.exception)

    def test_the_directory_in_the_home(self) -> None:
        directory = self.configured()
        account = submission().account
        assert isinstance(account, UserAccount)
        self.assertEqual(account.papers.key, directory / "privatekey")
        self.assertEqual((account.server, account.project), ("https://grid.example/LGI", "LGI"))
        self.assertEqual((account.user, account.groups), ("mark@laptop", ("theor", "chem")))
        self.assertTrue(account.papers.strict)

    def test_what_is_posted_without_options(self) -> None:
        self.configured()
        self.assertEqual(
            submission().fields,
            {
                "application": "hello_world",
                "target_resources": "resource1@laptop",
                "job_specifics": "<default>hello</default>",
            },
        )

    def test_options_go_first(self) -> None:
        self.configured()
        Path("input").write_bytes(b"hi\n")
        job = submission("-a", "x", "-t", "any", "-s", "", "-i", "input", "-r", "a, b", "-w", "c", "-W", *ALL)
        self.assertEqual(
            job.fields,
            {
                "application": "x",
                "target_resources": "any",
                "input": "68690a",
                "read_access": "a, b",
                "write_access": "c",
            },
        )
        assert isinstance(job.account, UserAccount)
        self.assertEqual((job.account.server, job.account.project), ("https://other.example/LGI", "XYZ"))
        self.assertEqual((job.account.user, job.account.groups), ("piet@laptop", ("chem",)))
        self.assertEqual(job.account.papers.certificate, Path("c"))
        self.assertFalse(job.account.papers.strict)

    def test_with_all_options_no_directory_is_needed(self) -> None:
        self.assertEqual(submission("-a", "x", *ALL).account.project, "XYZ")
        self.patch(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
        self.assertEqual(submission("-a", "x", *ALL).account.project, "XYZ")
        self.assertIn("there is no home directory", self.refused("-a", "x"))

    def test_all_that_is_missing_is_said(self) -> None:
        text = self.refused("-a", "x", "-U", "mark@laptop")
        for name, option in (
            ("privatekey", "-K"),
            ("certificate", "-C"),
            ("ca_chain", "-CA"),
            ("defaultserver", "-S"),
        ):
            self.assertIn(f"{self.home}/.LGI/{name} is missing", text)
            self.assertIn(f"there is no {option}", text)
        self.assertNotIn("defaultproject", text)
        self.assertNotIn("-U", text)

    def test_without_a_project_the_server_takes_its_own(self) -> None:
        directory = self.configured()
        (directory / "defaultproject").unlink()
        self.assertEqual(submission().account.project, "")

    def test_another_directory(self) -> None:
        self.configured("other", user="piet@laptop")
        account = user_account(qsub.TOOL.parse(["-c", str(self.home / "other")]))
        self.assertEqual(account.user, "piet@laptop")
        self.assertIn("is no directory", self.refused("-c", "missing", "-a", "x"))

    def test_what_is_wrong(self) -> None:
        self.configured(defaultserver="http://grid.example", defaultapplication="")
        self.assertIn("no https:// address", self.refused("-a", "x"))
        self.configured(defaultapplication="")
        self.assertIn("application is missing", self.refused())
        (self.home / ".LGI" / "groups").write_bytes(b"\xff")
        self.assertIn("groups is not UTF-8 text", self.refused("-a", "x"))

    def test_files_are_looked_at_before_anything_is_sent(self) -> None:
        self.configured()
        make(Path("a"), {"same": "1", "empty": ""})
        make(Path("b"), {"same": "2", ".hidden": "3"})
        self.assertEqual(submission("a/empty").files, (Path("a/empty"),))
        text = self.refused("a/same", "b/same", "b/.hidden", "missing", "b")
        for part in ("a/same and b/same have the same name", "'.hidden' cannot be", "missing: No such file", "b: "):
            self.assertIn(part, text)
        self.assertTrue(text.endswith("nothing was sent"))

    def test_in_a_job_directory_it_is_the_resource(self) -> None:
        self.configured()
        directory = make(Path("job"), JOB)
        for words in (["-j", "job"], []):
            if not words:
                os.chdir(directory)
            job = submission("-a", "x", *words)
            assert isinstance(job.account, JobAccount)
            self.assertEqual(job.account.server, "https://slave.example/LGI")
            self.assertEqual(job.account.owners, "mark@laptop, theor")
            self.assertEqual(job.account.papers.key.name, "LGI_key_file")
            self.assertEqual(
                job.fields,
                {
                    "application": "x",
                    "target_resources": "any",
                    "read_access": "admin, mark@laptop",
                    "write_access": "admin",
                },
            )

    def test_options_change_what_a_job_directory_says(self) -> None:
        make(Path("job"), JOB)
        job = submission("-a", "x", "-j", "job", "-K", "k", "-S", "https://other.example/LGI", "-P", "P", "-r", "all")
        self.assertEqual((job.account.papers.key, job.account.server), (Path("k"), "https://other.example/LGI"))
        self.assertEqual((job.account.project, job.fields["read_access"]), ("P", "all"))

    def test_m_switches(self) -> None:
        self.configured()
        outside = submission("-a", "x", "-m").account
        assert isinstance(outside, JobAccount)
        self.assertEqual(outside.owners, "mark@laptop, theor, chem")
        make(Path("job"), JOB)
        self.assertIsInstance(submission("-a", "x", "-j", "job", "-m").account, UserAccount)
        os.chdir("job")
        self.assertIsInstance(submission("-a", "x", "-m").account, UserAccount)
        self.assertIsInstance(submission("-a", "x", "-G", "chem").account, UserAccount)
        self.assertIsInstance(submission("-a", "x", "-c", str(self.home / ".LGI")).account, UserAccount)

    def test_directories_of_no_job(self) -> None:
        self.configured()
        self.assertIn("is not a job directory", self.refused("-a", "x", "-j", "."))
        make(Path("job"), JOB)
        self.assertIn("exclude each other", self.refused("-a", "x", "-j", "job", "-c", "x"))
        for name in ("LGI_owners", "LGI_key_file"):
            (Path("job") / name).unlink()
        text = self.refused("-a", "x", "-j", "job")
        self.assertIn("job/LGI_owners is missing", text)
        self.assertIn("job/LGI_key_file is missing", text)

    def test_the_repository_of_a_job(self) -> None:
        self.assertEqual(repository_url(make(Path("job"), JOB)), URL)
        for specifics in ("", "<repository_url> http://a </repository_url>"):
            make(Path("job"), {"LGI_job_specifics": specifics})
            with self.assertRaises(SettingsError):
                repository_url(Path("job"))
