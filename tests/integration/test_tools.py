"""The LGI document's example of a user's session, and job scripts that use the tools, with real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.integration.grid import RESOURCE, USER, Grid, GridCase, until
from tests.unit.tools.case import recorded

ROOT = Path(__file__).resolve().parents[2]
MASKS = (
    (r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}", "DATE"),
    (r"\[\d{10}\]", "[STAMP]"),
    (r"LGI@localhost:\S+/repository/\w{3}/JOB_\w{32}", "LOCATION"),
    (r"repository/\w{3}/JOB_\w{32}", "REPOSITORY"),
    (r"<daemon_reference> [0-9A-F]{32} ", "<daemon_reference> REFERENCE "),
)
HEAD = "This project          : LGI\nThis project server   : SERVER\nProject master server : SERVER\n"
SUBMITTED = f"""
Job has been submitted. Some details: 

{HEAD}User                  : {USER}
Groups                : theor
Job id                : 1
Job state             : queued
Job application       : hello_world
Job specifics         : <repository> LOCATION </repository> <repository_url> SERVER/REPOSITORY </repository_url>
Target resources      : any
Job owners            : {USER}, theor
Read access on job    : admin, {USER}
Write access on job   : admin, {USER}
Time stamp            : DATE [STAMP]
Input                 : 
Repository content    : .LGI_repository_write_access

"""  # noqa: W291
DETAIL = f"""
{HEAD}User                  : {USER}
Groups                : theor
Job id                : 1
Job state             : running
Job application       : hello_world
Job specifics         : <daemon_reference> REFERENCE </daemon_reference> <repository> LOCATION </repository> \
<repository_url> SERVER/REPOSITORY </repository_url>
Target resources      : {RESOURCE}
Job owners            : {USER}, theor
Write access on job   : admin, {USER}
Read access on job    : admin, {USER}
Time stamp            : DATE [STAMP]
Input                 : 
Output                : 
Repository content    : {{files}}

