"""Who may import whom."""

import ast
from pathlib import Path

import pytest

GROUND = {"functional", "utils", "former_names", "headlines"}
BELOW = GROUND | {"inspect", "runs", "trainer"}
ALLOWED = {
    "functional": {"functional", "former_names"},
    "utils": {"utils", "functional"},
    "inspect": GROUND | {"inspect"},
    "runs": GROUND | {"runs"},
    "trainer": GROUND | {"runs", "trainer"},
    "plotting": GROUND | {"runs", "plotting"},
    "feedback": GROUND | {"inspect", "feedback"},
    "models": GROUND | {"inspect", "models"},
    "tasks": GROUND | {"inspect", "tasks"},
    "datamodules": GROUND | {"inspect", "datamodules"},
    "rules": BELOW | {"feedback", "tasks", "rules"},
    "callbacks": BELOW | {"plotting", "callbacks"},
    "testing": BELOW | {"callbacks", "rules", "tasks", "datamodules", "testing"},
    "comparison": BELOW | {"plotting", "tasks", "rules", "callbacks", "studies", "comparison"},
    "studies": BELOW
    | {"callbacks", "plotting", "rules", "tasks", "datamodules", "models", "studies"},
}
FILES = [path for layer in ALLOWED for path in sorted(Path("lit_credit", layer).rglob("*.py"))]


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
    assert set(imported_layers(path)) <= ALLOWED[path.parts[1]] | {"protocols"}


def test_protocols_import_nothing_of_ours():
    assert not set(imported_layers(Path("lit_credit/protocols.py")))


def test_only_utils_touches_private_attributes_of_lightning():
    for path in FILES:
        text = path.read_text()
        assert path.parts[1] in ("utils", "trainer") or "trainer._" not in text, path


@pytest.mark.parametrize("layer", ALLOWED)
def test_every_public_name_is_exported_as_a_string(layer):
    tree = ast.parse(Path("lit_credit", layer, "__init__.py").read_text())
    assert ast.get_docstring(tree)
