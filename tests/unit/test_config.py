"""The project server's configuration file."""

from __future__ import annotations

from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from lgi.config import ConfigError, load_config
from lgi.db.database import Database
from lgi.db.upgrade import SchemaError, upgrade_schema
from lgi.setup import ServerOptions, check_databases, open_databases, repositories_of

GOOD = """
[server]
url = "https://grid.example.org:8443/LGI"
port = 8443
certificate = "../server/server.crt"
private_key = "/keys/server.key"
ca_certificate = "ca.crt"
revoked = "../ca/crl.pem"
ca_certificate_url = "https://grid.example.org:8443/LGI/ca.crt"

[repository]
directory = "../repository"
location = "LGI@grid.example.org"

[scheduler]
certificate = "s.crt"
private_key = "s.key"

[projects.LGI]
database = "mariadb://lgi:S3cret-Word@db.example.org/lgi"

[projects.other]
database = "sqlite:///../db/other.sqlite"
threads = 2
"""
TOP = "top level"


class ConfigCase(SynchronousTestCase):
    """A file in a directory of its own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "etc").mkdir(parents=True)
        self.file = self.folder / "etc" / "lgi-server.toml"

    def mistakes(self, text: str | bytes) -> list[str]:
        """The lines that a file is refused with, each of which starts with the file's name."""
        self.file.write_bytes(text if isinstance(text, bytes) else text.encode())
        error = self.assertRaises(ConfigError, load_config, self.file)
        lines = str(error).splitlines()
        for line in lines:
            self.assertTrue(line.startswith(f"{self.file}: "), line)
        return [line.removeprefix(f"{self.file}: ") for line in lines]


class LoadTests(ConfigCase):
    """What is in a good file."""

    def test_values_and_defaults(self) -> None:
        self.file.write_text(GOOD)
        config = load_config(self.file)
        self.assertEqual((config.server.port, config.server.interface, config.server.idle_timeout), (8443, "", 120))
        self.assertEqual((config.limits.work_default, config.limits.work_maximum), (32, 256))
        self.assertEqual((config.limits.list_default, config.limits.list_maximum), (128, 4096))
        self.assertEqual((config.limits.lock_wait, config.limits.back_off), (30, 10))
        self.assertEqual((config.projects["LGI"].threads, config.projects["other"].threads), (8, 2))
        self.assertEqual(config.log.level, "info")

    def test_relative_paths_count_from_the_files_directory(self) -> None:
        self.file.write_text(GOOD)
        config = load_config(self.file)
        etc = self.folder / "etc"
        self.assertEqual(config.server.certificate.resolve(), self.folder / "server" / "server.crt")
        self.assertEqual(config.server.private_key, Path("/keys/server.key"))
        self.assertEqual(config.server.ca_certificate, etc / "ca.crt")
        self.assertEqual(config.repository.directory.resolve(), self.folder / "repository")
        self.assertEqual(config.projects["other"].database, f"sqlite:///{self.folder}/db/other.sqlite")

    def test_a_relative_name_of_the_file_makes_no_difference(self) -> None:
        self.file.write_text(GOOD)
        relative = Path("..") / self.file.relative_to(Path.cwd().parent)
        self.assertEqual(load_config(relative).server.ca_certificate, self.folder / "etc" / "ca.crt")

    def test_secrets_are_not_shown(self) -> None:
        self.file.write_text(GOOD)
        config = load_config(self.file)
        for shown in (repr(config), str(config), repr(config.projects), f"{config.projects['LGI']}"):
            self.assertNotIn("S3cret", shown)
        self.assertIn("S3cret", config.projects["LGI"].database)


