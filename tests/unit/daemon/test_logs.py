from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from lgi.daemon import logs
from lgi.daemon.logs import CALLS, DEBUG, EVERYTHING, NORMAL, QUIET, Filter, LogFile


class FilterTests(SynchronousTestCase):
    def shown(self, verbosity: int, level: Any, namespace: str) -> bool:
        said = Filter(verbosity=verbosity)({"log_level": level, "log_namespace": namespace})
        return bool(said.name == "yes")

    def test_table(self) -> None:
        ours, others = "lgi.daemon.work", "twisted.web"
        for level, namespace, quiet, normal, debug, everything in (
            (LogLevel.critical, ours, True, True, True, True),
            (LogLevel.error, ours, False, True, True, True),
            (LogLevel.info, others, False, True, True, True),
            (None, others, False, True, True, True),
            (LogLevel.debug, ours, False, False, True, True),
            (LogLevel.debug, others, False, False, False, True),
            (LogLevel.debug, CALLS, False, False, False, True),
        ):
            shown = [self.shown(one, level, namespace) for one in (QUIET, NORMAL, DEBUG, EVERYTHING)]
            self.assertEqual(shown, [quiet, normal, debug, everything], (level, namespace))


class LogFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.file = LogFile(self.path)
        self.addCleanup(lambda: self.file._file.close())  # noqa: PLW0108  # the one of that moment

    def say(self, text: str) -> None:
        self.file.write(text)
        self.file.flush()

    def test_moved_away_and_opened_anew(self) -> None:
        moved = self.path.with_name("moved")
        self.say("one ")
        self.path.rename(moved)
        self.say("two")
        self.file.reopen()
        self.say("three")
        self.assertEqual((moved.read_text(), self.path.read_text()), ("one two", "three"))

    def test_what_is_there_stays(self) -> None:
        self.say("one ")
        self.file.reopen()
        self.say("two")
        self.assertEqual(self.path.read_text(), "one two")

    def test_emptied_by_somebody_else(self) -> None:
        self.say("one ")
        os.truncate(self.path, 0)
        self.say("two")
        self.assertEqual(self.path.read_bytes(), b"two")

    def test_goes_on_where_it_is_if_it_cannot_be_opened(self) -> None:
        moved = self.path.with_name("elsewhere")
        self.path.rename(moved)
        self.path.mkdir()
        self.patch(logs, "_file", self.file)
        logs.reopen()
        self.say("still here")
        self.assertEqual(moved.read_text(), "still here")
