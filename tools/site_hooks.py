"""What mkdocs does not do by itself: home page, API pages, links, formulas, roles in docstrings."""

import ast
import html
import inspect
import os
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`([^`]*)`")
MATH = re.compile(r":math:`([^`]*)`")
DISPLAY = re.compile(r"^( *)\.\. math::((?: .*)?(?:\n+\1    .*)*)", re.MULTILINE)
LITERAL = re.compile(r"::$", re.MULTILINE)
EXAMPLE = re.compile(r"^( *)Example:(:?)\n+((?:\1    .*\n?|\n)+)", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md as the home page, and a page for every package and room."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text()))
    pages: list[dict[str, str]] = []
    for package in packages():
        name = ".".join(package.parent.relative_to(ROOT / "lit_credit").parts)
        entries = [
            f"[`{found.split('.')[-1]}`][{found}]" if owner(found) != package else f"::: {found}"
            for found in public_names(package)
        ]
        text = f"# lit_credit.{name}\n\n" + "\n\n".join([markdown(docstring(package)), *entries])
        files.append(File.generated(config, f"api/{name}.md", content=text))
        pages.append({name: f"api/{name}.md"})
    config.nav = [*(config.nav or []), {"API": pages}]
    return files


def packages() -> list[Path]:
    """The ``__init__.py`` of each package with a page; within packages, those with names."""
    root = ROOT / "lit_credit"
    own = {*root.glob("*/__init__.py")} - {root / "studies" / "__init__.py"}
    return sorted(path for path in root.glob("*/**/__init__.py") if path in own or exported(path))


@cache
def owner(name: str) -> Path:
    """The package whose page describes a name; other pages that export it link there."""
    found = [package for package in packages() if name in public_names(package)]
    roots = {p: ".".join(p.parent.relative_to(ROOT).parts) for p in found}
    return min(found, key=lambda p: (not name.startswith(f"{roots[p]}."), len(p.parts)))


def docstring(path: Path) -> str:
    """Of a Python file."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def public_names(package: Path) -> list[str]:
    """What a subpackage exports; of one that exports nothing, what its modules do.

    By the module that defines it: a function often has the name of its module.
    """
    names = exported(package)
    prefix = ".".join(package.parent.relative_to(ROOT).parts)
    if names:
        home = imports(package)
        return [f"{home.get(name, prefix)}.{name}" for name in names]
    modules = sorted(package.parent.glob("[!_]*.py"))
    return [f"{prefix}.{module.stem}.{name}" for module in modules for name in exported(module)]


def exported(path: Path) -> list[str]:
    """The names in ``__all__`` of a Python file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def imports(path: Path) -> dict[str, str]:
    """The module that each name of a Python file is imported from."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in nodes for alias in node.names}


def on_page_markdown(markdown: str, page: Page, **kwargs: Any) -> str:
    """Links as of the repository: those to other pages are kept, others are code text."""
    source = "README.md" if page.file.src_uri == "index.md" else f"docs/{page.file.src_uri}"
    here = os.path.dirname(source)

    def rewrite(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        if "://" in target:
            return match.group(0)
        path = os.path.normpath(os.path.join(here, target))
        if path == "README.md" or path.startswith("docs/"):
            inside = "index.md" if path == "README.md" else path.removeprefix("docs/")
            return f"[{text}]({inside}{anchor or ''})"
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"{source} links to {target}, which does not exist.")
        says_no_more = text.strip("`") in ("notebook", path)
        return f"`{path}`" if says_no_more else f"{text} (`{path}`)"

    text = LINK.sub(rewrite, markdown)
    return text.replace("](docs/images/", "](images/") if source == "README.md" else text


def on_page_content(content: str, **kwargs: Any) -> str:
    """Formulas as MathML, which browsers draw without a script."""

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match.group(1) == "div" else "inline"
        return convert(html.unescape(match.group(2)).strip(), display=display)

    return FORMULA.sub(mathml, content)


def markdown(text: str) -> str:
    """The docstring ``text`` with what Markdown has for it."""
    text = DISPLAY.sub(_display, text)
    text = MATH.sub(lambda match: rf"\({' '.join(match.group(1).split())}\)", text)
    text = ROLE.sub(_reference, text)
    return LITERAL.sub(":", EXAMPLE.sub(_example, text))


def _display(match: re.Match[str]) -> str:
    indent, formula = match.groups()
    return f"{indent}\\[{' '.join(formula.split())}\\]"


def _reference(match: re.Match[str]) -> str:
    name = match.group(1).split(".")[-1]
    page = _documented().get(name)
    return f"[`{name}`][{page}]" if page else f"`{match.group(1)}`"


def _example(match: re.Match[str]) -> str:
    indent, literal, body = match.groups()
    if not literal:
        return f"{indent}Examples:\n{body}"
    fence = f"{indent}    ```"
    return f"{indent}Examples:\n{fence}python\n{body.rstrip()}\n{fence}\n"


@cache
def _documented() -> dict[str, str]:
    found = [name for package in packages() for name in public_names(package)]
    return {name.split(".")[-1]: name for name in found}


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """A module, a class, a function or an attribute has been read."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(_completed(obj) or obj.docstring.value)


def _completed(obj: griffe.Object) -> str:
    """The docstring that ``help()`` shows: a class's with the arguments that it inherits."""
    if not obj.is_class:
        return ""
    kind = getattr(import_module(obj.module.path), obj.name, None)
    return inspect.cleandoc(vars(kind).get("__doc__") or "") if inspect.isclass(kind) else ""