"""  # noqa: W291
SCRIPT = """#!/bin/sh
exec >LGI_output 2>&1
[ -s LGI_input ] || exec sleep 600
. ./LGI_input
"""
PARENT = """
tool() { name=$1; shift; python3 -m lgi.tools.$name "$@"; }
url=$(tool xml repository_url <LGI_job_specifics)
echo 'a result' >'my result.txt'
: >empty
tool filetransfer upload "$url" 'my result.txt' empty && echo uploaded
tool filetransfer -x list | tool xml number_of_files
tool filetransfer -j . download "$url" given.txt && cat given.txt
echo 'echo "a job of $(cat LGI_owners)"' >child
tool qsub -a hello_world -i child && echo submitted
tool csv -e 1 -i LGI_owners
tool qsub -a nosuchapp || echo "refused: $?"
"""


def masked(text: str, grid: Grid) -> str:
    """Without what differs from one grid to the next."""
    text = text.replace(grid.url, "SERVER")
    for pattern, name in MASKS:
        text = re.sub(pattern, name, text)
    return text


class ToolTests(GridCase):
    """One grid, whose only script waits or does what the job's input says."""

    def tool(self, name: str, *words: str, status: int = 0) -> str:
        """Run a tool as the user of `~/.LGI`; returns what it printed, masked."""
        result = subprocess.run(
            [sys.executable, "-m", f"lgi.tools.{name}", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "HOME": str(self.home), "PYTHONPATH": str(ROOT)},
        )
        self.assertEqual(result.returncode, status, f"{name} {words}: {result.stdout}{result.stderr}")
        return masked(result.stdout if status == 0 else result.stderr, self.grid)

    def listed(self, *states: str) -> str:
        """The layout of a list of jobs in these states."""
        rule = "-" * 131
        head = recorded("qstat_list.txt").splitlines()[2]
        rows = [
            f"{number:>5} | {number:>6} | {state:>12} | {RESOURCE:>36} |      hello_world | DATE | {USER}, theor"
            for number, state in enumerate(states, start=1)
        ]
        count = f"Number of jobs listed : {len(states)}\n"
        return "\n" + "\n".join([rule, head, rule, *rows, rule, ""]) + f"\n{count}{HEAD}\n"

    def test_the_documents_session_and_job_scripts(self) -> None:
        self.grid = grid = self.make_grid()
        self.home = Path.cwd() / "home"
        self.home.mkdir()
        (self.home / ".LGI").symlink_to(grid.home)
        (grid.home / "defaultjobspecifics").unlink(missing_ok=True)
        (grid.cfg.parent / "applications" / "hello_world" / "job_run_script").write_text(SCRIPT)
        grid.start_all()

        self.assertEqual(self.tool("qstat"), self.listed())
        self.assertEqual(self.tool("qsub", "-a", "hello_world", "-t", "any"), SUBMITTED)
        until(lambda: self.tool("qstat") == self.listed("running"), "the list shows the running job")
        self.assertEqual(self.tool("qstat", "1"), DETAIL.format(files=".LGI_repository_write_access"))

        details = grid.user("status", "--json", "1")
        match = re.search(rf"{re.escape(grid.url)}/repository/\w+/JOB_\w+", details)
        assert match is not None
        url = match[0]
        name = re.escape(f"{'.LGI_repository_write_access':<32}")
        self.assertRegex(self.tool("filetransfer", "list", url), rf"\A\n{name} +\d+ DATE \[STAMP\]\n\n\Z")
        Path("binhex.h").write_text("x" * 1257)
        self.assertEqual(
            self.tool("filetransfer", "upload", url, "./binhex.h"),
            "\nUploaded to 'SERVER/REPOSITORY/binhex.h' ...\n\n",
        )
        files = self.tool("qstat", "1").split("Repository content    : ")[1].strip()
        self.assertEqual(set(files.split(", ")), {"binhex.h", ".LGI_repository_write_access"})
        self.assertIn(f"\n{'binhex.h':<32}     1257 DATE [STAMP]\n", self.tool("filetransfer", "list", url))
        Path("down").mkdir()
        self.assertEqual(
            self.tool("filetransfer", "download", url, "down/binhex.h"),
            "\nDownloaded from 'SERVER/REPOSITORY/binhex.h' ...\n\n",
        )
        self.assertEqual(Path("down/binhex.h").stat().st_size, 1257)
        self.assertEqual(self.tool("qdel", "1"), "\nAborting job 1 in project LGI on server SERVER\n\n")
        self.assertIn(self.tool("qstat"), (self.listed("aborting"), self.listed("aborted")))

        Path("parent").write_text(PARENT)
        Path("given.txt").write_text("given by the user\n")
        self.tool("qsub", "-a", "hello_world", "-i", "parent", "given.txt")
        output = grid.wait_for_state(2, "finished", "aborted")["output"]
        for part in (
            "/my result.txt' ...\n\nUploaded to 'https://",
            "/empty' ...\n\nuploaded\n4\n",
            "given by the user\n",
            f"Resource              : {RESOURCE}\nJob id                : 3\nJob state             : queued\n",
            f"submitted\n{USER}\n",
            "refused: 1\n",
        ):
            self.assertIn(part, output)
        child = grid.wait_for_state(3, "finished", "aborted")
        self.assertEqual(child["output"], f"a job of {USER}, theor\n")
        self.assertIn("my result.txt", self.tool("qstat", "2"))
        self.assertEqual(self.tool("qdel", "2"), "\nJob 2 deleted from project LGI on server SERVER\n\n")

        # The certificate is for localhost; -W lets another name pass, but no other authority.
        elsewhere = grid.url.replace("localhost", "127.0.0.2")
        self.assertIn("not for this host name", self.tool("qstat", "-cnt", "-S", elsewhere, status=1))
        self.assertIn("Number of jobs found", self.tool("qstat", "-cnt", "-W", "-S", elsewhere))
        stranger = str(grid.home / "certificate")
        self.assertIn("authority", self.tool("qstat", "-cnt", "-W", "-CA", stranger, status=1))
        self.assertIn("Error message returned by server SERVER : ", self.tool("qdel", "2", status=1))
