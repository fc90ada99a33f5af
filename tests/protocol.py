"""What the code says of the protocol, for the tests of the document and of every call."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import attrs

from lgi.server.resource_routes import ResourceRoutes
from lgi.server.server_routes import ServerRoutes
from lgi.server.user_routes import UserRoutes

ROOT = Path(__file__).resolve().parents[1]
# Where calls read their fields: the routes, and what all of them use.
_MODULES = [*sorted((ROOT / "lgi/server").glob("*.py"))]
_KINDS = {"short": "text", "integer": "number", "long": "XML", "names": "list", "binhex": "hex"}
_KINDS |= {"key": "key", "job_states": "states", "count": "count"}
FIRST = "_1"
"""What stands behind the names of fields that are posted of each of several jobs."""
REPOSITORY = "repository/repository_content.php"


@attrs.frozen(kw_only=True)
class Declared:
    """How a call reads a field: `kind` is one of the words of the document's table of fields, `name` is there too."""

    name: str
    kind: str
    required: bool


class _Function(ast.NodeVisitor):
    """What one function reads, and which functions it names."""

    def __init__(self, node: ast.AST) -> None:
        self.fields: dict[str, Declared] = {}
        self.names: set[str] = set()
        self.numbered = False
        for child in ast.iter_child_nodes(node):
            self.visit(child)

    def visit_Name(self, node: ast.Name) -> None:
        self.names.add(node.id)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.names.add(node.attr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        kind = _KINDS.get(method.removeprefix("optional_"))
        if kind and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            required = not method.startswith("optional_") and method != "binhex"
            name = node.args[0].value
            self.fields[name] = Declared(name=name, kind=kind, required=required)
        # It reads what is posted of one of several jobs.
        self.numbered = self.numbered or method == "numbered"
        self.generic_visit(node)


def _functions() -> dict[tuple[str, str], _Function]:
    """All functions of the server, by module and name."""
    return {
        (module.stem, node.name): _Function(node)
        for module in _MODULES
        for node in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _handlers() -> Iterator[tuple[str, str, str]]:
    """Path, module and function of every call."""
    for routes in (
        ResourceRoutes(projects=None, limits=None),  # type: ignore[arg-type]
        UserRoutes(projects=None, limits=None),  # type: ignore[arg-type]
        ServerRoutes(projects=None, cycles={}),  # type: ignore[arg-type]
    ):
        for path, handler in routes.handlers().items():
            yield path, type(routes).__module__.rpartition(".")[2], handler.__name__


def declared_fields() -> dict[str, dict[str, Declared]]:
    """The fields that each call of the API reads, by its path and their names."""
    functions = _functions()
    # Helpers have names of their own; public methods of the routes are only meant when they are the handler.
    helpers = {
        name: found
        for (_module, name), found in functions.items()
        if found.fields and (name.startswith(("posted_", "_")) or name == "of")
    }
    found = {}
    for path, module, name in _handlers():
        fields: dict[str, Declared] = {}
        waiting, seen = [(functions[module, name], "")], set[int]()
        while waiting:
            function, ending = waiting.pop()
            if id(function) in seen:
                continue
            seen.add(id(function))
            ending = FIRST if function.numbered else ending
            fields |= {field + ending: declared for field, declared in function.fields.items()}
            waiting += [(helpers[name], ending) for name in function.names if name in helpers]
        found[path] = fields
    return found
