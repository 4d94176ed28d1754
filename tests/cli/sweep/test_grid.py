"""What a grid file asks for."""

import pytest
import yaml

from lit_credit.cli.sweep.grid import read_grid


def points(tmp_path, text):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return read_grid(path)


def test_a_grid_is_a_product_of_its_lists_and_cases(tmp_path):
    found, seeds = points(
        tmp_path,
        """
        model.class_path: [BP, DFA]
        cases:
          - {name: slow, lr: 1.0e-4, trainer.max_epochs: 40}
          - {name: fast, lr: 1.0e-3}
        model.init_args.net.init_args.depth: [1, 2]
        seed_everything: [7, 8]
        """,
    )
    assert seeds == [7, 8]
    assert [point.name for point in found] == [
        f"{case},model={rule},depth={depth}"
        for case in ("slow", "fast")
        for rule in ("BP", "DFA")
        for depth in (1, 2)
    ]
    assert found[1].case == "slow"
    assert found[1].overrides == {
        "model.class_path": "BP",
        "model.init_args.net.init_args.depth": 2,
        "lr": 1e-4,
        "trainer.max_epochs": 40,
    }
    assert found[-1].overrides.keys() == found[1].overrides.keys() - {"trainer.max_epochs"}


def test_seeds_alone_are_a_grid(tmp_path):
    found, seeds = points(tmp_path, "seed_everything: [1, 2, 3]")
    assert ([point.name for point in found], seeds) == (["base"], [1, 2, 3])
    assert points(tmp_path, "a.b: [1]")[1] is None


def test_a_class_comes_before_its_arguments(tmp_path):
    text = "{model.init_args.net.init_args.d: [1], model.init_args.net: [MLP], model: [BP]}"
    (point,), _ = points(tmp_path, text)
    assert [*point.overrides] == [
        "model",
        "model.init_args.net",
        "model.init_args.net.init_args.d",
    ]


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        ({"a.lr": [1e-3], "b.lr": [0.1]}, ["a.lr=0.001,b.lr=0.1"]),
        (
            {"a.init_args.b.class_path": ["x.Y"], "c": [True, None]},
            ["b=x.Y,c=true", "b=x.Y,c=null"],
        ),
    ],
)
def test_names_are_as_short_as_they_can_be(grid, names, tmp_path):
    found, _ = points(tmp_path, yaml.safe_dump(grid, sort_keys=False))
    assert [point.name for point in found] == names


def test_unlike_values_have_unlike_names_of_bounded_length(tmp_path):
    values = ["a b", "a-b", "a/b", [1, 1, 0.9], [1, 1, 0, 9], {"x": "../.."}, "x" * 300, "x" * 301]
    keys = [f"a.key{k}" for k in range(9)]
    found, _ = points(tmp_path, yaml.safe_dump({"v": values} | {key: ["y" * 40] for key in keys}))
    names = [point.name for point in found]
    assert len(set(names)) == len(values)
    found, _ = points(tmp_path, yaml.safe_dump({"v": values}))
    names += [point.name for point in found]
    assert all(len(name) < 130 and "/" not in name for name in names)
    assert "v=1-1-0.9-7f7591" in names  # today and next year


