"""Who a certificate says its holder is.

LGI 1.41, Certificates: a common name is `name`, `name; projects` or `name; groups; projects`.
"""

from __future__ import annotations

import attrs

from lgi.lists import ANY, decode_list


@attrs.frozen(kw_only=True)
class Identity:
    """The holder of a certificate: a user, a resource or a project server.

    `projects` is None where the certificate does not restrict them (a plain host name as the common name); an empty
    tuple allows none.
    """

    name: str
    groups: tuple[str, ...] = ()
    projects: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Everything this holder may act as: its own name counts as a group."""
        return tuple(dict.fromkeys((self.name, *self.groups)))

    def allows_project(self, project: str) -> bool:
        """Whether the certificate lets its holder act in `project`."""
        return self.projects is None or project in self.projects or ANY in self.projects

    def allowed_groups(self, posted: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the posted groups that the certificate holds, in posted order."""
        if ANY in self.groups:
            # "any" in a certificate stands for every group, but never for the reserved word itself.
            return tuple(group for group in posted if group != ANY)
        held = frozenset(self.names)
        return tuple(group for group in posted if group in held)


def parse_common_name(text: str) -> Identity:
    """Read a certificate's common name; raises ValueError saying what is wrong with it."""
    parts = [part.strip() for part in text.split(";")]
    name = parts[0]
    if not name:
        raise ValueError("the common name has no name before the first ';'")
    if name == ANY or "," in name:
        raise ValueError(f"the common name has {name!r}, which is no name for one user or resource")
    if any(not character.isprintable() for character in text):
        raise ValueError("the common name contains control characters")
    match parts:
        case [_]:
            return Identity(name=name)
        case [_, projects]:
            return Identity(name=name, projects=decode_list(projects))
        case [_, groups, projects]:
            return Identity(name=name, groups=decode_list(groups), projects=decode_list(projects))
        case _:
            raise ValueError(f"the common name has {len(parts)} parts between ';', at most three are known")
