"""Text in windows."""

import math
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from lit_credit.cli import main
from lit_credit.datamodules import CharText, TinyShakespeare, char_text, tiny_shakespeare

TEXT = "the cat sat on the mat. " * 50 + "ünïcode at the end"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    return str(file)


def test_training_windows_are_pieces_of_the_first_part_and_targets_follow(path):
    data = CharText(path, block_size=16, batch_size=8, steps_per_epoch=5)
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 5
    border = len(TEXT) - int(0.1 * len(TEXT))
    for x, y in batches:
        assert x.shape == y.shape == (8, 16)
        for row, after in zip(x, y, strict=True):
            assert data.decode(row) + data.decode(after)[-1] in TEXT[:border]


def test_validation_windows_cover_the_last_part_once(path):
    data = CharText(path, block_size=16, val_batch_size=2)
    border = len(TEXT) - int(0.1 * len(TEXT))
    text = "".join(data.decode(row) for x, _ in data.val_dataloader() for row in x)
    assert TEXT[border:].startswith(text)
    assert len(TEXT) - border - len(text) <= 16
    targets = "".join(data.decode(row) for _, y in data.val_dataloader() for row in y)
    assert targets == TEXT[border + 1 :][: len(targets)]
    few = CharText(path, block_size=16, val_windows=3).val_dataloader()
    assert [len(x) for x, _ in few] == [3]


def test_windows_depend_on_seed_epoch_and_batch_and_resume(path):
    def make(seed):
        return CharText(path, block_size=16, batch_size=4, steps_per_epoch=3, seed=seed)

    whole = make(1).train_dataloader()
    rows = [x.tolist() for _ in range(3) for x, _ in whole]
    assert len({str(row) for row in rows}) == 9
    again = make(1).train_dataloader()
    assert [x.tolist() for _ in range(3) for x, _ in again] == rows
    assert [x.tolist() for x, _ in make(2).train_dataloader()] != rows[:3]
    resumed = make(1).train_dataloader()
    resumed.load_state_dict({"epoch": 1, "batch": 2})
    assert [x.tolist() for x, _ in resumed] == rows[5:6]


def test_two_processes_share_the_batch_of_one(path):
    def first(rank, world_size):
        data = CharText(path, block_size=16, batch_size=4)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
        return next(iter(data.train_dataloader()))[0]

    assert torch.equal(torch.cat([first(0, 2), first(1, 2)]), first(0, 1))


def test_encode_and_decode_are_inverse_and_unknown_characters_are_named(path):
    data = CharText(path)
    assert data.decode(data.encode("thé cat".replace("é", "e"))) == "the cat"
    assert data.vocabulary == "".join(sorted(set(TEXT)))
    with pytest.raises(ValueError, match=r"'Q'.*not in the vocabulary"):
        data.encode("the Q")


def test_the_embedded_text_has_one_vocabulary_everywhere():
    data = CharText()
    assert data.vocabulary == char_text.ASCII == "".join(sorted(char_text.ASCII))
    assert len(data.data.train) > 300_000
    assert data.data.train.dtype == torch.uint8


def test_a_folder_is_its_text_files_in_order(tmp_path):
    for name, text in (("b.txt", "bb" * 99), ("a.txt", "aa" * 99), ("c.md", "no")):
        (tmp_path / name).write_text(text)
    assert CharText(str(tmp_path), block_size=4).read() == "aa" * 99 + "\n" + "bb" * 99


def test_bigram_loss_against_a_loop(path):
    data = CharText(path, block_size=8)
    border = len(TEXT) - int(0.1 * len(TEXT))
    train, val = TEXT[:border], TEXT[border:]
    pairs, first = Counter(pairwise(train)), Counter(train[:-1])
    size = len(data.vocabulary)
    losses = [-math.log((pairs[a, b] + 0.5) / (first[a] + 0.5 * size)) for a, b in pairwise(val)]
    assert math.isclose(data.bigram_loss(0.5), sum(losses) / len(losses), rel_tol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"block_size": 0}, ["block_size", "0"]),
        ({"steps_per_epoch": 0}, ["steps_per_epoch", "0"]),
        ({"val_fraction": 1.0}, ["val_fraction", "1.0"]),
        ({"path": "nowhere.txt"}, ["path", "nowhere.txt", "leave it out"]),
        ({"block_size": 10**7}, ["block_size", "10000000", "smaller"]),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match="`") as caught:
        CharText(**arguments).setup()
    assert all(word in str(caught.value) for word in words)


def test_no_text_and_no_utf8_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\*\.txt"):
        CharText(str(tmp_path)).read()
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="UTF-8"):
        CharText(str(tmp_path)).read()


def test_a_net_with_too_few_symbols_is_refused_from_the_command_line(tmp_path, capsys):
    args = ["fit", "--config", "configs/softmax_jacobian/bp.yaml"]
    args += ["--model.init_args.net.init_args.vocab_size", "65"]
    assert main([*args, "--trainer.default_root_dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert all(word in error for word in ("`vocab_size`", "65", "96"))


def test_shakespeare_without_the_file_fails_clearly(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_shakespeare, "any_reachable", lambda urls: False)
    for arguments in ({}, {"download": False}):
        with pytest.raises(ValueError, match="no usable data") as caught:
            TinyShakespeare(root=str(tmp_path), **arguments).prepare_data()
        words = (str(tmp_path), "tinyshakespeare/input.txt", "`CharText`")
        assert all(word in str(caught.value) for word in words)


def test_a_damaged_file_is_refused(tmp_path):
    file = tmp_path / "tinyshakespeare" / "input.txt"
    file.parent.mkdir()
    file.write_text(TEXT)
    with pytest.raises(ValueError, match="damaged"):
        TinyShakespeare(root=str(tmp_path)).prepare_data()
