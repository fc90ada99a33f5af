"""Packaging. Each dependency has the reason for it beside it; tools are configured in pyproject.toml."""

from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup

INSTALL = [
    "twisted[tls]>=26.4",  # the services: reactor, TLS, HTTP server, processes, twistd
    "prometheus_client>=0.26",  # metrics in Prometheus' format, also those of several processes together
    "treq>=26.1",  # HTTP client of the daemon and the command line
    "pyopenssl>=26",  # TLS of Twisted, and the peer certificate of a request
    "service-identity>=24",  # host names in server certificates, checked by the clients
    "cryptography>=46",  # certificates: the private authority, identities, revocation
    "lxml>=6",  # checks posted XML and reads answers, also the old server's slightly broken ones
    "multipart>=1.3",  # streaming parser of posted forms, so that no upload sits in memory
    "automat>=25.4",  # the life of one job in the daemon, as a state machine
    "attrs>=25",  # frozen values
    "SQLAlchemy>=2.0.40",  # SQL for SQLite, MariaDB and MySQL: schema, statements, connection pool (Core, no ORM)
    "alembic>=1.16",  # schema migrations
    "sqlglot>=27",  # statements of other project servers: parsed, checked, written for the local database
    "PyMySQL>=1.1",  # MariaDB and MySQL driver that needs no compiler
    "asyncssh>=2.24",  # repositories on another machine: SFTP with pipelining, and the server's own key
    "cloudpickle>=3.1",  # functions that the executor sends to a resource
    "click>=8.2",  # command line: options, help, shell completion
    "rich>=14",  # what a terminal shows: tables, live progress, transfer bars
]
POSTGRESQL = [
    "psycopg[binary]>=3.2",  # PostgreSQL driver, for those who have one
]
MYSQLCLIENT = [
    "mysqlclient>=2.2",  # compiled driver for MariaDB and MySQL, taken where it is there: half the cost
    "greenlet>=3.2",  # transactions on it that wait without a thread
]
BENCH = [
    *MYSQLCLIENT,  # what a server with much to do should have
    "matplotlib>=3.10",  # the plot of docs/performance.md
    "celery[redis]>=5.5",  # what the end-to-end benchmark is compared with
]
TEST = [
    *POSTGRESQL,  # one contract on all three databases
    *BENCH,  # both drivers for MariaDB; the benchmark's own test draws
    "pytest>=8.4",  # runs the tests
    "pytest-twisted>=1.14",  # coroutines and Deferreds in tests
    "pytest-xdist>=3.8",  # the tests on all cores
    "hypothesis>=6.130",  # properties of codecs, names, access rules
    "mypy>=1.18",  # types, strict
    "mypy-zope>=1.0.14",  # types of Twisted's interfaces
    "lxml-stubs>=0.5",  # types of lxml
    "types-PyMySQL>=1.1",  # types of PyMySQL
    "types-mysqlclient>=2.2",  # types of mysqlclient
    "types-greenlet>=3.2",  # types of greenlet
    "ruff>=0.12",  # lint and format
    "import-linter>=2.3",  # the layers of docs/architecture.md as a checked contract
]

# The document's own tools, see docs/tools.md.
TOOLS = ("qsub", "qstat", "qdel", "filetransfer", "xml", "csv", "hash", "binhex", "hexbin")
APPLICATIONS = Path("etc/applications")

setup(
    name="lgi",
    version="2.0.0.dev0",
    description="Leiden Grid Infrastructure: grid middleware for research groups, as Twisted services",
    long_description=Path("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    py_modules=["LGI"],
    packages=find_packages(include=["lgi", "lgi.*"]) + find_namespace_packages(include=["twisted.plugins"]),
    package_data={
        "lgi": ["py.typed", "__init__.pyi"],
        "lgi.db": ["migrations/*.py", "migrations/*.mako", "migrations/versions/*.py"],
    },
    install_requires=INSTALL,
    extras_require={"test": TEST, "bench": BENCH, "postgresql": POSTGRESQL, "mysqlclient": MYSQLCLIENT},
    data_files=[
        (
            f"share/lgi/applications/{folder.relative_to(APPLICATIONS)}",
            [str(path) for path in sorted(folder.iterdir()) if path.is_file()],
        )
        for folder in sorted(path for path in APPLICATIONS.rglob("*") if path.is_dir())
    ],
    entry_points={
        "console_scripts": [
            "lgi = lgi.cli.main:main",
            "LGI_daemon = lgi.daemon.program:main",
            *(f"LGI_{tool} = lgi.tools.{tool}:main" for tool in TOOLS),
        ]
    },
    zip_safe=False,
)
