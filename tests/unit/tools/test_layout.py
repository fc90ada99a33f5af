"""What the tools print, compared with recordings of the deployed ones."""

from __future__ import annotations

from lgi.client.answers import AnswerMalformed, ServerRefused, read_whole
from lgi.tools import layout
from lgi.tools.calls import read
from tests.unit.client.fakes import answer, job
from tests.unit.tools.case import DATA, ToolTestCase, answered, recorded


class LayoutTests(ToolTestCase):
    """Byte for byte."""

    def test_text(self) -> None:
        for name, function in (
            ("qstat_detail_finished", layout.detail),
            ("qstat_count", layout.count),
            ("qsub_text", layout.submitted),
            ("qdel_queued", layout.deleted),
            ("qdel_running", layout.deleted),
        ):
            self.assertEqual(function(answered(name)), recorded(f"{name}.txt"), name)

    def test_lists(self) -> None:
        for name in ("qstat_list", "qstat_empty"):
            jobs = answered(name).all("job")
            last = answered("qstat_empty")
            text = layout.list_head() + "".join(layout.list_row(n, one) for n, one in enumerate(jobs, start=1))
            self.assertEqual(text + layout.list_foot(len(jobs), last), recorded(f"{name}.txt"))
            xml = "".join(layout.list_row_xml(n, one) for n, one in enumerate(jobs, start=1))
            self.assertEqual(xml + layout.list_foot_xml(len(jobs), last), recorded(f"{name}.xml"))

    def test_the_project(self) -> None:
        servers, resources = answered("qstat_servers"), answered("qstat_resources")
        self.assertEqual(f"{layout.servers(servers)}\n", recorded("qstat_servers.txt"))
        text = f"\n{layout.servers_head(resources)}{layout.resources(resources)}\n"
        self.assertEqual(text, recorded("qstat_resources.txt"))

    def test_slaves(self) -> None:
        node = read(
            answer(
                "<project> LGI </project> <number_of_slave_servers> 2 </number_of_slave_servers> "
                "<project_server number='1'> https://a/LGI </project_server> "
                "<project_server number='2'> https://b/LGI </project_server>"
            )
        )
        self.assertTrue(
            layout.servers(node).endswith(
                "Project slave server  : https://a/LGI\nProject slave server  : https://b/LGI\n"
            )
        )

    def test_xml_is_the_answer_itself(self) -> None:
        for name in (
            "qstat_detail_finished",
            "qstat_servers",
            "qstat_resources",
            "qsub",
            "qsub_resource",
            "qsub_text",
        ):
            self.assertEqual(f"{answered(name).text}\n", recorded(f"{name}.xml"), name)
        self.assertEqual(layout.count_xml(answered("qstat_count")), recorded("qstat_count.xml"))

    def test_files(self) -> None:
        body = (DATA / "filetransfer_list.answer").read_bytes()
        self.assertEqual(layout.files(read_whole(body, "repository_content")), recorded("filetransfer_list.txt"))
        self.assertEqual(layout.files_xml(body), recorded("filetransfer_list.xml"))
        empty = b"<repository_content> <number_of_files> 0 </number_of_files> </repository_content> \n"
        self.assertEqual(layout.files(read_whole(empty, "repository_content")), "")

    def test_a_job_submitted_by_a_resource(self) -> None:
        text = layout.submitted(answered("qsub_resource"))
        self.assertIn("\nResource              : resource1@labserver\nJob id                : 4\n", text)
        self.assertNotIn("User  ", text)

    def test_a_servers_error(self) -> None:
        self.assertEqual(
            layout.refused_xml(ServerRefused(15, "no <such> job")),
            " <error> <number> 15 </number> <message> no &lt;such&gt; job </message> </error> \n",
        )
        self.assertIn("<timeout> 10 </timeout> </error>", layout.refused_xml(ServerRefused(1, "busy", 10)))

    def test_specifics_stand_as_they_came(self) -> None:
        specifics = '<a b="1"><c>x</c></a>  <d> &amp; </d>'
        text = layout.detail(read(answer(job(specifics=specifics))))
        self.assertIn(f"Job specifics         : {specifics} <repository> ", text)

    def test_output_that_is_no_text_stands_as_it_came(self) -> None:
        text = layout.detail(read(answer(job(output=b"\xff\x00\x1b[31m\n"))))
        self.assertIn(b"Output                : \xff\x00\x1b[31m\n\n", text.encode("utf-8", "surrogateescape"))

    def test_a_name_cannot_forge_a_line(self) -> None:
        text = layout.detail(read(answer(job(target="any\nJob state : finished\x1b[2J"))))
        self.assertIn("Target resources      : any?Job state : finished", text)

    def test_answers_that_lack_what_is_shown(self) -> None:
        for content in (
            "",
            job().replace("<job_id> 6", "<job_id> x"),
            job(stamp=10**30),
            job().replace("<input>  ", "<input> xyz "),
        ):
            with self.assertRaises(AnswerMalformed):
                layout.detail(read(answer(content)))
