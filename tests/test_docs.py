"""The page of callbacks says what there is, and the site builds from it without a warning."""

import inspect
import logging
import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Callback

from lit_credit.callbacks import ExactDivergence
from lit_credit.cli.class_rules import exported_classes
from lit_credit.rules import FA
from tests import support
from tests.callbacks.test_contract import SCHEDULED, make, net_for

PAGE = Path("docs/callbacks.md")


HOMES = {
    kind.__name__: path.rpartition(".")[0]
    for path, kind in exported_classes().items()
    if issubclass(kind, Callback)
}
"""Where every callback is that a configuration may name without its path."""


def exported(name):
    return getattr(import_module(HOMES[name]), name)


CONCRETE = [name for name in HOMES if not inspect.isabstract(exported(name))]
DRAWING = [kind.__name__ for kind in SCHEDULED]


def sections():
    parts = re.split(r"^## (\w+)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text):
    """What the first column of a table names."""
    return set(re.findall(r"^\| \[?`?(\w+)`?[^|]*\|", text, flags=re.MULTILINE)) - {"callback"}


def families(tags):
    """The first two parts of every tag."""
    return {"/".join(tag.split("/")[:2]) for tag in tags}


def named_tags(name):
    line = re.search(r"^- \*\*Tags:\*\* (.*)$", sections()[name], flags=re.MULTILINE)
    return [tag for tag in re.findall(r"`([^` ]+)`", line.group(1)) if "/" in tag]


@pytest.mark.parametrize("name", HOMES)
def test_every_callback_has_a_row_and_a_whole_section(name):
    of_a_study = HOMES[name].startswith("lit_credit.studies.")
    room = f" `{HOMES[name]}` |" if of_a_study else ""
    assert f"| [{name}](#{name.lower()}) |{room}" in PAGE.read_text()
    section = sections()[name]
    for part in ("- **Tags:** ", "- **Cost:** ", "- **Needs:** ", "```python\n", "```yaml\n"):
        assert part in section, part


def test_there_is_no_row_and_no_section_of_another_callback():
    assert rows(PAGE.read_text().split("\n## ")[0]) == set(HOMES) == set(sections())


@pytest.mark.parametrize("name", CONCRETE)
def test_every_section_shows_what_a_run_wrote(name):
    section = sections()[name]
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", section)
    assert bool(pictures) == (name in DRAWING)
    for picture in pictures:
        content = (PAGE.parent / picture).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 120_000
    # Besides the Python and the YAML: an excerpt, and the command.
    assert pictures or len(re.findall(r"^```", section, flags=re.MULTILINE)) >= 6
    for config in re.findall(r"--config (\S+)", section):
        assert Path(config).is_file()


@pytest.mark.parametrize("name", HOMES)
def test_python_and_yaml_make_the_callback(name):
    section = sections()[name]
    (line,) = re.findall(r"```python\n(.*)\n```", section)
    eval(line, vars(import_module(HOMES[name])))
    (text,) = re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)
    (entry,) = yaml.safe_load(text)
    made = exported_classes()[entry["class_path"]](**entry["init_args"])
    assert isinstance(made, exported(name))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The tags in the histories of small runs, by callback."""
    found = {}
    for net in {net_for(kind) for kind in SCHEDULED}:
        kinds = [kind for kind in SCHEDULED if net_for(kind) is net]
        # The bound is of one attention.
        options = {ExactDivergence: {"units": ["embed.3.attention"]}}
        callbacks = [make(kind, figure=False, **options.get(kind, {})) for kind in kinds]
        folder = tmp_path_factory.mktemp("run")
        support.fit(folder, support.rule(FA, net), *callbacks, max_epochs=1, logger=False)
        for kind, callback in zip(kinds, callbacks, strict=True):
            found[kind] = {tag for row in callback.history.rows for tag in row["values"]}
    return found


@pytest.mark.parametrize("kind", SCHEDULED)
def test_the_tags_are_those_that_a_run_writes(kind, written):
    named = [tag for tag in named_tags(kind.__name__) if not tag.startswith("circuits/D+")]
    assert families(named) == families(written[kind])


def test_the_table_of_the_readme_lists_the_same_callbacks():
    table = Path("README.md").read_text().split("## Callbacks\n")[1].split("\n## ")[0]
    assert rows(table) == set(CONCRETE)


def test_tags_of_the_tables_stand_in_the_sections():
    for text in (PAGE.read_text().split("\n## ")[0], Path("README.md").read_text()):
        for name, line in re.findall(r"^\| \[?`?(\w+)`?.*?\|(.*)$", text, flags=re.MULTILINE):
            if name in DRAWING:
                tags = set(re.findall(r"`([a-z_]+/[^` ]+)`", line))
                assert families(tags) <= families(named_tags(name)), name


# The site


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("tutorial", "tutorial"),
        ("quickstart", "index"),
        ("after training", "howto/checkpoints"),
        ("significance", "howto/paper"),
        ("cite", "index"),
        ("pythonpath", "howto/rule"),
    ],
)
def test_a_word_that_people_search_for_stands_on_the_page_that_answers_it(words, page):
    assert words in Path(f"docs/{page}.md").read_text().lower()


def test_every_picture_of_a_callback_is_in_the_gallery():
    gallery = Path("docs/gallery.md").read_text()
    for picture in Path("docs/images").rglob("*.png"):
        assert f"]({picture.relative_to('docs')})" in gallery, picture


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the site, and all warnings of its build."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("latex2mathml")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    class Warnings(logging.Handler):
        def emit(self, record):
            found.append(record.getMessage())

    found: list[str] = []
    handler = Warnings(logging.WARNING)
    logging.getLogger("mkdocs").addHandler(handler)
    folder = tmp_path_factory.mktemp("site")
    try:
        config = load_config("mkdocs.yml", site_dir=str(folder))
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    finally:
        logging.getLogger("mkdocs").removeHandler(handler)
    return folder, found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of mkdocs and its plugins
def test_the_site_builds_without_a_warning(site):
    folder, warnings = site
    assert warnings == []
    home = (folder / "index.html").read_text()
    assert "make demo" in home
    assert 'src="images/front.png"' in home
    for package in Path("lit_credit").glob("*/**/__init__.py"):
        name = ".".join(package.parts[1:-1])
        is_public = "__all__" in package.read_text() or name in ("trainer", "utils")
        assert (folder / "api" / f"{name}.html").is_file() == is_public, name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_api_has_every_exported_name_and_no_sphinx_markup(site):
    folder, _ = site
    for name, home in HOMES.items():
        page = (folder / "api" / f"{home.removeprefix('lit_credit.')}.html").read_text()
        assert re.search(rf'id="{re.escape(home)}\.(\w+\.)+{name}"', page), name
    for path in folder.rglob("*.html"):
        text = path.read_text()
        for remnant in (":class:", ":func:", ":math:", ".. math::", "Example::", 'arithmatex">'):
            assert remnant not in text, (path.name, remnant)
    functions = (folder / "api" / "functional.html").read_text()
    assert "<math" in functions
    assert 'id="lit_credit.functional.participation_ratio.participation_ratio"' in functions
