"""Hypothesis strategies for what people, resources and programs may say, and for what they should not."""

from __future__ import annotations

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
