"""Who a caller is in a project: a registered resource, or a user with some of his groups."""

from __future__ import annotations

import attrs
from sqlalchemy import Connection

from lgi.db.resources import fetch_resource, touch
from lgi.errors import ErrorNumber, LGIError
from lgi.httpd.peer import Caller
from lgi.httpd.router import Call
from lgi.model import Resource

# A call is noted at most this often: it tells people who is alive, nobody counts by it.
TOUCH_SECONDS = 5


def registered_resource(connection: Connection, caller: Caller, now: int) -> Resource:
    """The resource whose certificate this is; raises LGIError when unknown or when it registered another one."""
    resource = fetch_resource(connection, caller.identity.name)
    if resource is None:
        raise LGIError(ErrorNumber.RESOURCE_UNKNOWN, caller.identity.name)
    if _normal(resource.client_certificate) != _normal(caller.certificate):
        raise LGIError(ErrorNumber.CERTIFICATE_REFUSED, f"{caller.identity.name} is registered with another one")
    if now - resource.last_call_time >= TOUCH_SECONDS:
        touch(connection, resource, now)
        resource = attrs.evolve(resource, last_call_time=now)
    return resource


def _normal(certificate: str) -> str:
    return "".join(certificate.split())


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
