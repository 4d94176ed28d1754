"""What the modules of lit_credit import, as arrows."""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["Import", "imports", "modules", "room"]

ROOT = Path(__file__).parents[1]


class Import(NamedTuple):
    """One arrow, to a module or to a name in one."""

    name: str
    line: int
    when: str
    """``start``, ``call`` (within a function) or ``typing``."""
    explained: bool
    """Whether a comment stands in its line or in the line above."""


@cache
def modules():
    """The path of every module of lit_credit, by its dotted name."""
    found = {}
    for path in sorted((ROOT / "lit_credit").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module):
    """``runs`` of ``lit_credit.runs.history``, and ``lit_credit`` of ``lit_credit`` itself."""
    return module.split(".")[1] if "." in module else module


@cache
def imports(module):
    """All arrows of a module."""
    text = modules()[module].read_text()
    return tuple(_arrows(ast.parse(text), text.splitlines(), "start"))


def _arrows(node, lines, when):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            explained = any("#" in line for line in lines[child.lineno - 2 : child.end_lineno])
            for name in _names(child):
                yield Import(name, child.lineno, when, explained)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for statement in child.body:
                yield from _arrows(ast.Module([statement], []), lines, "typing")
            for statement in child.orelse:
                yield from _arrows(ast.Module([statement], []), lines, when)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _arrows(child, lines, "call")
        else:
            yield from _arrows(child, lines, when)


def _names(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]
