from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lgi.daemon.config import JOB_SCRIPTS, ConfigErrors, read_config
from tests.unit.daemon.rig import NONE_BUT_RUN, make_resource


class ConfigTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.file = make_resource(self.directory)

    def change(self, *changes: tuple[str, str]) -> None:
        text = self.file.read_text()
        for old, new in changes:
            self.assertIn(old, text)
            text = text.replace(old, new)
        self.file.write_text(text)

    def mistakes(self) -> tuple[str, ...]:
        error: ConfigErrors = self.assertRaises(ConfigErrors, read_config, self.file)
        return error.mistakes

    def assert_mistake(self, *parts: str) -> None:
        """There is one mistake; its line has the file and these parts."""
        (line,) = self.mistakes()
        for part in (str(self.file), *parts):
            self.assertIn(part, line)


def left_out(*tags: str) -> list[tuple[str, str]]:
    return [(f"<{tag}> ./scripts/{tag} </{tag}>", f"<{tag}> </{tag}>") for tag in tags]


class LeftOutTests(ConfigTestCase):
    def test_all_but_the_run_script(self) -> None:
        self.change(*left_out(*NONE_BUT_RUN))
        ((application,),) = (project.applications for project in read_config(self.file).projects)
        self.assertEqual(list(application.scripts), ["job_run_script"])

    def test_prologue_and_epilogue_alone(self) -> None:
        self.change(*left_out("job_prologue_script", "job_epilogue_script"))
        ((application,),) = (project.applications for project in read_config(self.file).projects)
        self.assertEqual(len(application.scripts), len(JOB_SCRIPTS) - 2)

    def test_the_run_script(self) -> None:
        self.change(*left_out("job_run_script"))
        self.assert_mistake("job_run_script", "it is empty")

    def test_one_of_the_two_checks(self) -> None:
        self.change(*left_out("job_check_running_script"))
        self.assert_mistake("job_check_running_script", "job_check_finished_script is not", "by both, or by neither")

    def test_the_other_one(self) -> None:
        self.change(*left_out("job_check_finished_script"))
        self.assert_mistake("job_check_finished_script", "job_check_running_script is not")

    def test_abort_beside_the_checks(self) -> None:
        self.change(*left_out("job_abort_script"))
        self.assert_mistake("job_abort_script", "nobody else could end")

    def test_a_tag_that_is_missing_is_a_mistake_as_before(self) -> None:
        self.change(("<job_prologue_script> ./scripts/job_prologue_script </job_prologue_script>", ""))
        self.assert_mistake("job_prologue_script", "it is missing")


class RightTests(ConfigTestCase):
    def test_the_documents_example(self) -> None:
        found = read_config(self.file)
        self.assertEqual(found.resource_key_file, self.directory / "resource.key")
        self.assertEqual(found.run_directory, self.directory / "run")
        self.assertEqual((dict(found.limits.allow), found.limits.deny, found.limits.job_limit), ({"any": 10}, (), 20))
        (project,) = found.projects
        self.assertEqual((project.name, project.master_server), ("LGI", "https://grid.example/LGI"))
        (application,) = project.applications
        self.assertEqual((application.name, application.max_output_size), ("hello_world", 4096))
        self.assertEqual(application.capabilities, "nothing special")
        self.assertEqual(set(application.scripts), set(JOB_SCRIPTS))
        self.assertEqual(application.scripts["job_run_script"], self.directory / "scripts" / "job_run_script")
        self.assertIsNotNone(application.check_system_limits_script)
        self.assertEqual(found.sandbox_uids, frozenset())

    def test_owners_that_are_no_xml_names(self) -> None:
        self.change(
            (
                "<owner_allow> <any> 3 </any> </owner_allow>",
                "<owner_allow> <mark@laptop> 2 </mark@laptop><any>1</any></owner_allow>",
            ),
            ("<owner_deny> </owner_deny>", "<owner_deny> <x@y> </x@y> anna, otto@z </owner_deny>"),
        )
        limits = read_config(self.file).projects[0].applications[0].limits
        self.assertEqual(dict(limits.allow), {"mark@laptop": 2, "any": 1})
        self.assertEqual(limits.deny, ("x@y", "anna", "otto@z"))

    def test_what_may_be_left_out(self) -> None:
        self.change(
            ("<number_of_projects> 1 </number_of_projects>", ""),
            ("<number_of_applications> 1 </number_of_applications>", ""),
            ("<capabilities> nothing special </capabilities>", ""),
            ("./scripts/check_system_limits_script", ""),
        )
        application = read_config(self.file).projects[0].applications[0]
        self.assertEqual((application.capabilities, application.check_system_limits_script), ("", None))

    def test_sandbox_uid_is_understood(self) -> None:
        self.change(("<capabilities>", "<job_sandbox_uid> 50001 </job_sandbox_uid> <capabilities>"))
        found = read_config(self.file)
        self.assertEqual(found.projects[0].applications[0].sandbox_uid, 50001)
        self.assertEqual(found.sandbox_uids, {50001})

    def test_comments_do_not_count(self) -> None:
        self.change(("<LGI>", "<!-- <owner_allow> <x@y> --> <LGI>"))
        read_config(self.file)

    def test_run_directory_may_be_made_later(self) -> None:
        (self.directory / "run").rmdir()
        read_config(self.file)
        self.assertFalse((self.directory / "run").exists(), "reading makes nothing")

    def test_values_are_frozen(self) -> None:
        with self.assertRaises(AttributeError):
            read_config(self.file).run_directory = Path()  # type: ignore[misc]


