"""Database URLs and engines."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lgi.db.database import Database, DatabaseURLError, database_url, make_engine


class DatabaseURLTests(SynchronousTestCase):
    """What a configuration file may say."""

    def test_drivers_are_chosen(self) -> None:
        for text, driver in (
            ("sqlite:////var/lgi/project.sqlite", "sqlite"),
            ("mariadb://lgi:x@db.example.org:3306/lgi", "mariadb+mysqldb"),
            ("mysql://lgi:x@db.example.org/lgi", "mysql+mysqldb"),
            ("mysql+pymysql://lgi:x@db.example.org/lgi", "mysql+pymysql"),
            ("mariadb://lgi:x@localhost/lgi?unix_socket=/run/mysqld/mysqld.sock", "mariadb+mysqldb"),
        ):
            self.assertEqual(database_url(text).drivername, driver)

    def test_parts_are_kept(self) -> None:
        url = database_url("mariadb://lgi:p%40ss%2Fword@db.example.org:3307/lgi_project")
        self.assertEqual((url.username, url.password, url.host), ("lgi", "p@ss/word", "db.example.org"))
        self.assertEqual((url.port, url.database), (3307, "lgi_project"))

    def test_mistakes_say_what_is_needed_and_show_no_password(self) -> None:
        for text, words in (
            ("", "looks like sqlite:///"),
            ("nonsense", "looks like sqlite:///"),
            ("/var/lgi/project.sqlite", "looks like sqlite:///"),
            ("lgi:S3cret@host", "looks like sqlite:///"),
            ("mariadb://lgi:S3cret@host:port/lgi", "looks like sqlite:///"),
            ("oracle://lgi:S3cret@host/lgi", "'oracle' are not supported; known are: mariadb, mysql"),
            ("postgres://lgi:S3cret@host/lgi", "'postgres'"),
            ("mariadb://lgi:S3cret@host", "names no database"),
            ("mariadb://lgi:S3cret@host/", "names no database"),
            ("sqlite://", "names no database"),
            ("sqlite:///:memory:", "file"),
        ):
            error = self.assertRaises(DatabaseURLError, database_url, text)
            self.assertIn(words, str(error), text)
            self.assertNotIn("S3cret", str(error))

    def test_missing_driver_is_named(self) -> None:
        for text in ("mysql+nonesuch://lgi:S3cret@host/lgi", "mariadb+mariadbconnector://lgi:S3cret@host/lgi"):
            error = self.assertRaises(DatabaseURLError, lambda text=text: make_engine(database_url(text)))
            self.assertIn("no driver", str(error))
            self.assertNotIn("S3cret", str(error))

    def test_nothing_is_connected_to_before_it_is_needed(self) -> None:
        engine = make_engine(database_url("mariadb://lgi:S3cret@no.such.host.invalid/lgi"))
        database = Database(None, engine)
        database.start()
        database.stop()
        self.assertNotIn("S3cret", repr(engine))

    def test_a_database_that_was_not_started_can_be_stopped(self) -> None:
        database = Database(None, make_engine(database_url("sqlite:///x.sqlite")))
        database.stop()
        database.stop()
