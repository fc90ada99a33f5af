"""The commands of batch systems, played by one little batch system: run by the name of the command it is to be.

What it keeps is in the folder that FAKE_BATCH names: `jobs.json`, and `calls`, a line for each command with its
arguments. Jobs run as real processes at once, unless they are held. The words of the answers follow each system's
documentation and recordings (see tests/data/batch/README.md).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FAKE_BATCH"])
NAME, ARGUMENTS = Path(sys.argv[0]).name, sys.argv[1:]
USER = os.environ["FAKE_USER"]

Job = dict[str, Any]


def lives(pid: int) -> bool:
    """Whether a process lives."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


class Fake:
    """The jobs, and what can be done to them."""

    def __init__(self) -> None:
        self.file = FOLDER / "jobs.json"
        self.jobs: list[Job] = json.loads(self.file.read_text()) if self.file.exists() else []
        # As real systems do, it forgets what is over; these are their last words, for the accounting.
        for job in self.jobs:
            if job["state"] in ("running", "suspended") and not lives(job["pid"]):
                job["state"] = "ended"

    def save(self) -> None:
        """Keep them."""
        self.file.write_text(json.dumps(self.jobs))

    def add(self, name: str, script: str, tasks: list[int | None], variables: dict[str, str], hold: bool) -> int:
        """Take a job; returns its number."""
        number = 1 + max((job["number"] for job in self.jobs), default=100)
        for task in tasks:
            job: Job = {"number": number, "task": task, "name": name, "script": script, "state": "held", "pid": 0}
            named = {key: value.format(number=number, task=task) for key, value in variables.items()}
            job["variables"] = {key: value for key, value in named.items() if value and value != "None"}
            self.jobs.append(job)
            if not hold:
                self.begin(job)
        return number

    def begin(self, job: Job) -> None:
        """Run it."""
        process = subprocess.Popen(
            ["sh", job["script"]],
            env={**os.environ, **job["variables"]},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        job.update(state="running", pid=process.pid)

    def found(self, text: str) -> list[Job]:
        """The jobs that a number names: an array, one of its tasks, or a job."""
        parts = re.match(r"(?:[a-z]+\.)?(\d+)(?:[\[_.](\d+)\]?)?", text)
        assert parts is not None, text
        number, task = int(parts[1]), parts[2]
        return [
            job
            for job in self.jobs
            if job["number"] == number and (not task or job["task"] == int(task)) and job["state"] != "ended"
        ]

    def kill(self, job: Job) -> None:
        """End it, at once."""
        if job["pid"] and lives(job["pid"]):
            os.killpg(job["pid"], signal.SIGKILL)
        job["state"] = "ended"

    def hold(self, job: Job) -> None:
        """Suspend it."""
        if job["state"] == "running":
            os.killpg(job["pid"], signal.SIGSTOP)
            job["state"] = "suspended"

    def resume(self, job: Job) -> None:
        """Let it start or go on."""
        if job["state"] == "suspended":
            os.killpg(job["pid"], signal.SIGCONT)
            job["state"] = "running"
        elif job["state"] == "held":
            self.begin(job)

    def shown(self) -> list[Job]:
        """What the queue shows."""
        return [job for job in self.jobs if job["state"] != "ended"]


def option(*names: str) -> str:
    """The value of an option, wherever it stands."""
    for place, argument in enumerate(ARGUMENTS):
        for name in names:
            if argument == name:
                return ARGUMENTS[place + 1]
            if name.startswith("--") and argument.startswith(f"{name}="):
                return argument.partition("=")[2]
    return ""


def tasks(text: str) -> list[int | None]:
    """The tasks of a range."""
    if not text:
        return [None]
    first, last = text.partition("%")[0].partition(":")[0].split("-")
    return list(range(int(first), int(last) + 1))


def fail(text: str, status: int = 1) -> None:
    """Complain and exit."""
    print(text, file=sys.stderr)
    sys.exit(status)


def steer(fake: Fake, jobs: list[str], do: str, unknown: str) -> None:
    """Do something to jobs, or complain about those that are not there."""
    for text in jobs:
        found = fake.found(text)
        for job in found:
            getattr(fake, do)(job)
        if not found:
            fake.save()
            fail(unknown.format(text))


def torque(fake: Fake) -> None:
    """Torque."""
    match NAME:
        case "qstat" if "--version" in ARGUMENTS:
            fail("Version: 6.1.2\nCommit: 661e092552de43a785c15d39a3634a541d86898e", 0)
        case "qsub":
            if option("-q") == "nope":
                fail("qsub: submit error (Unknown queue MSG=cannot locate queue)", 168)
            where = tasks(option("-t"))
            variables = {
                "PBS_JOBID": "{number}[{task}].fake" if option("-t") else "{number}.fake",
                "PBS_ARRAYID": "{task}",
            }
            number = fake.add(option("-N"), ARGUMENTS[-1], where, variables, "-h" in ARGUMENTS)
            print(f"{number}[].fake" if option("-t") else f"{number}.fake")
        case "qstat":
            letters = {"held": "H", "running": "R", "suspended": "S"}
            for job in fake.shown():
                task = "" if job["task"] is None else f"[{job['task']}]"
                name = job["name"] if job["task"] is None else f"{job['name']}-{job['task']}"
                print(f"Job Id: {job['number']}{task}.fake\n    Job_Name = {name}\n    Job_Owner = {USER}@host")
                print(f"    job_state = {letters[job['state']]}\n    queue = batch\n")
        case "qdel":
            steer(fake, ARGUMENTS, "kill", "qdel: Unknown Job Id {}")
        case "qhold" | "qrls":
            steer(fake, ARGUMENTS[2:], "hold" if NAME == "qhold" else "resume", "Unknown Job Id {}")
        case "qsig":
            steer(fake, ARGUMENTS[2:], "hold" if ARGUMENTS[1] == "suspend" else "resume", "Unknown Job Id {}")
        case _:
            fail(f"{NAME} is not allowed")


def gridengine(fake: Fake) -> None:
    """Grid Engine."""
    match NAME:
        case "qsub":
            if option("-q") == "nope":
                fail('Unable to run job: Job was rejected because job requests unknown queue "nope"\nExiting.')
            variables = {"JOB_ID": "{number}", "SGE_TASK_ID": "{task}"}
            number = fake.add(option("-N"), ARGUMENTS[-1], tasks(option("-t")), variables, "-h" in ARGUMENTS)
            print(f"{number}.{option('-t')}:1" if option("-t") else number)
        case "qstat":
            letters = {"held": "hqw", "running": "r", "suspended": "s"}
            print("<?xml version='1.0'?><job_info><queue_info>")
            for job in fake.shown():
                task = "" if job["task"] is None else f"<tasks>{job['task']}</tasks>"
                print(f"<job_list><JB_job_number>{job['number']}</JB_job_number><JB_name>{job['name']}</JB_name>")
                print(f"<state>{letters[job['state']]}</state><queue_name>q@host</queue_name>{task}</job_list>")
            print("</queue_info></job_info>")
        case "qdel":
            one = ARGUMENTS[0] if len(ARGUMENTS) == 1 else f"{ARGUMENTS[0]}.{ARGUMENTS[2]}"
            steer(fake, [one], "kill", 'denied: job "{}" does not exist')
        case "qhold" | "qrls":
            steer(fake, ARGUMENTS[2:], "hold" if NAME == "qhold" else "resume", 'denied: job "{}" does not exist')
        case "qmod":
            steer(fake, ARGUMENTS[1:], "hold" if ARGUMENTS[0] == "-sj" else "resume", "{} does not exist")
        case _:
            fail("error: job id not found")


def lsf(fake: Fake) -> None:
    """LSF."""
    match NAME:
        case "bsub":
            if option("-q") == "nope":
                fail("nope: No such queue. Job not submitted.", 255)
            name, _, where = option("-J").removesuffix("]").partition("[")
            variables = {"LSB_JOBID": "{number}", "LSB_JOBINDEX": "{task}" if where else "0"}
            number = fake.add(name, shlex.split(ARGUMENTS[-1])[0], tasks(where), variables, "-H" in ARGUMENTS)
            print(f"Job <{number}> is submitted to default queue <normal>.")
        case "bjobs":
            if not fake.shown():
                fail("No job found", 255)
            words = {"held": "PSUSP", "running": "RUN", "suspended": "USUSP"}
            for job in fake.shown():
                name = job["name"] if job["task"] is None else f"{job['name']}[{job['task']}]"
                print(f"{job['number']}|{job['task'] or 0}|{words[job['state']]}|normal|-|-|{name}")
        case "bkill":
            steer(fake, ARGUMENTS, "kill", "Job <{}>: No matching job found")
        case "bstop" | "bresume":
            steer(fake, ARGUMENTS, "hold" if NAME == "bstop" else "resume", "Job <{}>: No matching job found")
        case _:
            fail("No such file or directory")


def loadleveler(fake: Fake) -> None:
    """LoadLeveler."""
    match NAME:
        case "llsubmit":
            file = Path(ARGUMENTS[-1]).read_text()
            values = dict(re.findall(r"# @ (\w+) = (.*)", file))
            if values.get("class") == "nope":
                fail("llsubmit: 2512-051 This job has not been submitted to LoadLeveler.")
            variables = {"LOADL_STEP_ID": "fake.{number}.0"}
            number = fake.add(values["job_name"], values["executable"], [None], variables, "hold" in values)
            print(f'llsubmit: The job "fake.{number}" has been submitted.')
        case "llq":
            letters = {"held": "H", "running": "R", "suspended": "E"}
            for job in fake.shown():
                print(f"fake.{job['number']}.0!{job['name']}!{letters[job['state']]}!small!")
            if not fake.shown():
                print("llq: There is currently no job status to report.")
        case "llcancel":
            steer(fake, ARGUMENTS, "kill", "llcancel: job {} not found")
        case "llhold":
            steer(fake, ARGUMENTS[-1:], "resume" if "-r" in ARGUMENTS else "hold", "job {} not found")
        case _:
            fail("no history file")


def slurm(fake: Fake) -> None:
    """Slurm."""
    match NAME:
        case "sbatch":
            if option("--partition") == "nope":
                fail("sbatch: error: Batch job submission failed: Invalid partition name specified")
            array = option("--array")
            variables = {
                "SLURM_ARRAY_JOB_ID" if array else "SLURM_JOB_ID": "{number}",
                "SLURM_ARRAY_TASK_ID": "{task}",
                "SLURM_RESTART_COUNT": "",
            }
            print(fake.add(option("--comment"), ARGUMENTS[-1], tasks(array), variables, "--hold" in ARGUMENTS))
        case "squeue":
            words = {"held": "PENDING", "running": "RUNNING", "suspended": "SUSPENDED"}
            for job in fake.shown():
                number = job["number"] if job["task"] is None else f"{job['number']}_{job['task']}"
                reason = "JobHeldUser" if job["state"] == "held" else "None"
                print(f"{number}|{words[job['state']]}|lgi|0|0|1|2|3|{reason}|{job['name']}|")
        case "scancel":
            steer(fake, ARGUMENTS, "kill", "scancel: error: Kill job error on job id {}: Invalid job id specified")
        case "scontrol":
            steer(
                fake, ARGUMENTS[1:], "hold" if ARGUMENTS[0] in ("hold", "suspend") else "resume", "Invalid job id {}"
            )
        case _:
            fail("Slurm accounting storage is disabled")


def main() -> None:
    """Play the command."""
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (FOLDER / "calls").open("a") as calls:
            calls.write(json.dumps([NAME, *ARGUMENTS]) + "\n")
        if (FOLDER / "slow").exists():
            time.sleep(60)
        if (FOLDER / "down").exists():
            fail((FOLDER / "down").read_text())
        fake = Fake()
        details = {"scontrol": "show", "bjobs": "-l", "llq": "-l", "qstat": "-j"}
        if details.get(NAME) in ARGUMENTS or (NAME == "qstat" and "-f" in ARGUMENTS and "-t" not in ARGUMENTS):
            print(f"details of {fake.found(ARGUMENTS[-1])}")
        else:
            globals()[os.environ["FAKE_KIND"]](fake)
        fake.save()


if __name__ == "__main__":
    main()
