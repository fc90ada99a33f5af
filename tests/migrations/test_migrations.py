"""Migrations: they make what the program's metadata say, and programs refuse everything else."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, func, insert, inspect, select
from twisted.trial.unittest import SynchronousTestCase

from lgi.db.counts import recounted
from lgi.db.database import database_url, make_engine
from lgi.db.schema import event_queue, job_counts, job_queue, metadata
from lgi.db.upgrade import MIGRATIONS, SchemaError, _configuration, check_schema, program_revisions, upgrade_schema
from tests import mariadb, postgresql

UPGRADE = "lgi admin upgrade-db --config FILE"


def set_revision(connection: Connection, revision: str) -> None:
    """Let a database say that it has another schema."""
    connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")


class _Contract(SynchronousTestCase):
    """On which database is for the subclass to say."""

    def make_url(self) -> str:
        """The URL of an empty database."""
        raise NotImplementedError

    def engine(self) -> Engine:
        """An engine on an empty database of its own."""
        engine = make_engine(database_url(self.make_url()), pool_size=1)
        self.addCleanup(engine.dispose)
        return engine

    def refused(self, engine: Engine) -> str:
        """Assert that the schema is refused, and return what is said."""
        with engine.connect() as connection:
            return str(self.assertRaises(SchemaError, check_schema, connection))

    def test_a_fresh_database_is_what_the_metadata_say(self) -> None:
        engine = self.engine()
        with engine.begin() as connection:
            upgrade_schema(connection)
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            self.assertEqual(compare_metadata(context, metadata), [])

    def test_the_comparison_would_find_a_difference(self) -> None:
        engine = self.engine()
        with engine.begin() as connection:
            upgrade_schema(connection)
            connection.exec_driver_sql("DROP INDEX ix_job_log_job_id" + self.of_table("job_log"))
            connection.exec_driver_sql("ALTER TABLE job_queue ADD COLUMN extra INTEGER")
            kinds = {
                difference[0] for difference in compare_metadata(MigrationContext.configure(connection), metadata)
            }
        self.assertEqual(kinds, {"add_index", "remove_column"})

    def of_table(self, _table: str) -> str:
        """How the database wants to be told an index's table."""
        return ""

    def test_migrated_tables_are_made_like_those_of_the_metadata(self) -> None:
        # Also what the comparison does not look at: engine, character set, numbering.
        migrated, made = self.engine(), self.engine()
        with migrated.begin() as connection:
            upgrade_schema(connection)
        metadata.create_all(made)
        self.assertEqual(self.definitions(migrated), self.definitions(made))

    def definitions(self, engine: Engine) -> dict[str, object]:
        """All that the database itself says about our tables, in a form that can be compared."""
        raise NotImplementedError

    def test_upgrading_twice_changes_nothing(self) -> None:
        engine = self.engine()
        for _ in range(2):
            with engine.begin() as connection:
                upgrade_schema(connection)
                connection.execute(insert(event_queue), {"event_time_stamp": id(connection), "event": "kept"})
        with engine.connect() as connection:
            check_schema(connection)
            self.assertEqual(len(connection.execute(event_queue.select()).all()), 2)

    def test_jobs_are_kept(self) -> None:
        """From the first schema: repositories move into the rows of jobs, numbers are never given out twice."""
        engine = self.engine()
        job = "'queued', 'a', 'o', 'r', 'w', 'any', '', '', 's', 0, 1, 0, 1"
        with engine.begin() as connection:
            upgrade_schema(connection, "0001")
            for number in (1, 2, 7):
                connection.exec_driver_sql(f"INSERT INTO job_queue VALUES ({number}, {job})")
            self.number_from(connection, 8)
            connection.exec_driver_sql("INSERT INTO job_repositories VALUES (1, 'JOB_1'), (7, 'JOB_7')")
            connection.exec_driver_sql("DELETE FROM job_queue WHERE job_id = 7")
        with engine.begin() as connection:
            upgrade_schema(connection)
            kept = ("job_id", "repository", "job_specifics", "repository_size", "submission_key")
            rows = connection.execute(select(*(job_queue.c[name] for name in kept)))
            self.assertEqual([tuple(row) for row in rows], [(1, "JOB_1", "s", 0, None), (2, "/2", "s", 0, None)])
            check_schema(connection)
        with engine.begin() as connection:
            values: dict[str, object] = {column.name: "" for column in job_queue.c if column.name != "job_id"}
            numbers = ("lock_state", "state_time_stamp", "daemon_pulse", "priority", "repository_size")
            values |= dict.fromkeys(numbers, 0)
            values |= {"input": b"", "output": b"", "repository": "JOB_8"}
            self.assertEqual(connection.execute(insert(job_queue), values).inserted_primary_key, (8,))

    def test_jobs_that_are_there_are_counted(self) -> None:
        """From the schema without counts, and back to it."""
        engine = self.engine()
        lists = (("mark, theor", "admin, mark"), ("theor,mark", "any"), ("piet", "mark, admin"))
        with engine.begin() as connection:
            upgrade_schema(connection, "0003")
            for number, (owners, readers) in enumerate([*lists] * 5, 1):
                state = "running" if number == 1 else "queued"
                values = f"{number}, '{state}', 'a', '{owners}', '{readers}', 'w', 'any', '', '', 's', 0, 1, 0, 1"
                connection.exec_driver_sql(f"INSERT INTO job_queue VALUES ({values}, 'JOB_{number}', 0, NULL)")
        with patch("lgi.db.counts._BATCH", 4), engine.begin() as connection:
            upgrade_schema(connection)
            check_schema(connection)
            self.assertFalse(recounted(connection))
            number, slots = connection.execute(select(func.sum(job_counts.c.number), func.count())).one()
            self.assertEqual((number, slots), (30, 6))
        with engine.begin() as connection:
            command.downgrade(_configuration(connection), "0003")
            self.assertNotIn("job_counts", inspect(connection).get_table_names())
            self.assertEqual(connection.scalar(select(func.count()).select_from(job_queue)), 15)

    def number_from(self, _connection: Connection, _number: int) -> None:
        """Let the next job have this number, where numbers that are given do not count."""

    def test_the_right_schema_is_accepted(self) -> None:
        engine = self.engine()
        with engine.begin() as connection:
            upgrade_schema(connection)
        with engine.connect() as connection:
            check_schema(connection)

    def test_an_empty_database_is_refused(self) -> None:
        said = self.refused(self.engine())
        self.assertIn("has no LGI schema", said)
        self.assertIn("lgi init DIR", said)
        self.assertIn(UPGRADE, said)

    def test_checking_changes_nothing(self) -> None:
        engine = self.engine()
        self.refused(engine)
        self.assertEqual(inspect(engine).get_table_names(), [])

    def test_a_database_of_something_else_is_refused(self) -> None:
        engine = self.engine()
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE job_queue (job_id INTEGER)")
        self.assertIn("has no LGI schema", self.refused(engine))

    def test_a_newer_schema_is_refused(self) -> None:
        engine = self.engine()
        with engine.begin() as connection:
            upgrade_schema(connection)
            set_revision(connection, "9999")
        said = self.refused(engine)
        self.assertIn("(9999) is newer than this program", said)
        self.assertIn("install the newer release", said)
        self.assertNotIn(UPGRADE, said)

    def test_the_program_knows_its_migrations(self) -> None:
        script = ScriptDirectory.from_config(_configuration())
        head, known = program_revisions()
        self.assertEqual(head, script.get_current_head())
        self.assertEqual(known, {step.revision for step in script.walk_revisions()})

    def test_an_older_schema_is_refused(self) -> None:
        engine = self.engine()
        with engine.begin() as connection:
            upgrade_schema(connection)
        # As the program of a later release sees it, which knows this step and one more.
        _head, known = program_revisions()
        with patch("lgi.db.upgrade.program_revisions", return_value=("later", frozenset([*known, "later"]))):
            said = self.refused(engine)
        self.assertRegex(said, r"\(\w+\) is older than this program \(later\)")
        self.assertIn(f"run: {UPGRADE}", said)


