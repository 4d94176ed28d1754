"""Who may import whom."""

import ast
from pathlib import Path

import pytest

ALLOWED = {
    "functional": {"functional"},
    "utils": {"utils"},
    "models": {"models", "utils"},
    "tasks": {"tasks", "utils"},
    "datamodules": {"datamodules", "utils"},
    "plotting": {"plotting", "functional", "utils"},
    "feedback": {"feedback", "functional", "utils"},
    "rules": {"rules", "feedback", "tasks", "utils"},
    "callbacks": {"callbacks", "functional", "plotting", "utils"},
    "testing": {"testing", "rules", "tasks", "datamodules", "utils"},
}
FILES = [path for layer in ALLOWED for path in sorted(Path("lit_credit", layer).glob("*.py"))]


def imported_layers(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "lit_credit" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_layer_imports_only_what_lies_below(path):
    assert set(imported_layers(path)) <= ALLOWED[path.parts[1]]


def test_only_utils_touches_private_attributes_of_lightning():
    for path in FILES:
        text = path.read_text()
        assert path.parts[1] == "utils" or "trainer._" not in text, path


@pytest.mark.parametrize("layer", ALLOWED)
def test_every_public_name_is_exported_as_a_string(layer):
    tree = ast.parse(Path("lit_credit", layer, "__init__.py").read_text())
    assert ast.get_docstring(tree)
