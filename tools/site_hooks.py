"""What mkdocs does not do by itself: generated pages, links, formulas, roles in docstrings."""

import ast
import base64
import html
import inspect
import json
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
TOP = ROOT / "lit_credit" / "__init__.py"
LINK = re.compile(r"(?<!!)\[([^\[\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`([^`]*)`")
MATH = re.compile(r":math:`([^`]*)`")
DISPLAY = re.compile(r"^( *)\.\. math::((?: .*)?(?:\n+\1    .*)*)", re.MULTILINE)
LITERAL = re.compile(r"::$", re.MULTILINE)
EXAMPLE = re.compile(r"^( *)Example:(:?)\n+((?:\1    .*\n?|\n)+)", re.MULTILINE)


SOURCES = {
    "examples.md": "examples/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    **{f"notebooks/{p.stem}.md": f"notebooks/{p.name}" for p in ROOT.glob("notebooks/*.ipynb")},
}
"""Pages that are made of files outside of docs/."""

MOVED = {"paper.html": "howto/paper.html"}
"""Former addresses of pages, which lead on to the new ones."""

FIRST = (
    *("rules", "callbacks", "diagnosis", "comparison", "tasks", "datamodules", "models"),
    *("optimizers", "feedback", "functional", "testing", "callbacks.base", "inspect", "runs"),
)
"""The order of the API's pages; all others follow by name."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of SOURCES, and a page for every package and room."""
    for page, source in SOURCES.items():
        path = ROOT / source
        if path.suffix == ".ipynb":
            for file in notebook(path, config):
                files.append(file)
        else:
            files.append(File.generated(config, page, content=path.read_text()))
    pages: list[dict[str, str]] = [{"lit_credit": "api/lit_credit.md"}]
    text = f"# lit_credit\n\n{docstring(TOP)}\n\n" + "\n".join(top_names())
    files.append(File.generated(config, "api/lit_credit.md", content=text))
    for package in sorted(packages(), key=place):
        name = room(package)
        entries = [
            f"[`{found.split('.')[-1]}`][{found}]" if owner(found) != package else f"::: {found}"
            for found in public_names(package)
        ]
        text = f"# lit_credit.{name}\n\n" + "\n\n".join([markdown(docstring(package)), *entries])
        files.append(File.generated(config, f"api/{name}.md", content=text))
        pages.append({name: f"api/{name}.md"})
    config.nav = [*(config.nav or []), {"API": pages}]
    return files


def on_post_build(config: MkDocsConfig) -> None:
    """Write a page that leads on at each former address."""
    for old, new in MOVED.items():
        line = f'<meta http-equiv="refresh" content="0; url={new}"><a href="{new}">{new}</a>'
        (Path(config.site_dir) / old).write_text(line)


def notebook(path: Path, config: MkDocsConfig) -> list[File]:
    """A page of a notebook as it was run, its pictures, and the notebook to download."""
    files: list[File] = []
    parts: list[str] = []
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for place, output in enumerate(cell["outputs"]):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"{path.stem}_{number}_{place}.png"
                image = base64.b64decode("".join(data["image/png"]))
                files.append(File.generated(config, f"notebooks/{name}", content=image))
                parts.append(f"![Output of the cell above]({name})")
            else:
                text = "".join(data["text/plain"]).rstrip()
                parts.append(f"```text\n{text}\n```")
    title, *rest = parts[0].split("\n", 1)
    page = "\n\n".join([title, elsewhere(path, config), *rest, *parts[1:]])
    files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
    files.append(File.generated(config, f"notebooks/{path.name}", content=path.read_text()))
    return files


def elsewhere(path: Path, config: MkDocsConfig) -> str:
    """Buttons that open a notebook elsewhere: those of the public repository, if there is one."""
    buttons = {"Download the notebook": path.name}
    owner_and_name = (config.repo_url or "").rstrip("/").partition("github.com/")[2]
    if owner_and_name:
        place = f"github/{owner_and_name}/blob/main/notebooks/{path.name}"
        buttons["Open in Colab"] = f"https://colab.research.google.com/{place}"
        buttons["Open in nbviewer"] = f"https://nbviewer.org/{place}"
    return " ".join(f"[{text}]({target}){{ .md-button }}" for text, target in buttons.items())


def top_names() -> list[str]:
    """What `import lit_credit` offers, each with a link and the first sentence of its docstring."""
    lines = []
    for name in exported(TOP):
        found = getattr(import_module("lit_credit"), name)
        said = (
            (inspect.getdoc(found) or "").partition("\n\n")[0]
            if callable(found)
            else "The version."
        )
        target = _documented().get(name)
        lines.append(f"- [`{name}`][{target}]: {said}" if target else f"- `{name}`: {said}")
    return lines


def room(package: Path) -> str:
    """The dotted name of a package below lit_credit."""
    return ".".join(package.parent.relative_to(ROOT / "lit_credit").parts)


def place(package: Path) -> tuple[int, str]:
    """Where a package stands in the API."""
    name = room(package)
    return FIRST.index(name) if name in FIRST else len(FIRST), name


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


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **kwargs: Any) -> str:
    """Links as of the repository: to a page of the site, to the repository, or code text."""
    uri = page.file.src_uri
    source = SOURCES.get(uri, f"docs/{uri}")
    pages = {"README.md": "index.md", **{path: name for name, path in SOURCES.items()}}

    def rewrite(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        if "://" in target or (source.endswith(".ipynb") and target == os.path.basename(source)):
            return match.group(0)
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        if path in pages or path.startswith("docs/"):
            inside = pages.get(path, path.removeprefix("docs/"))
            return f"[{text}]({os.path.relpath(inside, os.path.dirname(uri))}{anchor or ''})"
        if not (ROOT / path).exists():
            raise FileNotFoundError(f"{source} links to {target}, which does not exist.")
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path})"
        says_no_more = text.strip("`") in ("notebook", path)
        return f"`{path}`" if says_no_more else f"{text} (`{path}`)"

    return LINK.sub(rewrite, markdown)


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
