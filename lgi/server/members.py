"""Who a caller is in a project: a registered resource, or a user with some of his groups."""

from __future__ import annotations

from functools import lru_cache

import attrs
from sqlalchemy import Connection

from lgi.db.resources import fetch_resource, touch
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.httpd.router import Call
from lgi.model import Resource, ServerFlag

# A call is noted at most this often: it tells people who is alive, nobody counts by it.
TOUCH_SECONDS = 10


def registered_resource(connection: Connection, caller: Caller, now: int) -> Resource:
    """The resource whose certificate this is; raises LGIError when unknown or when it registered another one.

    That it called is written at most every TOUCH_SECONDS: `last_call_time` may be that much too old.
    """
    resource = known_resource(caller, fetch_resource(connection, caller.identity.name))
    return note_call(connection, resource, now)


def known_resource(caller: Caller, resource: Resource | None) -> Resource:
    """The resource that was found under the caller's name, if he is it; raises LGIError as `registered_resource`."""
    if resource is None:
        raise LGIError(ErrorNumber.RESOURCE_UNKNOWN, caller.identity.name)
    if _normal(resource.client_certificate) != _normal(caller.certificate):
        raise LGIError(ErrorNumber.CERTIFICATE_REFUSED, f"{caller.identity.name} is registered with another one")
    return resource


def note_call(connection: Connection, resource: Resource, now: int) -> Resource:
    """Write that a resource calls, at most every TOUCH_SECONDS."""
    if now - resource.last_call_time >= TOUCH_SECONDS:
        touch(connection, resource, now)
        resource = attrs.evolve(resource, last_call_time=now)
    return resource


# The same certificates come with every call.
@lru_cache(maxsize=4096)
def _normal(certificate: str) -> str:
    # Deployed tools register files in which a description for people stands before the certificate.
    return "".join(certificate[max(0, certificate.find("-----BEGIN CERTIFICATE")) :].split())


def registered_server(connection: Connection, caller: Caller, now: int) -> Resource:
    """The project server whose certificate this is; raises LGIError as `registered_resource`, or NOT_A_SERVER."""
    resource = registered_resource(connection, caller, now)
    if resource.project_server is ServerFlag.NONE:
        raise LGIError(ErrorNumber.NOT_A_SERVER, resource.resource_name)
    return resource


def look_up(connection: Connection, caller: Caller, name: str, now: int) -> tuple[Resource, Resource]:
    """The calling resource and the one called `name`; raises LGIError where either is not registered."""
    resource = registered_resource(connection, caller, now)
    found = fetch_resource(connection, name)
    if found is None:
        raise LGIError(ErrorNumber.RESOURCE_UNKNOWN, name)
    return resource, found


@attrs.frozen(kw_only=True)
class User:
    """A user as he calls: his name, and those of the posted groups that his certificate has."""

    name: str
    groups: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Everything he may own, read and modify as."""
        return tuple(dict.fromkeys((self.name, *self.groups)))


def posted_user(call: Call) -> User:
    """The user of a call; raises LGIError where what was posted is not what the certificate says."""
    name = call.fields.short("user")
    groups = call.fields.names("groups")
    if name != call.caller.identity.name:
        raise LGIError(ErrorNumber.USER_MISMATCH)
    allowed = call.caller.identity.allowed_groups(groups)
    if not allowed:
        raise LGIError(ErrorNumber.GROUPS_REFUSED)
    return User(name=name, groups=allowed)