class SQLiteMigrationTests(_Contract):
    """The embedded database."""

    def make_url(self) -> str:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        return f"sqlite:///{folder / 'project.sqlite'}"

    def definitions(self, engine: Engine) -> dict[str, object]:
        """The text of CREATE TABLE, line by line: the order of constraints is of no importance, nor are quotes."""
        with engine.connect() as connection:
            return {
                name: sorted(
                    line.strip("\t ,")
                    for line in connection.exec_driver_sql("SELECT sql FROM sqlite_schema WHERE name = ?", (name,))
                    .scalar_one()
                    .replace('"', "")
                    .splitlines()
                )
                for name in metadata.tables
            }


class MariaDBMigrationTests(_Contract):
    """The production database."""

    def make_url(self) -> str:
        server = mariadb.server()
        url = server.create_database()
        self.addCleanup(server.drop_database, url)
        return url

    def of_table(self, table: str) -> str:
        return f" ON {table}"

    def definitions(self, engine: Engine) -> dict[str, object]:
        """What SHOW CREATE TABLE says, line by line: the order of keys is of no importance."""
        with engine.connect() as connection:
            return {
                name: sorted(
                    line.strip(" ,")
                    for line in connection.exec_driver_sql(f"SHOW CREATE TABLE {name}").one()[1].splitlines()
                )
                for name in metadata.tables
            }

    def test_tables_are_innodb_and_tell_cases_apart(self) -> None:
        engine = self.engine()
        with engine.begin() as connection:
            upgrade_schema(connection)
            rows = connection.exec_driver_sql(
                "SELECT table_name, engine, table_collation FROM information_schema.tables"
                " WHERE table_schema = DATABASE() AND table_name <> 'alembic_version'"
            ).all()
        self.assertEqual({row[0] for row in rows}, set(metadata.tables))
        self.assertEqual({(row[1], row[2]) for row in rows}, {("InnoDB", "utf8mb4_bin")})


class PostgreSQLMigrationTests(_Contract):
    """The third database."""

    def make_url(self) -> str:
        # Gone with the server, at the end of the run.
        return postgresql.server().create_database()

    def number_from(self, connection: Connection, number: int) -> None:
        connection.exec_driver_sql(f"ALTER SEQUENCE job_queue_job_id_seq RESTART WITH {number}")

    def definitions(self, engine: Engine) -> dict[str, object]:
        """Columns, constraints and indexes as the catalogue has them."""
        columns = (
            "SELECT column_name, data_type, character_maximum_length, is_nullable, is_identity,"
            " column_default IS NULL FROM information_schema.columns WHERE table_name = %s"
        )
        constraints = "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass"
        indexes = "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s"
        with engine.connect() as connection:
            return {
                name: [
                    sorted(tuple(row) for row in connection.exec_driver_sql(query, (name,)))
                    for query in (columns, constraints, indexes)
                ]
                for name in metadata.tables
            }


class StepTests(SynchronousTestCase):
    """The steps themselves."""

    def test_steps_are_numbered_in_one_line(self) -> None:
        script = ScriptDirectory(str(MIGRATIONS))
        self.assertEqual(len(script.get_heads()), 1)
        revisions = [revision.revision for revision in script.walk_revisions()][::-1]
        self.assertEqual(revisions, [f"{number:04d}" for number in range(1, len(revisions) + 1)])


# Not tests by themselves: no database is said.
del _Contract
