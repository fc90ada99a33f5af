"""Who a tool speaks as: a user with a configuration directory, or the resource whose job directory it works in.

What the command line says goes before what a directory says; where it says everything, no directory is needed
(LGI 1.41, Basic command-line interface and Resource daemon).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs

from lgi.client.settings import SettingsError, is_server_url
from lgi.lists import ANY, decode_list
from lgi.tools.options import Given, Option
from lgi.tools.scan import content_of, unescape

CONFIGURATION = Option(
    "-c",
    "read this configuration directory. default is ~/.LGI. other options go before what it says.",
    "directory",
)
JOB_DIRECTORY = Option(
    "-j", "use this job directory. without it the current directory, if that is one.", "jobdirectory"
)
SERVER = (
    Option("-S", "the project server to ask.", "serverurl"),
    Option("-U", "the name of the user.", "user"),
    Option("-G", "the groups of the user.", "groups"),
)
PROJECT = Option("-P", "the project. without it the server's default project.", "project")
PAPERS = (
    Option("-W", "do not check that a server's certificate is for the host name it is called by."),
    Option("-K", "the file with the private key.", "keyfile"),
    Option("-C", "the file with the certificate.", "certificatefile"),
    Option("-CA", "the file with the certificates of the authority.", "cacertificatefile"),
)
_SPECIFICS = "LGI_job_specifics"
_FIRST_BYTES = 1 << 20  # of a file with one value


@attrs.frozen(kw_only=True)
class Papers:
    """What a connection is made with; `strict` also compares the server's certificate with its host name."""

    key: Path
    certificate: Path
    authorities: Path
    strict: bool


@attrs.frozen(kw_only=True)
class UserAccount:
    """A user, the server to ask, and what is asked for where the command line does not say; no project is any."""

    papers: Papers
    server: str
    project: str
    user: str
    groups: tuple[str, ...]
    application: str
    target_resources: str
    job_specifics: str


@attrs.frozen(kw_only=True)
class JobAccount:
    """The resource that runs a job, and what the jobs that it submits inherit from that one."""

    papers: Papers
    server: str
    project: str
    owners: str
    read_access: str
    write_access: str


class _Directory:
    """Reads a directory of files with one value in each, and remembers what was missing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.mistakes: list[str] = []

    def value(self, option: str, given: Given, name: str, *, needed: bool = True) -> str:
        """What the option says, or else the file."""
        if option in given.values:
            return given.values[option].strip()
        text = self.read(name)
        if needed and not text:
            self.mistakes.append(f"{self._place(name)} is missing or empty, and there is no {option}")
        return text

    def read(self, name: str) -> str:
        """What the file says, empty if there is none."""
        if self.path is None:
            return ""
        path = self.path / name
        try:
            with path.open("rb") as file:
                return file.read(_FIRST_BYTES).decode("utf-8").strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except UnicodeDecodeError:
            self.mistakes.append(f"{path} is not UTF-8 text")
        except OSError as problem:
            self.mistakes.append(f"{path} cannot be read: {problem.strerror}")
        return ""

    def file(self, option: str, given: Given, name: str) -> Path:
        """The file that the option names, or else the one in the directory."""
        if option in given.values:
            return Path(given.values[option])
        if self.path is None or not (self.path / name).exists():
            self.mistakes.append(f"{self._place(name)} is missing, and there is no {option}")
        return (self.path or Path()) / name

    def papers(self, given: Given, names: Sequence[str]) -> Papers:
        """Key, certificate and authority, by those options or these names."""
        key, certificate, authorities = (
            self.file(option, given, name) for option, name in zip(("-K", "-C", "-CA"), names, strict=True)
        )
        return Papers(key=key, certificate=certificate, authorities=authorities, strict="-W" not in given.switches)

    def checked_server(self, url: str) -> str:
        """The address, if it is one or missing already."""
        if url and not is_server_url(url):
            self.mistakes.append(f"{url!r} is no https:// address of a server")
        return url

    def complain(self) -> None:
        """Raise SettingsError with all mistakes, if there are any."""
        if self.mistakes:
            raise SettingsError("; ".join(self.mistakes))

    def _place(self, name: str) -> str:
        return f"{name} (there is no home directory)" if self.path is None else str(self.path / name)


def _configuration(given: Given) -> _Directory:
    if "-c" in given.values:
        path = Path(given.values["-c"])
        if not path.is_dir():
            raise SettingsError(f"{path} is no directory")
        return _Directory(path)
    try:
        return _Directory(Path.home() / ".LGI")
    except RuntimeError:  # a job in a sandbox may have a uid without a name
        return _Directory(None)


def user_papers(given: Given) -> Papers:
    """The user's papers alone; raises SettingsError."""
    directory = _configuration(given)
    papers = directory.papers(given, ("privatekey", "certificate", "ca_chain"))
    directory.complain()
    return papers


