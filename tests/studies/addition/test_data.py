"""Sums in batches: what is drawn, and when."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_credit.inspect.updates import batches_of
from lit_credit.rules import BP
from lit_credit.studies.addition import Addition, AdditionTask, MicroAdder
from lit_credit.studies.addition.data import draw_sums
from lit_credit.studies.addition.layout import AdditionLayout, carries_in, longest_run
from lit_credit.utils.random_state import generator_of
from tests.support import quiet_trainer


def numbers(data, tokens):
    return data.layout.decode(tokens)


@pytest.mark.parametrize("digits", [1, 4, 10, 18])
def test_all_that_is_handed_out_is_a_sum(digits):
    data = Addition(digits=digits, seed=0, val_size=200, val_chains=20, test_size=300)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        tokens, forced = next(iter(loader))
        x, y, z = numbers(data, tokens)
        assert torch.equal(x + y, z)
        assert torch.equal(tokens, data.layout.encode(x, y))
        assert 0 < forced.sum() < len(forced)
    (val, test) = (next(iter(x))[0] for x in (data.val_dataloader(), data.test_dataloader()))
    assert len(val) == 200 + 20 * digits
    assert digits == 1 or not torch.equal(val[:200], test[:200])
    assert torch.equal(val, next(iter(data.val_dataloader()))[0])


def test_uniform_sums_are_uniform_below_the_curriculums_power_of_ten():
    data = Addition(digits=4, batch_size=20_000, carry_mix=0.0, curriculum=[[0, 2], [1, 9]])
    batches = iter(data.train_dataloader())
    x, y, _ = numbers(data, next(batches)[0])
    count = torch.bincount(x * 100 + y, minlength=10_000).float()
    assert len(count) == 10_000
    # Poisson counts of mean 2.
    assert count.var() == pytest.approx(2, rel=0.1)
    x, y, _ = numbers(data, next(batches)[0])
    for number in (x, y):
        assert number.double().mean() == pytest.approx(4999.5, abs=100)
        assert number.max() > 9950


def test_curriculum_and_fade_follow_the_updates():
    data = Addition(curriculum=[[0, 3], [20, 6], [70, 10]], carry_mix=0.8, fade=[100, 300])
    assert [data.used_digits(n) for n in (0, 19, 20, 69, 70, 10**6)] == [3, 3, 6, 6, 10, 10]
    found = [data.carry_probability(n) for n in (0, 100, 150, 200, 300, 400)]
    assert found == pytest.approx([0.8, 0.8, 0.6, 0.4, 0.0, 0.0])
    assert Addition(carry_mix=0.3).carry_probability(10**6) == 0.3


def test_the_update_counts_over_epochs_and_resumes():
    def make():
        schedule = {"curriculum": [[0, 1], [2, 2], [5, 3]], "fade": [3, 4]}
        return Addition(digits=3, batch_size=400, steps_per_epoch=3, seed=0, **schedule)

    loader = make().train_dataloader()
    batches = [*loader, *loader]
    sizes = [len(str(int(numbers(make(), tokens)[0].max()))) for tokens, _ in batches]
    assert sizes == [1, 1, 2, 2, 2, 3]
    shares = [forced.float().mean().item() for _, forced in batches]
    assert shares == pytest.approx([0.8, 0.8, 0.8, 0.8, 0, 0], abs=0.06)
    assert shares[4:] == [0, 0]
    resumed = make().train_dataloader()
    resumed.load_state_dict({"epoch": 1, "batch": 1})
    for (tokens, _), (expected, _) in zip(resumed, batches[4:], strict=True):
        assert torch.equal(tokens, expected)
    several = make()
    several.trainer = SimpleNamespace(
        lightning_module=SimpleNamespace(updates_per_step=2), global_rank=0, world_size=1
    )
    loader = several.train_dataloader()
    found = [b for _ in range(2) for step in loader for b in batches_of(step, 2)]
    assert len(found) == 6
    for (tokens, _), (expected, _) in zip(found, batches, strict=True):
        assert torch.equal(tokens, expected)


@pytest.mark.parametrize("used", [1, 4, 6])
def test_patterns_of_carries(used):
    layout = AdditionLayout(6)
    (x, y), forced = draw_sums(4000, 6, used, 1.0, generator_of(used))
    assert forced.all()
    tokens = layout.fill(x, y)
    carries = carries_in(tokens, layout)
    assert not x[:, used:].any()
    assert not y[:, used:].any()
    assert carries.any(1).all()
    runs = longest_run(carries)
    assert set(runs.tolist()) == set(range(1, used + 1))
    # One of four is a boundary: the carry of the lowest column ends in a power of ten.
    total = layout.decode(tokens)[2]
    small = sum(((total >= 10**k) & (total < 10**k + 9)).float().mean() for k in range(1, used + 1))
    assert small > 0.22
    # Long runs are common; of uniform sums .017 have a run of four or more of six columns.
    if used == 6:
        assert (runs >= 4).float().mean() > 0.2
    single = (carries.sum(1) == 1).float().mean()
    assert single > 0.25


def test_forced_chains_have_one_run_of_each_length():
    data = Addition(digits=5, val_size=100, val_chains=50, seed=0)
    tokens, forced = next(iter(data.val_dataloader()))
    assert forced.tolist() == [False] * 100 + [True] * 250
    carries = carries_in(tokens[forced], data.layout)
    expected = torch.arange(1, 6).repeat_interleave(50)
    assert torch.equal(longest_run(carries), expected)
    assert torch.equal(carries.sum(1), expected)


def test_a_run_resumed_in_mid_epoch_goes_on_to_the_bit(tmp_path):
    def fit(ckpt_path=None, **trainer):
        torch.manual_seed(0)
        rule = BP(MicroAdder(digits=3), AdditionTask(3), updates_per_step=2)
        data = Addition(3, 16, 4, [[0, 1], [5, 3]], fade=[2, 9], val_size=9, val_chains=2, seed=0)
        t = quiet_trainer(max_epochs=3, **trainer)
        t.fit(rule, datamodule=data, ckpt_path=ckpt_path)
        assert t.global_step == 12
        return rule.state_dict()

    saved = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1)
    expected = fit(callbacks=[saved], enable_checkpointing=True)
    for step in (4, 6):
        found = fit(tmp_path / f"step={step}.ckpt")
        assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"digits": 0}, "`digits` is 0"),
        ({"carry_mix": 1.5}, "`carry_mix` is 1.5"),
        ({"fade": [5, 5]}, r"`fade` is \[5, 5\]"),
        ({"curriculum": [[1, 3]]}, "`curriculum` is .* ascending from 0"),
        ({"curriculum": [[0, 3], [0, 4]]}, "`curriculum` is"),
        ({"curriculum": [[0, 0]]}, "`curriculum` is"),
        ({"curriculum": []}, "`curriculum` is"),
        ({"steps_per_epoch": 0}, "`steps_per_epoch` is 0"),
        ({"val_chains": 0}, "`val_chains` is 0"),
    ],
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Addition(**wrong)


def test_a_net_for_other_numbers_is_refused():
    rule = BP(MicroAdder(digits=3), AdditionTask(3))
    with pytest.raises(ValueError, match="`digits` of the net is 3, but the data have 4"):
        quiet_trainer(max_epochs=1).fit(rule, datamodule=Addition(digits=4))