class MistakeTests(ConfigTestCase):
    def test_table(self) -> None:
        here = "resource / project 1 / application 1 / "
        good = self.file.read_text()
        for old, new, *parts in (
            ("<job_limit> 4 </job_limit>", "", f"{here}job_limit: it is missing"),
            ("<job_limit> 4 </job_limit>", "<job_limit> four </job_limit>", f"{here}job_limit", "'four'"),
            ("<job_limit> 4 </job_limit>", "<job_limit> -4 </job_limit>", f"{here}job_limit", "'-4'"),
            ("<job_limit> 4 </job_limit>", "<job_limit> </job_limit>", f"{here}job_limit: it is empty"),
            ("<job_limit> 4 </job_limit>", "<job_limit>4</job_limit><job_limit>4</job_limit>", "it is there 2 times"),
            ("<max_output_size> 4096", "<max_output_size> 4k", f"{here}max_output_size", "'4k'"),
            ("<max_output_size> 4096 </max_output_size>", "", f"{here}max_output_size: it is missing"),
            ("<any> 3 </any>", "<any> x </any>", f"{here}owner_allow", "'x'"),
            ("<any> 3 </any>", "<any> 3 </any> <any> 4 </any>", f"{here}owner_allow", "twice"),
            ("<any> 3 </any>", "<any> 3", f"{here}owner_allow", "'<any> 3'"),
            ("<any> 3 </any>", "mark", f"{here}owner_allow", "'mark'"),
            ("<owner_allow> <any> 3 </any> </owner_allow>", "", f"{here}owner_allow: it is missing"),
            ("hello_world", "hello world", f"{here}application_name", "'hello world'"),
            ("hello_world", "9to5", f"{here}application_name", "'9to5'"),
            ("> LGI <", "> ../LGI <", "project 1 / project_name", "'../LGI'"),
            ("https://grid", "http://grid", "project 1 / project_master_server", "no https:// address"),
            ("<capabilities> nothing", "<capabilities> <a", "cannot be understood"),
            ("<capabilities>", "<capability> x </capability> <capabilities>", f"{here}capability", "not known"),
            ("<capabilities>", "stray <capabilities>", here, "'stray'"),
            ("<number_of_projects> 1", "<number_of_projects> 2", "number_of_projects", "says 2, but there are 1"),
            ("<number_of_applications> 1", "<number_of_applications> 3", "number_of_applications", "there are 1"),
            ("resource.key", "missing.key", "resource / resource_key_file", "there is no file", "missing.key"),
            ("ca.crt", "scripts", "ca_certificate_file", "there is no file"),
            ("./scripts/job_run_script", "", f"{here}job_run_script: it is empty"),
            ("./scripts/job_run_script", "./nowhere", f"{here}job_run_script", "there is no file", "nowhere"),
            ("./scripts/job_run_script", "ca.crt", f"{here}job_run_script", "not executable"),
            ("./run <", "./a/b <", "resource / run_directory", "exists"),
            ("./run <", "./ca.crt <", "resource / run_directory", "is not a directory"),
            (
                "<job_limit> 4",
                "<job_sandbox_uid> 0 </job_sandbox_uid> <job_limit> 4",
                f"{here}job_sandbox_uid",
                "'0'",
            ),
            (
                "<check_system_limits_script> ./scripts/check_system_limits_script",
                "<check_system_limits_script> <job_x> x </job_x>",
                f"{here}check_system_limits_script",
                "<job_x>",
            ),
        ):
            with self.subTest(new=new):
                self.file.write_text(good)
                self.change((old, new))
                self.assert_mistake(*parts)

    def test_all_at_once(self) -> None:
        self.change(("resource.key", "x"), ("<job_limit> 4 </job_limit>", ""), ("./scripts/job_abort_script", "./y"))
        self.assertEqual(len(self.mistakes()), 3)

    def test_a_project_twice(self) -> None:
        text = self.file.read_text()
        start, end = text.index("<project number"), text.index("</resource>")
        self.file.write_text(
            text.replace(text[start:end], text[start:end] * 2).replace("_projects> 1", "_projects> 2")
        )
        self.assert_mistake("resource / project 2 / project_name", "there already")

    def test_files_that_are_none(self) -> None:
        for content, reason in (("", "cannot be understood"), ("<html> </html>", "<html>"), ("<LGI>", "cannot be")):
            self.file.write_text(content)
            self.assert_mistake(reason)
        self.file.write_bytes(b"<LGI> \xff </LGI>")
        self.assert_mistake("UTF-8")
        self.file.unlink()
        self.assert_mistake("cannot be read", "No such file")

    def test_no_resource_says_only_that(self) -> None:
        self.file.write_text("<LGI> <ca_certificate_file> ca.crt </ca_certificate_file> </LGI>")
        self.assert_mistake("resource: it is missing")

    def test_entities_are_not_followed(self) -> None:
        document_type = '<!DOCTYPE LGI [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        self.change(("<LGI>", f"{document_type} <LGI>"), ("nothing special", "&x;"))
        self.assert_mistake("document type")

    def test_unreadable_and_unwritable(self) -> None:
        denied = {self.directory / "resource.key": os.R_OK, self.directory / "run": os.W_OK}
        self.patch(os, "access", lambda path, mode: not mode & denied.get(path, 0))
        key, run = self.mistakes()
        self.assertIn("resource / resource_key_file", key)
        self.assertIn("cannot be read by this user", key)
        self.assertIn("resource / run_directory", run)
        self.assertIn("not writable by this user", run)
