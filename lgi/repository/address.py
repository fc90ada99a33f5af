"""What a request for something under `…/repository/` is for."""

from __future__ import annotations

import attrs

from lgi.httpd.refusal import Refused
from lgi.repository.names import LISTING, NameRefused, checked_file, checked_repository, fan_out


@attrs.frozen(kw_only=True)
class Address:
    """A file, which need not exist."""

    repository: str
    name: str


def below(prefix: list[bytes], segments: list[bytes]) -> list[bytes] | None:
    """The decoded segments of a URL path after these; None where it does not begin with them.

    In front of what is named there, doubled slashes count as one, as in the deployed servers.
    """
    rest = list(segments)
    for wanted in prefix:
        while rest and not rest[0]:
            rest.pop(0)
        if not rest or rest.pop(0) != wanted:
            return None
    return rest


def text_of(segments: list[bytes]) -> list[str]:
    """Decoded segments as text; raises NameRefused."""
    try:
        return [segment.decode("utf-8") for segment in segments]
    except UnicodeDecodeError:
        raise NameRefused("a file's name is UTF-8 text") from None


def is_listing(segments: list[str]) -> bool:
    """Whether the listing is asked for.

    Clients write `…/JOB_x/../repository_content.php`; some fold the dots before sending, some do not.
    """
    return bool(segments) and segments[-1] == LISTING and all(part != LISTING for part in segments[:-1])


def address_of(segments: list[str]) -> Address:
    """The file that is meant; raises NameRefused, FileNotFoundError, or Refused for what can be none."""
    if len(segments) < 3:
        raise Refused(404, "there is nothing here; files are at repository/<3 digits>/JOB_<32 digits>/<name>")
    folder, repository, *names = segments
    checked_repository(repository)
    if any("/" in name for name in names):
        # An encoded slash: it would make two names of one.
        raise NameRefused("a slash within a part of a file's name")
    name = checked_file("/".join(names))
    if fan_out(repository) != folder:
        raise FileNotFoundError(repository)
    return Address(repository=repository, name=name)
