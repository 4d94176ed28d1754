"""Broken rows and configurations: one line that names file, place and remedy; nothing written."""

import json
import os
import random

import pytest
import yaml

from lit_credit.cli import compare
from lit_credit.cli.compare import main
from lit_credit.comparison import result
from lit_credit.runs.history import read_history
from tests.cli.synthetic_runs import config, write_run

ROW = {"step": 12, "epoch": 1, "name": "metrics", "values": {"val/accuracy": 0.5}}
ODD = (None, [], [1], "x", "1", 3, -1, 1.5, True, {}, {"a": 1}, float("nan"), 10**400, 2**60)


def rows():
    """Second lines of a history that holds steps 0, 12, 24; each with what the error says."""
    number, expected = "expected a whole number", "expected a number"
    for key in ("step", "epoch"):
        fits = [3] if key == "step" else []  # of an epoch, 3 would come before 2
        for value in ODD:
            if value not in fits or isinstance(value, bool):
                said = "comes after" if value == 3 and type(value) is int else f"`{key}` is"
                yield ROW | {key: value}, said if said == "comes after" else number
    for value in ODD:
        if not isinstance(value, dict):
            yield ROW | {"values": value}, "`values` is missing, or is not a mapping"
        if value is not None and type(value) not in (int, float):
            yield ROW | {"values": {"val/accuracy": value}}, expected
        if not isinstance(value, str):
            yield ROW | {"name": value}, "`name`"
    yield ROW | {"values": {"val/accuracy": 10**400}}, expected
    for key in ROW:
        yield {k: v for k, v in ROW.items() if k != key}, f"`{key}`"
    yield ROW | {"step": 0, "epoch": 0}, "step 0 of epoch 0 comes after step 0 of epoch 0"
    yield ROW | {"step": 30}, "step 24 of epoch 2 comes after step 30 of epoch 1"
    yield ROW | {"epoch": 3}, "step 24 of epoch 2 comes after step 12 of epoch 3"


TEXTS = [
    *((json.dumps(row).encode(), said) for row, said in rows()),
    *((text, "not a row") for text in (b"[]", b"3", b"null", b'"x"', b"x", b"{", b"", b"\x00")),
    *(
        (text, "not a row")
        for text in (b"[" * 100_000, b'{"a":' * 5000, json.dumps(ROW).encode()[:-5])
    ),
    (json.dumps(ROW).encode() + b"\xff", "not a row"),
    (json.dumps(ROW).encode("utf-16"), "not a row"),
    (b'{"step": 12, "step": 13, "epoch": 1, "name": "m", "values": {}}', "'step' stands twice"),
]


