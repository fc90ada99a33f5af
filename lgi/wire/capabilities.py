"""What a resource says it can do: XML with an element for each application (LGI 1.41, resource_signup_resource)."""

from __future__ import annotations

from functools import lru_cache

from lgi.errors import ErrorNumber, LGIError
from lgi.wire.dialect import MalformedXML, parse_fragment, refuse_tags
from lgi.wire.fields import SHORT

# What stands around capabilities, and what a deployed reader looks for before anything else.
_AROUND = frozenset({"LGI", "response", "error", "resource", "resource_capabilities"})


# Daemons say the same each time.
@lru_cache(maxsize=64)
def check_capabilities(text: str) -> tuple[str, ...]:
    """The applications offered; raises LGIError for what may not be stored and sent as capabilities."""
    try:
        refuse_tags(root := parse_fragment(text), _AROUND)
    except MalformedXML as problem:
        raise LGIError(ErrorNumber.CAPABILITIES_MALFORMED, str(problem)) from None
    applications = tuple(dict.fromkeys(str(child.tag) for child in root))
    if any(len(application.encode()) > SHORT for application in applications):
        raise LGIError(ErrorNumber.CAPABILITIES_TOO_BIG, f"an application's name has at most {SHORT} bytes")
    return applications
