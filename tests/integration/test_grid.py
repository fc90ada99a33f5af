"""From a new project to finished jobs, with real processes, certificates, files and a database."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from tests.integration.grid import EXAMPLES, RESOURCE, GridCase, until
from tests.shape import shape

SHAPES = json.loads((Path(__file__).parents[1] / "data" / "answer_shapes.json").read_text("utf-8"))


class GridTests(GridCase):
    """The main thread."""

    def test_both_applications_finish_and_their_files_arrive(self) -> None:
        grid = self.make_grid()
        requests = grid.root / "log" / "requests.log"
        with grid.config.open("a") as config:
            config.write(f'\n[log]\naccess = "{requests}"\n')
        grid.start_all()
        hello = grid.submit("-a", "hello_world", "--input", "hi there")
        argon = grid.submit(
            "-a", "lj_md", "-i", str(EXAMPLES / "lj_md/example.input"), str(EXAMPLES / "lj_md/argon38.xyz")
        )
        grid.user("wait", str(hello), str(argon), "--timeout", "90")
        self.assertIn("hi there", grid.job(hello)["output"])
        grid.user("files", "get", str(argon), "--to", "results")
        digest = hashlib.sha256(Path("results/energies.csv").read_bytes()).hexdigest()
        self.assertIn(f"sha256 {digest} energies.csv", grid.job(argon)["output"])
        self.assertEqual(grid.job_directories(), [])
        # A daemon reports to a server that takes several jobs in a call by that call alone.
        asked = requests.read_text()
        self.assertIn("/resource_update_jobs.php", asked)
        self.assertNotIn("/resource_update_job.php", asked)

    def test_a_running_job_is_aborted_on_request(self) -> None:
        grid = self.make_grid()
        grid.start_all()
        Path("long.input").write_text("structure = argon38.xyz\nsteps = 5000000\n")
        job = grid.submit("-a", "lj_md", "-i", "long.input", str(EXAMPLES / "lj_md/argon38.xyz"))
        grid.wait_for_state(job, "running")
        grid.user("delete", str(job))
        grid.wait_for_state(job, "aborted")
        until(lambda: not grid.job_directories(), "the job directory is gone")
        grid.user("delete", str(job))
        self.assertIn("no such job", grid.user("status", str(job), status=1))

    def test_curl_gets_the_recorded_shapes(self) -> None:
        grid = self.make_grid()
        grid.start_server()
        home = grid.home
        own = ["project=LGI", "user=mark@localhost", "groups=theor"]

        def curl(directory: Path, names: tuple[str, str, str], path: str, *fields: str) -> str:
            ca, certificate, key = (str(directory / name) for name in names)
            # Not -F, which takes a value that begins with "<" for the name of a file.
            form = [part for field in fields for part in ("--form-string", field)]
            return subprocess.run(
                ["curl", "-sS", "--cacert", ca, "--cert", certificate, "--key", key, *form, f"{grid.url}/{path}"],
                check=True,
                capture_output=True,
                text=True,
                timeout=30,
            ).stdout

        def of_user(call: str, *fields: str) -> str:
            names = ("ca_chain", "certificate", "privatekey")
            return curl(home, names, f"interfaces/interface_{call}.php", *own, *fields)

        def of_resource(call: str, *fields: str) -> str:
            names = ("ca.crt", "resource.crt", "resource.key")
            directory = grid.root / "resources" / RESOURCE
            return curl(directory, names, f"resources/resource_{call}.php", "project=LGI", *fields)

        def number(answer: str, tag: str) -> str:
            return answer.split(f"<{tag}> ")[1].split(" <", maxsplit=1)[0]

        answer = of_user("submit_job", "application=hello_world", "target_resources=any")
        self.assertEqual(shape(answer), SHAPES["interfaces/interface_submit_job.php"]["ok"])
        job = f"job_id={number(answer, 'job_id')}"
        answer = of_resource("signup_resource", "capabilities=<hello_world>  </hello_world> ")
        self.assertEqual(shape(answer), SHAPES["resources/resource_signup_resource.php"]["ok"])
        session = [f"session_id={number(answer, 'session_id')}"]
        work = ["application=hello_world", "start=0", "limit=32", "owners="]
        steps = [
            ("request_work", work, "jobs"),
            (
                "update_job",
                [
                    job,
                    "state=running",
                    f"target_resources={RESOURCE}",
                ],
                "ok",
            ),
            ("unlock_job", [job], "ok"),
            ("job_state", [job], "ok"),
            ("lock_job", [job], "ok"),
            ("request_job_details", [job], "ok"),
            (
                "update_job",
                [job, "state=finished", "output=48656C6C6F"],
                "ok",
            ),
            ("unlock_job", [job], "ok"),
            ("signoff_resource", [], "ok"),
        ]
        for call, more, mode in steps:
            answer = of_resource(call, *session, *more)
            self.assertEqual(shape(answer), SHAPES[f"resources/resource_{call}.php"][mode], call)
        answer = of_user("job_state", "start=0", "limit=1024")
        self.assertEqual(shape(answer), SHAPES["interfaces/interface_job_state.php"]["list"])
        answer = of_user("job_state", job)
        self.assertIn("48656c6c6f", answer)
        answer = of_user("delete_job", job)
        self.assertEqual(shape(answer), SHAPES["interfaces/interface_delete_job.php"]["deleted"])
        answer = of_user("project_server_list")
        self.assertEqual(shape(answer), SHAPES["interfaces/interface_project_server_list.php"]["ok"])
        answer = of_user("project_resource_list")
        recorded = SHAPES["interfaces/interface_project_resource_list.php"]["ok"]
        recorded = recorded[: recorded.index("<resource number='2'>")] + "</response> </LGI>"
        self.assertEqual(shape(answer), recorded)