class MistakeTests(ConfigCase):
    """All mistakes at once, each with its section and key."""

    def test_all_mistakes_are_reported_together(self) -> None:
        text = (
            GOOD.replace("port = 8443", 'port = "8443"')
            .replace('certificate = "s.crt"\n', "")
            .replace("[repository]", "[repository]\nmax_file_sise = 3\nmax_request_size = 0")
            .replace('"https://grid.example.org:8443/LGI"', '"http://grid.example.org/LGI"')
            .replace("threads = 2", "threads = 999")
            + "\n[limits]\nlock_wait = -1\nrequests = true\n[log]\nlevel = 'loud'\n[extra]\n"
        )
        found = self.mistakes(text)
        for section, words in (
            ("server.url", "https://host:8443/LGI"),
            ("server.port", "a whole number is needed, not '8443'"),
            ("scheduler.certificate", "certificate is missing"),
            ("repository", "unknown: max_file_sise"),
            ("repository.max_request_size", ">= 1"),
            ("projects.other.threads", "<= 256"),
            ("limits.lock_wait", ">= 0"),
            ("limits.requests", "a whole number is needed, not True"),
            ("log.level", "'loud'"),
            (TOP, "unknown: extra"),
        ):
            self.assertTrue(
                [line for line in found if line.startswith(f"{section}: ") and words in line], (section, found)
            )
        self.assertEqual(len(found), 10, found)

    def test_empty_file_names_all_sections(self) -> None:
        found = self.mistakes("")
        self.assertEqual(
            sorted(found),
            [f"{name}: {name} is missing" for name in ("projects", "repository", "scheduler", "server")],
        )

    def test_values_of_the_wrong_kind(self) -> None:
        for old, new, place in (
            ('"ca.crt"', "7", "server.ca_certificate"),
            ('"ca.crt"', '""', "server.ca_certificate"),
            ("port = 8443", "port = 8443.0", "server.port"),
            ("port = 8443", "port = -1", "server.port"),
            ("port = 8443", "port = 65536", "server.port"),
            ("port = 8443", "port = [8443]", "server.port"),
            ("port = 8443", "port = 8443\ninterface = 7", "server.interface"),
            ("port = 8443", "port = 8443\nidle_timeout = 0", "server.idle_timeout"),
            ('"LGI@grid.example.org"', "[]", "repository.location"),
            ("threads = 2", "threads = 0", "projects.other.threads"),
            ('"sqlite:///../db/other.sqlite"', '""', "projects.other.database"),
            ('"sqlite:///../db/other.sqlite"', "1", "projects.other.database"),
        ):
            found = self.mistakes(GOOD.replace(old, new))
            self.assertEqual([line.partition(": ")[0] for line in found], [place], (new, found))

    def test_addresses(self) -> None:
        for url in (
            "grid.example.org",
            "https://",
            "https:///LGI",
            "https://grid.example.org",
            "https://grid.example.org/",
            "https://grid.example.org/LGI?x",
            "https://grid.example.org/LGI#x",
            "ftp://grid.example.org/LGI",
            "https://grid.example.org:port/LGI",
            "https://grid.example.org:0/LGI",
            "https://grid.example.org:65536/LGI",
            "https://[::1/LGI",
        ):
            found = self.mistakes(GOOD.replace('url = "https://grid.example.org:8443/LGI"\n', f'url = "{url}"\n', 1))
            self.assertEqual(len(found), 1, found)
            self.assertIn(repr(url), found[0])

    def test_sections_of_the_wrong_kind(self) -> None:
        for text in (
            "server = 3\n" + GOOD.replace("[server]", "[scheduler.x]"),
            "projects = 'LGI'\n" + GOOD.partition("[projects")[0],
            GOOD.partition("[projects")[0] + "[projects]\nLGI = 'sqlite:///x'\n",
            GOOD.partition("[projects")[0] + "[[projects]]\ndatabase = 'sqlite:///x'\n",
        ):
            self.assertTrue(self.mistakes(text))

    def test_no_project_at_all(self) -> None:
        found = self.mistakes(GOOD.partition("[projects")[0] + "[projects]\n")
        self.assertEqual(found, ["[projects.NAME]: at least one project is needed"])

    def test_files_that_cannot_be_read(self) -> None:
        error = self.assertRaises(ConfigError, load_config, self.folder / "none.toml")
        self.assertEqual(str(error), f"{self.folder / 'none.toml'}: No such file or directory")
        self.assertIn("directory", str(self.assertRaises(ConfigError, load_config, self.folder)))
        self.assertEqual(self.mistakes(b"\xff\xfe"), ["it is not UTF-8 text"])
        [line] = self.mistakes("[server\n")
        self.assertIn("line 1", line)
        [line] = self.mistakes("a = 1\na = 2\n")
        self.assertIn("line 2", line)

    def test_mistakes_do_not_show_secrets(self) -> None:
        for line in self.mistakes(GOOD.replace("threads = 2", "threads = 2\npassword = 'S3cret-Word'")):
            self.assertNotIn("S3cret", line)


class SetupTests(ConfigCase):
    """From a configuration to databases and repositories."""

    def options(self, *arguments: str) -> ServerOptions:
        """Options as twistd reads them."""
        options = ServerOptions()
        options.parseOptions(arguments)
        return options

    def test_configuration_is_read_before_anything_starts(self) -> None:
        self.file.write_text(GOOD)
        self.assertEqual(self.options("--config", str(self.file))["configuration"], load_config(self.file))

    def test_every_mistake_is_a_usage_error(self) -> None:
        self.assertIn("--config FILE", str(self.assertRaises(UsageError, self.options)))
        error = self.assertRaises(SystemExit, self.options, "--config", str(self.folder / "none.toml"))
        self.assertIn("No such file", str(error))
        self.file.write_text(GOOD.replace("mariadb://", "oracle://"))
        error = self.assertRaises(SystemExit, self.options, "--config", str(self.file))
        self.assertIn("'oracle'", str(error))
        self.assertNotIn("S3cret", str(error))

    def _databases(self, url: str) -> dict[str, Database]:
        text = GOOD.partition("[projects")[0] + f'[projects.LGI]\ndatabase = "{url}"\n'
        self.file.write_text(text)
        databases = open_databases(load_config(self.file), None)
        for database in databases.values():
            self.addCleanup(database.stop)
        return databases

    def test_databases_are_checked_by_project(self) -> None:
        databases = self._databases("sqlite:///project.sqlite")
        error = self.assertRaises(SchemaError, check_databases, databases)
        self.assertIn("project LGI: there is no database file ", str(error))
        self.assertFalse((self.folder / "etc" / "project.sqlite").exists())
        databases["LGI"].engine.connect().close()
        error = self.assertRaises(SchemaError, check_databases, databases)
        self.assertIn("project LGI: the database has no LGI schema", str(error))
        with databases["LGI"].engine.begin() as connection:
            upgrade_schema(connection)
        check_databases(databases)
        self.assertTrue((self.folder / "etc" / "project.sqlite").exists())

    def test_database_that_is_away_is_named(self) -> None:
        error = self.assertRaises(
            SchemaError, check_databases, self._databases("mariadb://lgi:S3cret@127.0.0.1:1/lgi")
        )
        self.assertIn("the database of project LGI cannot be reached: ", str(error))
        self.assertNotIn("S3cret", str(error))

    def test_repositories_are_where_the_configuration_says(self) -> None:
        self.file.write_text(GOOD)
        repositories = repositories_of(load_config(self.file))
        self.assertEqual(repositories.url, "https://grid.example.org:8443/LGI/repository")
        self.assertEqual(repositories.location, "LGI@grid.example.org")
