"""Which statements of other servers are understood, and that nothing else is."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql, sqlite
from twisted.trial.unittest import SynchronousTestCase

from lgi.db.managed import TABLES
from lgi.db.mysqltext import StatementRefused, quoted
from lgi.db.statements import Change, Verb, understand

HOSTILE = """
DELETE FROM users_allowed; DROP TABLE job_queue
DELETE FROM users_allowed;;
INSERT INTO users_denied SET user_name='a', application='b'; DELETE FROM users_allowed
DELETE FROM users_allowed -- all
DELETE FROM users_allowed # all
DELETE FROM users_allowed /* all */
DELETE FROM users_allowed /*! WHERE 1 */
/*!50000 DROP TABLE job_queue */
DELETE /*! FROM job_queue */ FROM users_allowed
SELECT * FROM users_allowed
SELECT user_name FROM users_allowed INTO OUTFILE '/tmp/x'
SELECT LOAD_FILE('/etc/passwd')
INSERT INTO users_allowed (user_name, application) SELECT resource_name, url FROM active_resources
INSERT INTO users_allowed SELECT user_name, application, 1 FROM users_denied
INSERT INTO users_allowed (user_name, application) VALUES ('a', (SELECT url FROM active_resources))
INSERT INTO users_allowed (user_name, application) VALUES ('a', LOAD_FILE('/etc/passwd'))
INSERT INTO users_allowed (user_name, application) VALUES ('a', 'b') ON DUPLICATE KEY UPDATE job_limit=1
INSERT INTO users_allowed (user_name, application) VALUES ('a', 'b') UNION SELECT 1
INSERT INTO users_allowed (user_name, application) TABLE users_denied
INSERT INTO users_allowed SET user_name=CONCAT('a','b'), application='c'
INSERT INTO users_allowed SET user_name=user_name, application='c'
INSERT INTO users_allowed SET user_name='a' 'b', application='c'
INSERT INTO users_allowed SET user_name=@@version, application='c'
INSERT INTO users_allowed SET user_name=@a, application='c'
INSERT INTO users_allowed SET user_name=_latin1'a', application='c'
INSERT INTO users_allowed SET user_name=_latin1 'a', application='c'
INSERT INTO users_allowed SET user_name=N'a', application='c'
INSERT INTO users_allowed SET user_name='a' COLLATE utf8mb4_bin, application='c'
INSERT INTO users_allowed SET user_name=NULL, application='c'
INSERT INTO users_allowed SET user_name=DEFAULT, application='c'
INSERT INTO users_allowed SET user_name='', application='c'
INSERT INTO users_allowed SET user_name=' a', application='c'
INSERT INTO users_allowed SET user_name='a'
INSERT INTO users_allowed SET user_name='a', user_name='b', application='c'
INSERT INTO users_allowed (user_name, user_name, application) VALUES ('a', 'b', 'c')
INSERT INTO users_allowed SET user_name='a', application='c', job_limit=SLEEP(10)
INSERT INTO users_allowed SET user_name='a', application='c', job_limit=1+1
INSERT INTO users_allowed SET user_name='a', application='c', job_limit='x'
INSERT INTO users_allowed SET user_name='a', application='c', job_limit=1.5
INSERT INTO users_allowed SET user_name='a', application='c', job_limit=0x31
INSERT INTO users_allowed SET user_name='a', application='c', job_limit=3000000000
INSERT INTO users_allowed SET user_name='a', application='c', url='d'
INSERT INTO users_allowed SET user_name=1, application='c'
INSERT INTO users_allowed (user_name, application, job_limit) VALUES ('a', 'b')
INSERT INTO users_allowed VALUES ('a', 'b')
INSERT INTO users_allowed () VALUES ()
INSERT IGNORE INTO users_allowed SET user_name='a', application='c'
INSERT DELAYED INTO users_allowed SET user_name='a', application='c'
INSERT INTO LGI.users_allowed SET user_name='a', application='c'
INSERT INTO mysql.user SET user_name='a', application='c'
INSERT INTO job_queue SET application='a'
INSERT INTO updates SET version=5, servers='any', update_query='x'
INSERT INTO running_sessions SET resource_id=1, session_time_stamp=1
INSERT INTO `job_queue` SET application='a'
INSERT INTO active_resources SET resource_name='a', project_server=3
INSERT INTO active_resources SET resource_name='a', project_server=-1
INSERT INTO active_resources SET resource_name='a', resource_capabilities='<a>'
INSERT INTO active_resources SET resource_name='a', resource_capabilities='</resource_capabilities><error>'
INSERT INTO active_resources SET resource_name='a', resource_capabilities='<error> </error>'
INSERT INTO active_resources SET resource_id=1, resource_name='a'
INSERT INTO active_resources SET url='a'
REPLACE INTO job_queue SET application='a'
REPLACE INTO users_allowed SELECT * FROM users_denied
REPLACE
REPLACE users_allowed
UPDATE job_queue SET state='finished'
UPDATE users_allowed, users_denied SET job_limit=1
UPDATE users_allowed JOIN users_denied SET job_limit=1
UPDATE users_allowed AS u SET job_limit=1
UPDATE users_allowed url SET job_limit=1
UPDATE users_allowed SET job_limit=job_limit
UPDATE users_allowed SET job_limit=(1)
UPDATE users_allowed SET job_limit=1=1
UPDATE users_allowed SET job_limit=1 OR 1
UPDATE users_allowed SET url='a'
UPDATE users_allowed SET users_denied.user_name='a'
UPDATE users_allowed SET job_limit=1, job_limit=2
UPDATE users_allowed SET job_limit=1 ORDER BY user_name
UPDATE users_allowed SET job_limit=1 LIMIT 1
UPDATE users_allowed SET job_limit=1 WHERE
UPDATE users_allowed SET
UPDATE users_allowed SET job_limit=1 WHERE user_name=(SELECT 'a')
UPDATE users_allowed SET job_limit=1 WHERE EXISTS (SELECT 1)
UPDATE users_allowed SET job_limit=1 WHERE user_name IN (SELECT user_name FROM users_denied)
UPDATE users_allowed SET job_limit=1 WHERE url='a'
UPDATE users_allowed SET job_limit=1 WHERE users_denied.user_name='a'
UPDATE users_allowed SET job_limit=1 WHERE LGI.users_allowed.user_name='a'
UPDATE users_allowed SET job_limit=1 WHERE user_name=0
UPDATE users_allowed SET job_limit=1 WHERE job_limit='a'
UPDATE users_allowed SET job_limit=1 WHERE job_limit LIKE '1%'
UPDATE users_allowed SET job_limit=1 WHERE user_name REGEXP '.*'
UPDATE users_allowed SET job_limit=1 WHERE user_name SOUNDS LIKE 'a'
UPDATE users_allowed SET job_limit=1 WHERE user_name LIKE 'a' ESCAPE '|'
UPDATE users_allowed SET job_limit=1 WHERE LENGTH(user_name)=1
UPDATE users_allowed SET job_limit=1 WHERE SLEEP(100)
UPDATE users_allowed SET job_limit=1 WHERE user_name('a')
UPDATE users_allowed SET job_limit=1 WHERE 'a'='a'
UPDATE users_allowed SET job_limit=1 WHERE 1
UPDATE users_allowed SET job_limit=1 WHERE user_name
UPDATE users_allowed SET job_limit=1 WHERE NULL
UPDATE users_allowed SET job_limit=1 WHERE user_name=NULL
UPDATE users_allowed SET job_limit=1 WHERE user_name IS 'a'
UPDATE users_allowed SET job_limit=1 WHERE user_name<=>'a'
UPDATE users_allowed SET job_limit=1 WHERE user_name='a' XOR user_name='b'
UPDATE users_allowed SET job_limit=1 WHERE user_name='a' || user_name='b'
UPDATE users_allowed SET job_limit=1 WHERE (user_name, application) = ('a', 'b')
UPDATE users_allowed SET job_limit=1 WHERE user_name IN ()
UPDATE users_allowed SET job_limit=1 WHERE user_name IN (application)
UPDATE users_allowed SET job_limit=1 WHERE user_name='a'='b'
UPDATE users_allowed SET job_limit=1 WHERE user_name = = 'a'
UPDATE users_allowed SET job_limit=1 WHERE user_name='a' AND
UPDATE users_allowed SET job_limit=1 WHERE CASE user_name WHEN 'a' THEN 1 END
UPDATE users_allowed SET job_limit=1 WHERE user_name=:v0
UPDATE users_allowed SET job_limit=1 WHERE user_name=?
UPDATE active_resources SET resource_id=5
DELETE users_allowed FROM users_allowed
DELETE FROM users_allowed USING users_allowed
DELETE FROM users_allowed, users_denied
DELETE FROM users_allowed LIMIT 1
DELETE FROM users_allowed RETURNING user_name
DELETE QUICK FROM users_allowed
DELETE FROM job_log
DELETE FROM alembic_version
DELETE FROM Users_Allowed
DELETE users_allowed
TRUNCATE users_allowed
DROP TABLE users_allowed
ALTER TABLE users_allowed ADD x INT
CREATE TABLE x (a INT)
GRANT ALL ON *.* TO 'a'
SET user_name='a'
CALL x()
EXPLAIN DELETE FROM users_allowed
WITH a AS (SELECT 1) DELETE FROM users_allowed
LOCK TABLES users_allowed WRITE
BEGIN
INTO users_allowed
VALUES ('a', 'b')
""".strip().split("\n")

_WORDS = """
INSERT REPLACE UPDATE DELETE INTO FROM SET WHERE VALUES IN LIKE BETWEEN AND OR NOT IS NULL SELECT SLEEP
users_allowed job_queue user_name application job_limit resource_id ( ) , = < 'a' 5 0x41 ; . /* */
"""
VOCABULARY = _WORDS.split()


def shown(change: Change, dialect: Any = None) -> str:
    """The condition of a change as SQL."""
    assert change.condition is not None
    dialect = dialect or sqlite.dialect()
    return str(change.condition.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


class StatementTests(SynchronousTestCase):
    """The statement checker."""

    def test_hostile_statements_are_refused(self) -> None:
        """Every one of the table, whatever the database."""
        for statement in [*HOSTILE, "", " ", ";", "'", "\0", "DELETE FROM users_allowed\0"]:
            for dialect in ("sqlite", "mysql", "mariadb"):
                with self.assertRaises(StatementRefused, msg=statement) as caught:
                    understand(statement, dialect)
                self.assertTrue(str(caught.exception), statement)

    def test_too_complicated(self) -> None:
        """Depth and length have bounds, and what is within them is understood."""
        start = "DELETE FROM users_allowed WHERE "
        for condition in (
            "(" * 30 + "user_name='a'" + ")" * 30,
            "NOT " * 30 + "user_name='a'",
            "user_name='a'" + " OR user_name='a'" * 199,
            "user_name IN ('a'" + ",'a'" * 2000 + ")",
        ):
            understand(start + condition, "sqlite")
        for condition in (
            "(" * 1000 + "user_name='a'" + ")" * 1000,
            "NOT " * 1000 + "user_name='a'",
            "user_name='a'" + " OR user_name='a'" * 1000,
            "user_name IN ('a'" + ",'a'" * 10000 + ")",
        ):
            with self.assertRaises(StatementRefused):
                understand(start + condition, "sqlite")

    def test_new_rows(self) -> None:
        """All of MySQL's ways to write one."""
        row = {"user_name": "a", "application": "b", "job_limit": -3}
        for statement in (
            "INSERT INTO users_allowed SET user_name='a', application='b', job_limit=-3",
            'insert into users_allowed set user_name="a", application="b", job_limit=\'-3\';',
            "INSERT INTO `users_allowed` (`user_name`, `application`, `job_limit`) VALUES ('a', 'b', -3)",
            "INSERT INTO users_allowed (JOB_LIMIT, USER_NAME, application) VALUE (-3, 'a', 'b') ; ",
            "INSERT users_allowed\nVALUES\t('a', x'62', -3)",
        ):
            change = understand(statement, "sqlite")
            self.assertEqual((change.verb, change.table.name, change.rows), (Verb.INSERT, "users_allowed", (row,)))
            change = understand(statement.replace("INSERT", "REPLACE").replace("insert", "replace"), "sqlite")
            self.assertEqual((change.verb, change.rows), (Verb.REPLACE, (row,)))
        several = understand("INSERT INTO users_denied VALUES ('a', 'b'), ('c', 'd')", "sqlite")
        self.assertEqual([one["user_name"] for one in several.rows], ["a", "c"])
        numbered = understand(
            "INSERT INTO active_resources (resource_id, resource_name, client_certificate) VALUES (NULL, 'a', 'x')",
            "sqlite",
        )
        self.assertEqual(numbered.rows, ({"resource_name": "a", "client_certificate": b"x"},))

    def test_conditions(self) -> None:
        """Each kind, as our database gets it."""
        for condition, expected in (
            ("user_name='a'", "users_allowed.user_name = 'a'"),
            ("'a'=user_name", "users_allowed.user_name = 'a'"),
            ("3 < job_limit", "users_allowed.job_limit > 3"),
            ("3 >= job_limit", "users_allowed.job_limit <= 3"),
            ("users_allowed.user_name != 'a'", "users_allowed.user_name != 'a'"),
            ("user_name <> 'a'", "users_allowed.user_name != 'a'"),
            ("NOT user_name = 'a'", "users_allowed.user_name != 'a'"),
            ("user_name IN ('a','b')", "users_allowed.user_name IN ('a', 'b')"),
            ("user_name NOT IN ('a')", "(users_allowed.user_name NOT IN ('a'))"),
            ("job_limit BETWEEN -1 AND '4'", "users_allowed.job_limit BETWEEN -1 AND 4"),
            ("job_limit NOT BETWEEN 1 AND 4", "users_allowed.job_limit NOT BETWEEN 1 AND 4"),
            ("user_name IS NULL", "users_allowed.user_name IS NULL"),
            ("user_name IS NOT NULL", "users_allowed.user_name IS NOT NULL"),
            (
                "user_name='a' OR user_name='b' AND job_limit=1",
                "users_allowed.user_name = 'a' OR users_allowed.user_name = 'b' AND users_allowed.job_limit = 1",
            ),
            (
                "(user_name='a' OR user_name='b') AND job_limit=1",
                "(users_allowed.user_name = 'a' OR users_allowed.user_name = 'b') AND users_allowed.job_limit = 1",
            ),
        ):
            for verb in ("DELETE FROM users_allowed", "UPDATE users_allowed SET job_limit=0"):
                self.assertEqual(shown(understand(f"{verb} WHERE {condition}", "sqlite")), expected)
        self.assertIsNone(understand("DELETE FROM users_allowed", "sqlite").condition)

    def test_like(self) -> None:
        """The pattern means the same on every database, letters in their case."""
        for pattern, glob in ((r"a%_", "a*?"), (r"a\\%", "a%"), (r"a\%\_", "a%_"), ("[a]*?", "[[]a][*][?]")):
            change = understand(f"DELETE FROM users_denied WHERE user_name LIKE '{pattern}'", "sqlite")
            self.assertEqual(shown(change), f"users_denied.user_name GLOB '{glob}'")
        negated = understand("DELETE FROM users_denied WHERE user_name NOT LIKE 'a%'", "mysql")
        self.assertEqual(shown(negated, mysql.dialect()), r"users_denied.user_name NOT LIKE 'a%%' ESCAPE '\\'")

    @given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60))
    def test_a_name_stays_what_it_is(self, name: str) -> None:
        """A value that looks like SQL is a value."""
        statement = f"INSERT INTO users_denied SET user_name={quoted(name)}, application={quoted('; -- ' + name)}"
        try:
            change = understand(statement, "sqlite")
        except StatementRefused as problem:
            self.assertRegex(str(problem), "control characters|spaces around|at most 254 bytes")
            return
        (row,) = change.rows
        self.assertEqual(row, {"user_name": name, "application": "; -- " + name})

    @given(st.lists(st.sampled_from(VOCABULARY), max_size=14))
    def test_any_words_are_understood_or_refused(self, words: list[str]) -> None:
        """Whatever comes out concerns one of the tables, columns of it, and nothing else."""
        try:
            change = understand(" ".join(words), "sqlite")
        except StatementRefused:
            return
        self.assertIn(change.table.name, TABLES)
        for row in (*change.rows, change.values):
            self.assertLessEqual(set(row), set(change.table.c.keys()) - {"resource_id"})
