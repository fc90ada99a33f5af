"""Programs of ours that a job under a uid of its own can run, wherever this Python is."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = Path(sys.executable).parent
_VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


@functools.cache
def programs_for_jobs() -> Path | None:
    """The directory of `twistd` and `lgi` for a daemon that runs as root; None: no Python here can be run by a job.

    Where this Python is in a directory that is root's alone, another one of the same version runs the same code.
    """
    if _reachable(Path(sys.executable)):
        return PROGRAMS
    for name in ("/usr/bin/python3", "/usr/local/bin/python3"):
        if _reachable(Path(name)) and _version(name) == _VERSION:
            return _environment(name)
    return None


def _reachable(path: Path) -> bool:
    real = path.resolve()
    return real.is_file() and all(
        step.stat().st_mode & 0o001 for step in (real, *real.parents, *path.absolute().parents)
    )


def _version(python: str) -> str:
    code = "import sys; print(*sys.version_info[:2], sep='.')"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _environment(python: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="lgi-programs-"))
    directory.chmod(0o711)
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)
    subprocess.run([python, "-m", "venv", "--without-pip", str(directory)], check=True, umask=0o022)
    packages = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    link = directory / "lib" / f"python{_VERSION}" / "site-packages" / "lgi-tests.pth"
    link.write_text(f"import site; site.addsitedir({str(packages)!r})\n")
    programs = directory / "bin"
    for name in ("lgi", "twistd"):
        _, _, code = (PROGRAMS / name).read_text().partition("\n")
        (programs / name).write_text(f"#!{programs / 'python3'}\n{code}")
        (programs / name).chmod(0o755)
    directory.chmod(0o711)
    return programs
