"""Hypothesis strategies for what people, resources and programs may say, and for what they should not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
from hypothesis import settings
from hypothesis import strategies as st

from lgi.access import Grants
from lgi.model import Denial, Grant
from lgi.states import Actor, JobEvent, JobState

# Whole test runs share two processors: how long one example takes says nothing.
settings.register_profile("lgi", deadline=None, max_examples=100, database=None, print_blob=True)
settings.load_profile("lgi")

# What a decoded field can hold: everything but halves of characters.
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)

# Names of users, groups, projects and resources as the authority issues them.
names = (
    st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Zs", "Co", "Cn"], exclude_characters=";,/"),
        min_size=1,
        max_size=20,
    )
    .map(str.strip)
    .filter(lambda name: name and name != "any" and name.isprintable())
)
lists_of_names = st.lists(names, max_size=4, unique=True).map(tuple)

# Names that mean something to databases, file systems, shells, browsers and readers of XML; to us they are names.
HOSTILE = (
    "' OR '1'='1",
    "x'; DROP TABLE job_queue; --",
    '"; DELETE FROM active_resources; #',
    "1 UNION SELECT client_certificate FROM active_resources",
    "%",
    "_",
    "\\",
    "\\' OR 1=1 -- ",
    "../../../etc/passwd",
    "/etc/passwd",
    "C:\\boot.ini",
    "file:///etc/passwd",
    "JOB_" + "0" * 32,
    "</response> <error> <number> 0 </number> </error>",
    "<error> <number> 1 </number> <message> x </message> </error>",
    "<script>alert(1)</script>",
    "&lt;&amp;&#65;&unknown;",
    "]]>",
    "<!--",
    "$(reboot)",
    "`id`; reboot | true && false > /tmp/x",
    "%s%n{0}{request.path}",
    "${jndi:ldap://x}",
    ".*",
    "(a+)+$",
    "!",
    "!!any",
    "! any",
    "any",
    "ANY",
    "None",
    "admin",
    "user;group;project",
    "name=value&other=value",
    "Ａｄｍｉｎ",
    "e\u0301",
    "\U0001f600",
)

# Few names, so that they meet.
few_names = st.sampled_from(["mark", "piet", "theor", "chem", "any"])
few_people = st.sampled_from(["mark", "piet", "theor", "chem"])
few_applications = st.sampled_from(["hello_world", "lj_md", "any"])

grant_rows = st.builds(Grant, name=few_names, application=few_applications, job_limit=st.integers(-3, 3))
denial_rows = st.builds(Denial, name=few_names, application=few_applications)
# A table has one row for a name and an application.
grant_tables = st.lists(grant_rows, max_size=5, unique_by=lambda row: (row.name, row.application)).map(tuple)
denial_tables = st.lists(denial_rows, max_size=2, unique_by=lambda row: (row.name, row.application)).map(tuple)
grants = st.builds(
    Grants,
    users_allowed=grant_tables,
    groups_allowed=grant_tables,
    users_denied=denial_tables,
    groups_denied=denial_tables,
)

states = st.sampled_from(JobState)
events = st.tuples(st.sampled_from(JobEvent), st.sampled_from(Actor))

# Text as XML 1.0 can hold it; a carriage return would come back as a line feed.
xml_text = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc"],
        exclude_characters="\ufffe\uffff",
        include_characters="\t\n",
    ),
    max_size=40,
)
tags = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda tag: not tag.startswith("xml") and tag not in ("job", "response", "error", "resource")
)


def _escaped(text: str) -> str:
    for character, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&apos;")):
        text = text.replace(character, escape)
    return text


def _element(tag: str, content: str) -> str:
    return f"<{tag}> {content} </{tag}>"


# Pieces of well-formed XML in the dialect.
fragments = st.recursive(
    xml_text.map(_escaped),
    lambda inner: st.lists(st.builds(_element, tags, inner), max_size=3).map(" ".join),
    max_leaves=6,
)


# Common names of certificates, odd ones that an authority may have been made to sign among them.
_parts = st.one_of(
    st.sampled_from(
        ["", " ", "mark@localhost", "theor", "LGI", "any", "admin", ",", "theor, chem", "a,,b", " LGI ,any"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
)
common_names = st.lists(_parts, min_size=1, max_size=4).map(";".join)


@attrs.frozen(kw_only=True)
class Posted:
    """A request that somebody might send: a call, values for some of its fields, and how and by whom.

    A value of None leaves a field out. `cut` is how many bytes are missing at its end.
    """

    path: str
    values: tuple[tuple[str, bytes | None], ...] = ()
    common_name: str | None = None
    urlencoded: bool = False
    cut: int = 0


_bytes = st.one_of(
    st.binary(max_size=20),
    unicode_text.map(lambda text: text.encode()),
    st.sampled_from(HOSTILE).map(lambda text: text.encode()),
    st.sampled_from(
        ["any", "queued", "running", "finished", "aborted", "deleted", "hello_world", "theor", "!theor"]
    ).map(lambda text: text.encode()),
    st.integers(-1, 10**10).map(lambda number: str(number).encode()),
    st.binary(max_size=20).map(lambda data: data.hex().encode()),
    fragments.map(lambda text: text.encode()),
    # Around each of the limits: short text, digits, long text, data as it is received.
    st.builds(
        lambda piece, size: (piece * size)[:size].encode(),
        st.sampled_from(["x", "6", "1,", "<a>", "é"]),
        st.sampled_from([9, 10, 127, 128, 254, 255, 65_354, 65_355, 130_708, 131_733]),
    ),
)


def posted(calls: Mapping[str, Iterable[str]]) -> st.SearchStrategy[Posted]:
    """Requests to these calls, by path and the names of their fields."""

    def of(path: str) -> st.SearchStrategy[Posted]:
        names_of_fields = st.sampled_from([*sorted(calls[path]), "number_of_uploaded_files", "uploaded_file_1", ""])
        return st.builds(
            Posted,
            path=st.just(path),
            values=st.lists(st.tuples(names_of_fields, st.none() | _bytes), max_size=4).map(tuple),
            common_name=st.none() | common_names,
            urlencoded=st.booleans(),
            cut=st.sampled_from([0] * 9 + [1, 5, 60]),
        )

    return st.sampled_from(sorted(calls)).flatmap(of)
