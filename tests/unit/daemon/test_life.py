from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lgi.daemon.life import Life, Step, Words, new_life, resumed_life

ALL_WORDS = ("accepted", "abort", "lost", "closed", "look", "tampered")


def told(life: Life, *words: str) -> Life:
    for word in words:
        life.tell(getattr(Words, word))
    return life


class LifeTests(SynchronousTestCase):
    def test_the_usual_way(self) -> None:
        life = new_life()
        for word, step in (
            ("accepted", Step.INSPECT),
            ("found_idle", Step.PROLOGUE),
            ("prepared", Step.RUN),
            ("started", Step.NOTHING),
            ("look", Step.INSPECT),
            ("found_running", Step.NOTHING),
            ("look", Step.INSPECT),
            ("found_finished", Step.EPILOGUE),
            ("wrapped", Step.REPORT_FINISHED),
            ("reported", Step.REMOVE),
            ("removed", Step.NOTHING),
        ):
            self.assertFalse(life.ended())
            self.assertEqual(told(life, word).step(), step, word)
        self.assertTrue(life.ended())

    def test_what_the_server_says(self) -> None:
        at_work = {
            "unsure": [],
            "resting": ["accepted"],
            "preparing": ["accepted", "found_idle"],
            "starting": ["accepted", "found_idle", "prepared"],
            "running": ["accepted", "found_running"],
            "finishing": ["accepted", "found_finished"],
        }
        reporting = ["accepted", "found_finished", "wrapped"]
        aborting = ["abort"]
        reporting_abort = ["abort", "stopped"]
        for name, words in at_work.items():
            self.assertEqual(told(new_life(), *words, "abort").step(), Step.ABORT, name)
        self.assertEqual(told(new_life(), *reporting, "abort").step(), Step.REPORT_FINISHED)
        for words in (*at_work.values(), reporting, aborting, reporting_abort):
            self.assertEqual(told(new_life(), *words, "lost").step(), Step.STOP)
            self.assertEqual(told(new_life(), *words, "closed").step(), Step.STOP)
            self.assertTrue(told(new_life(), *words, "tampered").ended())

    def test_no_way_back_from_being_given_up(self) -> None:
        for last in ((), ("stopped",), ("stopped", "removed")):
            life = told(new_life(), "lost", *last)
            step = life.step()
            for word in set(ALL_WORDS) - {"tampered"}:
                self.assertEqual(told(life, word).step(), step)

    def test_nothing_moves_a_refused_job(self) -> None:
        self.assertEqual(told(new_life(), "tampered", *ALL_WORDS).step(), Step.NOTHING)

    def test_an_aborted_job_is_never_started_again(self) -> None:
        life = told(resumed_life(), "abort", "accepted", "look")
        self.assertEqual(life.step(), Step.ABORT)
        self.assertEqual(told(life, "stopped").step(), Step.REPORT_ABORTED)
        self.assertEqual(told(life, "reported").step(), Step.REMOVE)

    def test_resumed_begins_with_a_look(self) -> None:
        self.assertEqual(resumed_life().step(), Step.INSPECT)
        self.assertEqual(new_life().step(), Step.NOTHING)
