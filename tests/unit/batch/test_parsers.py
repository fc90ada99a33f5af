"""The parsers of lgi/batch on what batch systems have said; tests/data/batch/README.md says where it comes from."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lgi.batch import gridengine, loadleveler, local, lsf, pbs, slurm
from lgi.batch.values import BatchError, Entry, State

DATA = Path(__file__).parents[2] / "data" / "batch"


def said(name: str) -> str:
    return (DATA / name).read_text("utf-8")


def states(entries: list[Entry]) -> dict[tuple[str, int | None], State]:
    return {(entry.job, entry.task): entry.status.state for entry in entries}


class Case(SynchronousTestCase):
    def found(self, entries: list[Entry], job: str, task: int | None = None) -> Entry:
        [entry] = [entry for entry in entries if (entry.job, entry.task) == (job, task)]
        return entry


class SlurmTests(Case):
    def test_queue(self) -> None:
        entries = slurm.parse_squeue(said("slurm-squeue.txt"))
        self.assertEqual(
            states(entries),
            {
                ("17", None): State.CANCELLED,
                ("14", None): State.FAILED,
                ("13", 1): State.PENDING,
                ("13", 2): State.RUNNING,
                ("13", 3): State.RUNNING,
                ("12", None): State.HELD,
                ("11", None): State.SUSPENDED,
            },
        )
        failed = self.found(entries, "14").status
        self.assertEqual((failed.exit_code, failed.signal, failed.ended), (3, None, 1795182684))
        self.assertEqual(self.found(entries, "17").status.signal, 15)
        requeued = self.found(entries, "13", 1).status
        self.assertEqual((requeued.restarts, requeued.started), (1, None))
        self.assertEqual(self.found(entries, "13", 2).status.started, 1795182684)
        self.assertEqual(self.found(entries, "11").key, "")

    def test_comments_may_hold_anything(self) -> None:
        line = "7|RUNNING|lgi|0|0|1|2|3|None|a|b\nand 9|more|\n"
        entries = slurm.parse_squeue(line + "8|COMPLETED|lgi|0:0|0|1|2|3|None|lgi0123456789ab|\n")
        self.assertEqual([entry.job for entry in entries], ["7", "8"])
        self.assertEqual(entries[1].key, "lgi0123456789ab")
        self.assertEqual((entries[1].status.state, entries[1].status.exit_code), (State.FINISHED, 0))

    def test_state_that_nobody_knows_is_unknown(self) -> None:
        [entry] = slurm.parse_squeue("7|ODD|lgi|0|0|1|2|3|None||\n")
        self.assertEqual((entry.status.state, entry.status.reason), (State.UNKNOWN, "ODD"))

    def test_recorded_accounting(self) -> None:
        entries = slurm.parse_sacct(said("slurm-sacct.txt"))
        self.assertEqual(
            states(entries),
            {
                ("1", None): State.FINISHED,
                ("2", None): State.FAILED,
                ("4", None): State.CANCELLED,
                ("5", None): State.PENDING,
                **{("3", task): State.FINISHED for task in (1, 2, 3)},
            },
        )
        failed = self.found(entries, "2").status
        self.assertEqual((failed.exit_code, failed.signal, failed.ended), (3, None, 1795185401))

    def test_accounting(self) -> None:
        text = (
            "7|COMPLETED|0:0|lgi|1|2|3\n8|CANCELLED by 1000|0:15|lgi|1|2|3\n"
            "9_1|TIMEOUT|0:1|lgi|1|2|3\n9_[2-4]|PENDING|0:0|lgi|1||\n"
        )
        entries = slurm.parse_sacct(text)
        self.assertEqual(
            states(entries),
            {("7", None): State.FINISHED, ("8", None): State.CANCELLED, ("9", 1): State.FAILED},
        )
        self.assertEqual(entries[1].status.signal, 15)

    def test_nonsense(self) -> None:
        self.assertRaises(BatchError, slurm.parse_squeue, "slurm is not here\n")
        self.assertRaises(BatchError, slurm.parse_sacct, "7|COMPLETED\n")
        self.assertRaises(BatchError, slurm.parse_submitted, "Submitted batch job seven")
        self.assertEqual(slurm.parse_submitted("12;cluster\n"), "12")


class GridEngineTests(Case):
    def test_queue(self) -> None:
        entries = gridengine.parse_qstat(said("gridengine-qstat.xml"))
        self.assertEqual(
            states(entries),
            {
                ("11", None): State.RUNNING,
                ("8", None): State.HELD,  # Eqw
                ("10", None): State.PENDING,  # Rq
                ("3", None): State.HELD,
            },
        )
        self.assertEqual(self.found(entries, "11").status.queue, "lgi.q")

    def test_letters(self) -> None:
        for letters, state in {
            "qw": State.PENDING, "hqw": State.HELD, "r": State.RUNNING, "Rr": State.RUNNING, "dr": State.RUNNING,
            "s": State.SUSPENDED, "T": State.SUSPENDED, "S": State.SUSPENDED, "t": State.RUNNING, "Rq": State.PENDING,
            "hr": State.RUNNING, "hRwq": State.HELD, "Eqw": State.HELD, "": State.UNKNOWN, "z": State.UNKNOWN,
        }.items():  # fmt: skip
            self.assertEqual(gridengine.parse_letters(letters), state, letters)

    def test_accounting(self) -> None:
        entries = gridengine.parse_qacct(said("gridengine-qacct.txt"))
        failed = self.found(entries, "2").status
        self.assertEqual((failed.state, failed.exit_code, failed.signal), (State.FAILED, 3, None))
        self.assertEqual(self.found(entries, "4", 1).status.state, State.FINISHED)
        killed = self.found(entries, "4", 3).status
        self.assertEqual((killed.state, killed.signal, killed.reason), (State.FAILED, 9, "assumedly after job"))
        self.assertIn("h_rt", self.found(entries, "9").status.reason)

    def test_rescheduling_is_no_end(self) -> None:
        text = said("gridengine-qacct-rescheduled.txt")
        first = text[: text.rindex("=" * 62)]
        self.assertIn("rescheduling", first)
        self.assertEqual(gridengine.parse_qacct(first), [])
        [entry] = gridengine.parse_qacct(text)
        self.assertEqual((entry.job, entry.status.state), ("10", State.FINISHED))

    def test_reservations(self) -> None:
        text = (
            "ar-id   name       owner        state start at             end at               duration\n"
            "------------------------------------------------------------------------------------------\n"
            "      2            root         w     11/20/2026 16:59:00  11/20/2026 17:00:00  00:01:00\n"
        )
        [found] = gridengine.parse_reservations(text)
        self.assertEqual(
            (found.name, found.state, found.end and found.start and found.end - found.start), ("2", "waiting", 60)
        )

    def test_nonsense(self) -> None:
        self.assertRaises(BatchError, gridengine.parse_qstat, "error: commlib error")
        self.assertRaises(BatchError, gridengine.parse_submitted, "Your job 7 has been submitted")
        self.assertEqual(gridengine.parse_submitted("7.1-6:1\n"), "7")


class PBSTests(Case):
    def test_torque(self) -> None:
        entries = pbs.parse_qstat(said("torque-qstat-f.txt"), "user1")
        done = self.found(entries, "9.torque01.bcgsc.ca").status
        self.assertEqual((done.state, done.exit_code, done.queue), (State.FINISHED, 0, "batch"))
        self.assertEqual(done.ended and done.started and done.ended - done.started, 60)
        task = self.found(entries, "48[].torque01.bcgsc.ca", 1).status
        self.assertEqual((task.state, task.signal), (State.FAILED, 15))
        self.assertIn("dependency of array 43[]", task.reason)
        self.assertEqual(pbs.parse_qstat(said("torque-qstat-f.txt"), "somebody"), [])

    def test_job_that_torque_could_not_run(self) -> None:
        [entry] = pbs.parse_qstat(said("torque-qstat-f-failed.txt"), "user")
        self.assertEqual((entry.status.state, entry.status.exit_code), (State.FAILED, 255))
        self.assertIn("-1", entry.status.reason)

    def test_pro(self) -> None:
        form = "Job Id: 7.pbs\n    Job_Name = a.lgi0123456789ab\n    Job_Owner = user1@host\n    job_state = {}\n{}\n"
        for letter, more, state in (
            ("Q", "", State.PENDING),
            ("W", "", State.PENDING),
            ("H", "", State.HELD),
            ("R", "", State.RUNNING),
            ("E", "", State.RUNNING),
            ("B", "", State.RUNNING),
            ("S", "", State.SUSPENDED),
            ("U", "", State.SUSPENDED),
            ("F", "    Exit_status = 0\n    substate = 92\n", State.FINISHED),
            ("F", "    Exit_status = 3\n    substate = 93\n", State.FAILED),
            ("F", "    Exit_status = 271\n    substate = 91\n", State.CANCELLED),
            ("F", "    substate = 91\n", State.CANCELLED),
            ("X", "", State.UNKNOWN),
            ("M", "", State.UNKNOWN),
        ):
            [entry] = pbs.parse_qstat(form.format(letter, more), "user1")
            self.assertEqual((entry.status.state, entry.key), (state, "lgi0123456789ab"), letter + more)

    def test_logs_of_torque(self) -> None:
        status = pbs.parse_tracejob("05/29/2018 09:38:01  S    Exit_status=3 resources_used.cput=00:00:00\n")
        self.assertEqual(status and (status.state, status.exit_code), (State.FAILED, 3))
        self.assertIsNone(pbs.parse_tracejob("05/29/2018 09:38:01  S    Job Queued at request of user\n"))

    def test_nonsense(self) -> None:
        self.assertRaises(BatchError, pbs.parse_submitted, "qsub: waiting")
        self.assertRaises(BatchError, pbs.parse_qstat, "Job Id: 7\n    Job_Owner = user1@host\n", "user1")
        self.assertEqual(pbs.parse_submitted("hello\n48[].torque01\n"), "48[].torque01")


class LSFTests(Case):
    def test_queue(self) -> None:
        text = (
            "1|0|PEND|normal|-|-|lgi0123456789ab\n2|3|RUN|normal|-|-|a.lgi0123456789ac[3]\n3|0|PSUSP|normal|-|-|x\n"
            "4|0|USUSP|normal|-|-|x\n5|0|DONE|normal|-|-|x\n6|0|EXIT|normal|3|-|x\n"
            "7|0|EXIT|normal|143|TERM_OWNER: job killed by owner|a|b\n8|0|UNKWN|normal|-|-|x\n"
            "9|0|EXIT|normal|140|TERM_RUNLIMIT: job killed after reaching LSF run time limit|x\n"
        )
        entries = lsf.parse_bjobs(text)
        self.assertEqual(
            [entry.status.state for entry in entries],
            [State.PENDING, State.RUNNING, State.HELD, State.SUSPENDED, State.FINISHED, State.FAILED,
             State.CANCELLED, State.UNKNOWN, State.FAILED],
        )  # fmt: skip
        self.assertEqual((entries[1].task, entries[1].key), (3, "lgi0123456789ac"))
        self.assertEqual((entries[5].status.exit_code, entries[6].status.signal), (3, 15))
        self.assertEqual(lsf.parse_bjobs("No job found\n"), [])
        self.assertRaises(BatchError, lsf.parse_bjobs, "LSF is down\n")

    def test_accounting(self) -> None:
        [entry] = lsf.parse_bacct(said("lsf-bacct-l.txt"))
        self.assertEqual((entry.job, entry.status.state), ("3224113", State.CANCELLED))
        [entry] = lsf.parse_bacct(said("lsf-bjobs-l.txt"))
        status = entry.status
        self.assertEqual(
            (entry.job, status.state, status.exit_code, status.signal), ("771278", State.FAILED, 140, 12)
        )
        self.assertEqual(status.reason, "TERM_RUNLIMIT: job killed after reaching LSF run time limit")

    def test_submitted(self) -> None:
        self.assertEqual(lsf.parse_submitted("note\nJob <7> is submitted to queue <a>.\n"), "7")
        self.assertRaises(BatchError, lsf.parse_submitted, "Job not submitted.")


class LoadLevelerTests(Case):
    def test_queue(self) -> None:
        entries = loadleveler.parse_llq(said("loadleveler-llq-r.txt"))
        self.assertEqual(
            states(entries),
            {
                ("node1c1.host.eu.267412", None): State.RUNNING,
                ("node2c1.host.eu.123456", None): State.PENDING,
                ("node2c1.host.eu.123457", None): State.FAILED,
            },
        )
        self.assertEqual((entries[0].key, entries[2].key), ("lgi0123456789ab", "lgi0123456789ac"))
        self.assertEqual(entries[2].status.exit_code, 3)
        self.assertEqual(loadleveler.parse_llq("llq: There is currently no job status to report.\n"), [])
        self.assertRaises(BatchError, loadleveler.parse_llq, "llq: cannot connect")

    def test_long(self) -> None:
        text = said("loadleveler-llq-l.txt")
        self.assertEqual(loadleveler.parse_long(text), [])  # running is no end
        ended = text.replace("Status: Running", "Status: Completed").replace("Code:", "Code: 768")
        [entry] = loadleveler.parse_long(ended)
        self.assertEqual((entry.job, entry.status.state, entry.status.exit_code), ("meso-d.16250", State.FAILED, 3))
        [entry] = loadleveler.parse_long(text.replace("Status: Running", "Status: Removed"))
        self.assertEqual(entry.status.state, State.CANCELLED)

    def test_submitted(self) -> None:
        said_so = 'llsubmit: The job "meso-d.16247" has been submitted.'
        self.assertEqual(loadleveler.parse_submitted(said_so), "meso-d.16247")
        self.assertRaises(BatchError, loadleveler.parse_submitted, "llsubmit: no")


class LocalTests(Case):
    def test_names_of_programs_may_hold_anything(self) -> None:
        text = "12 (a) b (c) S 1 12 11 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 1\n"
        found = local.parse_stat(text)
        self.assertEqual((found.pid, found.letter, found.session, found.start), (12, "S", 11, 777))