BAD = [
    ("[1, 2]", "holds [1, 2]. Expected a mapping"),
    ("{}", "Expected a mapping"),
    ("a: [", "grid.yaml': line 2: not YAML"),
    ("{a.b: 3}", "a.b: 3. Expected a list of values, such as `a.b: [3]`"),
    ("{a.b: []}", "a.b: []. Expected a list"),
    ("{3: [1]}", "3: expected a dotted name"),
    ("{ckpt_path: [x]}", "ckpt_path: the sweep sets it itself"),
    ("{a.b: [1, 1]}", "b=1 comes twice"),
    ("{seed_everything: 42}", "seed_everything: 42. Expected a list of whole numbers"),
    ("{seed_everything: [true]}", "seed_everything: [true]. Expected"),
    ("{seed_everything: [1, 1]}", "1 comes twice"),
    ("{seed_everything: [-1]}", "[-1]. Expected a list of whole numbers from 0 to 4294967295"),
    ("{seed_everything: [1, 4294967296]}", "[1, 4294967296]. Expected"),
    ("{seed_everything: [1.0]}", "[1.0]. Expected"),
    ("{seed_everything: ['1']}", '["1"]. Expected'),
    ("{seed_everything: [null]}", "[null]. Expected"),
    ("{seed_everything: [[1, 2]]}", "[[1, 2]]. Expected"),
    ("{seed_everything: []}", "[]. Expected"),
    ("{seed_everything: {a: 1}}", 'seed_everything: {"a": 1}. Expected'),
    ("{a.b: {c: 1}}", 'a.b: {"c": 1}. Expected a list'),
    ("{true: [1]}", "True: expected a dotted name"),
    ("{null: [1]}", "None: expected a dotted name"),
    ("{'': [1]}", "'': expected a dotted name"),
    ("{--trainer.max_epochs: [1]}", "'--trainer.max_epochs': expected a dotted name"),
    ("{trainer..max_epochs: [1]}", "'trainer..max_epochs': expected"),
    ("{'a b': [1]}", "'a b': expected a dotted name"),
    ("{print_config: [x]}", "print_config: the sweep sets it itself"),
    ("{help: [x]}", "help: the sweep sets it itself"),
    ("{cases: []}", "cases: []. Expected a list of mappings"),
    ("{cases: [{name: x, 3: 1}]}", "3: expected a dotted name"),
    ("{cases: [{name: x, a: 1, a: 2}]}", "the key `a` stands twice"),
    ("{a: [1], b: [2], a: [3]}", "the key `a` stands twice, first in line 1"),
    ("{cases: {name: x}}", 'cases: {"name": "x"}. Expected a list of mappings'),
    ("{cases: [{a: 1}]}", 'cases: {"a": 1}. Expected'),
    ("{cases: [{name: ../up, a: 1}]}", "Expected a list of mappings"),
    ("{cases: [{name: x, a: 1}, {name: x, a: 2}]}", "name: x comes twice"),
    ("{cases: [{name: x, a: 1}], a: [2]}", "a: stands in the `cases` and beside them"),
    ("{cases: [{name: x, seed_everything: 1}]}", "seeds stand beside the `cases`"),
    ("{cases: [{name: x, config: y}]}", "config: the sweep sets it itself"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[text for text, _ in BAD])
def test_a_bad_grid_gets_one_line(text, message, tmp_path):
    with pytest.raises(ValueError, match=r"^--grid: ") as caught:
        points(tmp_path, text)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def lists(count, length):
    return yaml.safe_dump({f"a.key{k}": list(range(length)) for k in range(count)})


def test_the_runs_of_a_grid_are_counted_first(tmp_path):
    """Made one by one, these would take the memory of the machine."""
    more = {"seed_everything": [1, 2], "cases": [{"name": "x"}, {"name": "y"}, {"name": "z"}]}
    for text, runs in (
        (lists(9, 10), "1,000,000,000"),
        (lists(30, 10) + yaml.safe_dump(more), f"{6 * 10**30:,}"),
        (lists(5, 10) + "seed_everything: [1, 2]", "200,000"),
    ):
        with pytest.raises(ValueError, match=f"asks for {runs} runs, more than 100,000"):
            points(tmp_path, text)
    assert len(points(tmp_path, lists(4, 10))[0]) == 10**4


def test_a_grid_that_cannot_be_read(tmp_path):
    (tmp_path / "grid.yaml").write_bytes(b"a: [1]\nb: [\xe9]")
    with pytest.raises(ValueError, match=r"grid\.yaml': line 2: not UTF-8"):
        read_grid(tmp_path / "grid.yaml")
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "x", "No such file")):
        with pytest.raises(ValueError, match=f"--grid: .* cannot be read: {reason}"):
            read_grid(path)
