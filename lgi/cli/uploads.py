"""Local files and directories that are to go with a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from lgi.cli.complaint import Complaint
from lgi.client.walk import find_files

Named = tuple[str, Path]
"""A file's name in the repository, and the file."""


def checked_uploads(paths: Iterable[Path], note: Callable[[str], None]) -> tuple[Named, ...]:
    """The files, and all files in the directories; raises Complaint that names every one that cannot be sent.

    A file goes by its own name, one of a directory by the directory's name and its path in there: `run1/out/x.csv`;
    those of "." by their path alone. What is hidden in a directory is left out, of which `note` is told.
    """
    given = list(dict.fromkeys(paths))
    found = find_files(given, recursive=True)
    hidden = [
        path for path, _problem in found.problems if Path(path).name.startswith(".") and Path(path) not in given
    ]
    mistakes = [
        f"{path}: {getattr(problem, 'strerror', None) or problem}"
        for path, problem in found.problems
        if path not in hidden
    ]
    files = {file.name: file.path for file in found.files}
    for name, file in files.items():
        try:
            file.open("rb").close()
        except OSError as problem:
            mistakes.append(f"{file}: {problem.strerror}")
        above = name.rpartition("/")[0]
        while above:
            if above in files:
                mistakes.append(f"{files[above]} would be a file where the directory of {file} is")
            above = above.rpartition("/")[0]
    mistakes += [
        f"{path}: there is no file in it"
        for path in given
        if path.is_dir() and not any(file.is_relative_to(path) for file in files.values())
    ]
    if mistakes:
        raise Complaint("; ".join(mistakes) + "; nothing was sent")
    if hidden:
        note(f"left out, as hidden files are: {', '.join(hidden)}")
    return tuple(files.items())