def one_line(folder, out, capsys):
    assert main([str(folder), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lit-credit compare: error: ")
    assert not out.exists()
    return line


def test_a_broken_row_is_named(tmp_path, capsys):
    assert len(TEXTS) >= 77
    path = write_run(tmp_path / "a", "BP", 1, epochs=2) / "metrics.jsonl"
    first, _, last = path.read_bytes().splitlines()
    for text, said in TEXTS:
        path.write_bytes(b"\n".join([first, text, last, b""]))
        line = one_line(tmp_path, tmp_path / "out", capsys)
        assert f"{path}, line " in line, text[:80]
        assert said in line, text[:80]


def test_only_a_last_line_that_a_kill_cut_off_is_left_out(tmp_path):
    path = write_run(tmp_path / "a", "BP", 1, epochs=2) / "metrics.jsonl"
    whole = path.read_bytes()
    assert [len(read_history(path)) for _ in [path.write_bytes(whole[:-9])]] == [2]
    assert [len(read_history(path)) for _ in [path.write_bytes(whole[:-1])]] == [3]
    for end in (whole[:-9] + b"\n", whole + b'{"step": 36}'):
        path.write_bytes(end)
        with pytest.raises(ValueError, match=r"line [34]: not a row"):
            read_history(path)


def changed(*path_and_value):
    *path, key, value = path_and_value
    found = config("BP", 1, epochs=2)
    node = found
    for part in path:
        node = node[part]
    node[key] = value
    return yaml.safe_dump(found).encode()


GOOD = yaml.safe_dump(config("BP", 1, epochs=2)).encode()
BOMB = b"a0: &a0 laugh\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (i, i, b",".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 30)
)
NO_MAPPING = [value for value in ODD if value and not isinstance(value, dict)]
NO_COUNT = [value for value in ODD if type(value) not in (int, type(None))]
CONFIGURATIONS = [
    *((changed("model", value), "`model.class_path`") for value in ODD if value != {"a": 1}),
    *(
        (changed("model", "class_path", value), "`model.class_path`")
        for value in ODD
        if value != "x"
    ),
    *((changed("model", "class_path", value), "no class") for value in ("", "a.", "a.$b$", "a b")),
    *((changed("model", "init_args", value), "`init_args` is") for value in NO_MAPPING),
    *((changed("data", value), "`data` is") for value in NO_MAPPING),
    *((changed("trainer", value), "`trainer` is") for value in NO_MAPPING),
    *((changed("trainer", "max_epochs", value), "`trainer.max_epochs` is") for value in NO_COUNT),
    *((changed("trainer", "max_steps", value), "`trainer.max_steps` is") for value in NO_COUNT),
    *((changed("seed_everything", v), "`seed_everything` is") for v in NO_COUNT if v is not True),
    *((text, "no class") for text in (b"", b"[]", b"x", b"3", b"null")),
    *((text, "not YAML") for text in (b"model: [", b"\x00", b"a:\n\tb: 1", b"a: 1\n---\na: 2")),
    *((text, "not YAML") for text in (b"{[1]: 2}", b"!!python/object/apply:os.system [ls]")),
    (b"!!bool maybe", "does not fit its tag"),
    (b"a: &a [*a]", "would contain itself"),
    (BOMB + GOOD, "characters, more than 100000"),
    (b"[" * 500, "levels of nesting"),
    (GOOD + b"seed_everything: 5\n", "the key `seed_everything` stands twice"),
    (bytes(range(256)), "line 2: not UTF-8"),
    (GOOD + b"# \xe9", "line 15: not UTF-8"),
    (GOOD.decode().encode("utf-16"), "not UTF-8"),
]


def test_a_broken_configuration_is_named(tmp_path, capsys):
    assert len(CONFIGURATIONS) >= 77
    path = write_run(tmp_path / "a", "BP", 1, epochs=2) / "config.yaml"
    for text, said in CONFIGURATIONS:
        path.write_bytes(text)
        line = one_line(tmp_path, tmp_path / "out", capsys)
        assert f"{path}: " in line, text[:200]
        assert said in line, text[:200]


def test_whatever_bytes_change_there_is_a_table_or_one_line(tmp_path, capsys, monkeypatch):
    """Figures, which cost most, are drawn of a tenth of what can be read."""
    run, out = write_run(tmp_path / "a", "BP", 1, epochs=2), tmp_path / "out"
    files = {path: path.read_bytes() for path in sorted(run.iterdir())}
    rng = random.Random(0)
    draw, codes = result._png, []
    for number in range(120):
        path = rng.choice(list(files))
        data = bytearray(files[path])
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            data[at : at + rng.choice([0, 1, 1, 8])] = rng.choice(
                [b"", b"9", b"-", b"e", b"null", b"[", b"}", b"\n", b'"', b"\xff", b": ", b"- "]
            )
        path.write_bytes(data)
        monkeypatch.setattr(result, "_png", draw if number % 10 == 0 else lambda *_: b"")
        codes.append(main([str(tmp_path), "--out", str(out)]))
        error = capsys.readouterr().err
        assert (codes[-1], len(error.splitlines())) in [(0, 0), (2, 1)], (path, data, error)
        if out.exists():
            assert codes[-1] == 0
            for written in out.iterdir():
                written.unlink()
            out.rmdir()
        path.write_bytes(files[path])
    assert {codes.count(code) > 10 for code in (0, 2)} == {True}


def test_unusual_keys_and_values_are_read(tmp_path):
    for number, more in enumerate(
        [b"extra: {2001-01-01: 1, 5: 2, null: 3}\n", b"data: {seed: {2001-01-01: 1}, 3: {4: 5}}\n"]
    ):
        run = write_run(tmp_path / str(number), "BP", number, epochs=2)
        text = GOOD if number == 0 else GOOD[: GOOD.index(b"data:")] + GOOD[GOOD.index(b"model:") :]
        (run / "config.yaml").write_bytes(text + more)
    assert "BP" in str(compare.compare([tmp_path], tmp_path / "out"))


@pytest.mark.parametrize("name", ["$a$b", "$", "\u65e5\u672c", "a\nb", "\udcff", "%s{}"])
def test_folders_may_have_any_name(name, tmp_path):
    for folder, width in ((name, 3), (f"{name}2", 4)):
        write_run(tmp_path / "runs" / folder / "x", "BP", 1, epochs=2, width=width)
    assert main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(("largest", "code"), [(3.4e38, 0), (1.7e308, 2)])
def test_the_largest_numbers(largest, code, tmp_path, capsys):
    """Those of float32 are drawn; an axis twice as long as the largest float64 cannot be."""
    path = write_run(tmp_path / "a", "BP", 1, epochs=2) / "metrics.jsonl"
    rows = []
    for line, value in zip(path.read_text().splitlines(), (1, -1, 1e-45), strict=True):
        values = {"val/accuracy": value * largest, "val/loss": -value * largest}
        rows.append(json.dumps(json.loads(line) | {"values": values}))
    path.write_text("\n".join(rows) + "\n")
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == code
    assert len(capsys.readouterr().err.splitlines()) == code // 2
    assert (tmp_path / "out").exists() == (code == 0)


def test_a_figure_that_cannot_be_written_leaves_the_older_files(tmp_path, capsys):
    write_run(tmp_path / "a", "BP", 1, epochs=2)
    out = tmp_path / "out"
    (out / "comparison.png").mkdir(parents=True)
    (out / "comparison.csv").write_text("older")
    assert main([str(tmp_path / "a"), "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--out: {out} cannot be written: Is a folder. Give another --out." in line
    assert sorted(path.name for path in out.iterdir()) == ["comparison.csv", "comparison.png"]
    assert (out / "comparison.csv").read_text() == "older"


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path, capsys, monkeypatch):
    write_run(tmp_path / "a", "BP", 1, epochs=2)
    write_run(tmp_path / "b", "BP", 2, epochs=2)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    line = one_line(tmp_path, tmp_path / "out", capsys)
    assert f"RUN: {tmp_path / 'b'} cannot be read: Permission denied. Leave it out." in line