def user_account(given: Given) -> UserAccount:
    """The user that the options and the configuration directory say; raises SettingsError naming all mistakes."""
    directory = _configuration(given)
    account = UserAccount(
        papers=directory.papers(given, ("privatekey", "certificate", "ca_chain")),
        server=directory.checked_server(directory.value("-S", given, "defaultserver")),
        project=directory.value("-P", given, "defaultproject", needed=False),
        user=directory.value("-U", given, "user"),
        groups=decode_list(directory.value("-G", given, "groups")),
        application=directory.value("-a", given, "defaultapplication", needed=False),
        target_resources=directory.value("-t", given, "defaulttargetresources", needed=False) or ANY,
        job_specifics=directory.value("-s", given, "defaultjobspecifics", needed=False),
    )
    directory.complain()
    return account


def is_job_directory(path: Path) -> bool:
    """Whether a daemon runs a job there: it has the job's specifics."""
    return (path / _SPECIFICS).is_file()


def job_directory(given: Given) -> Path | None:
    """The job directory to work with: that of -j, or the current one unless -c, -U or -G ask for a user.

    Raises SettingsError where -j names something else, or stands beside an option that asks for a user.
    """
    if "-j" not in given.values:
        return Path() if is_job_directory(Path()) and not given.any_of("-c", "-U", "-G") else None
    path = Path(given.values["-j"])
    if not is_job_directory(path):
        raise SettingsError(f"{path} is not a job directory, which has a file {_SPECIFICS}")
    others = [option for option in ("-c", "-U", "-G") if option in given.values]
    if others:
        raise SettingsError(f"-j and {others[0]} exclude each other: one is the resource, the other a user")
    return path


def job_papers(path: Path, given: Given) -> Papers:
    """The papers of the resource that runs the job; raises SettingsError."""
    directory = _Directory(path)
    papers = directory.papers(given, ("LGI_key_file", "LGI_certificate_file", "LGI_ca_certificate_file"))
    directory.complain()
    return papers


def job_account(path: Path, given: Given) -> JobAccount:
    """The resource that runs the job in this directory; raises SettingsError naming all mistakes."""
    directory = _Directory(path)
    account = JobAccount(
        papers=directory.papers(given, ("LGI_key_file", "LGI_certificate_file", "LGI_ca_certificate_file")),
        server=directory.checked_server(directory.value("-S", given, "LGI_this_project_server")),
        project=directory.value("-P", given, "LGI_project"),
        owners=directory.read("LGI_owners"),
        read_access=directory.value("-r", given, "LGI_read_access", needed=False),
        write_access=directory.value("-w", given, "LGI_write_access", needed=False),
    )
    if not account.owners:
        directory.mistakes.append(f"{path / 'LGI_owners'} is missing or empty")
    directory.complain()
    return account


def as_resource(given: Given) -> JobAccount:
    """A resource outside a job directory: -m with its papers; the user and the groups own what it submits."""
    account = user_account(given)
    return JobAccount(
        papers=account.papers,
        server=account.server,
        project=account.project,
        owners=", ".join((account.user, *account.groups)),
        read_access=given.value("-r"),
        write_access=given.value("-w"),
    )


def repository_url(path: Path) -> str:
    """Where the repository of the job in this directory is; raises SettingsError."""
    directory = _Directory(path)
    url = unescape(content_of(directory.read(_SPECIFICS), "repository_url"))
    directory.complain()
    if not is_server_url(url):
        raise SettingsError(f"{path / _SPECIFICS} has no https:// address of a repository")
    return url
