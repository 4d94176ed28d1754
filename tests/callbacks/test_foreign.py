"""Data and modules as other projects have them."""

from functools import partial

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from lit_credit.callbacks import (
    CreditAlignment,
    GradientNorms,
    ReferenceValidity,
    ResidualNorms,
    ScaleStability,
)
from lit_credit.rules import BP, DFA
from lit_credit.runs.history import read_history
from tests import support
from tests.support import Foreign, Validated, train_loader, val_loader

UNITS = ["model.embed", "model.blocks.*"]


def fit(folder, module, *callbacks, loaders=None, **kwargs):
    trainer = support.trainer(folder, *callbacks, **({"logger": False, "max_epochs": 1} | kwargs))
    trainer.fit(module, *(loaders or (train_loader(), val_loader())))
    return trainer


def probe(folder, module, n_samples=7, **kwargs):
    callback = ResidualNorms(units=UNITS, n_samples=n_samples, figure=False)
    fit(folder, module, callback, **kwargs)
    return callback.probe


def rows(found):
    """The columns of a probe of tuples."""
    return [torch.cat(parts) for parts in zip(*found.chunks, strict=True)]


class OneArgument(Validated):
    def training_step(self, batch):
        return {"loss": F.cross_entropy(self.model(batch[0]), batch[1])}


class AnyArguments(Validated):
    def training_step(self, *args, **kwargs):
        batch, _ = args
        return F.cross_entropy(self.model(batch[0]), batch[1])[None]


class Keyword(Validated):
    def training_step(self, batch, *, scale=1.0):
        return F.cross_entropy(self.model(batch[0]), batch[1]) * scale


@pytest.mark.parametrize("kind", [OneArgument, AnyArguments, Keyword])
def test_training_steps_of_other_signatures(kind, tmp_path):
    callback = GradientNorms(units=UNITS, figure=False)
    fit(tmp_path, kind(), callback)
    assert len(callback.history.rows) == 2


class NoLoss(Validated):
    def training_step(self, batch, batch_idx):
        return None


def test_a_training_step_without_a_loss_is_an_error(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"NoneType.*`batch_loss\(batch\)`"):
        fit(tmp_path, NoLoss(), GradientNorms(units=UNITS, figure=False))


class Manual(Validated):
    """Optimizes manually, and has no method for its loss."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.optimizers().zero_grad()
        self.manual_backward(loss_of(self, batch))
        self.optimizers().step()


def loss_of(module, batch):
    """The step's loss, with what must not be left behind by looking at it."""
    module.steps += 1
    module.log("loss", module.steps)
    x, y = batch
    x.add_(0)
    return F.cross_entropy(module.model(x), y)


def test_a_given_loss_is_the_one_looked_at(tmp_path):
    modules, trainers, rows = [], [], []
    for kind, watched in ((Manual, False), (Manual, True), (Validated, True)):
        callback = GradientNorms(units=UNITS, loss=loss_of, figure=False)
        modules.append(kind())
        trainers.append(fit(tmp_path, modules[-1], *([callback] if watched else [])))
        rows.append(callback.history.rows)
    assert support.same_state(*modules[:2])
    assert trainers[0].logged_metrics == trainers[1].logged_metrics
    assert rows[1][0]["values"] == rows[2][0]["values"]


def doubled(module, batch):
    return 2 * module.batch_loss(batch)


def test_a_given_loss_takes_the_place_of_the_module_s_own(tmp_path):
    own, given = GradientNorms(figure=False), GradientNorms(loss=doubled, figure=False)
    fit(tmp_path, support.rule(DFA), own, given)
    for tag, value in own.history.rows[-1]["values"].items():
        twice = given.history.rows[-1]["values"][tag.replace("gradient", "gradient-1")]
        assert twice == pytest.approx(2 * value)
    with pytest.raises(MisconfigurationException, match=r"the given `loss` returns NoneType"):
        fit(tmp_path, support.rule(DFA), GradientNorms(loss=lambda *_: None, figure=False))


def scaled(module, batch, scale):
    return scale * loss_of(module, batch)


def test_given_losses_that_are_partials_are_told_apart(tmp_path):
    kinds = [partial(loss_of), partial(scaled, scale=1.0), partial(scaled, scale=2.0)]
    callbacks = [GradientNorms(units=UNITS, loss=loss, figure=False) for loss in kinds]
    fit(tmp_path, Manual(), *callbacks)
    one, same, two = (list(c.history.rows[0]["values"].values()) for c in callbacks)
    assert one == same
    assert two == pytest.approx([2 * value for value in one])


class Careless(Foreign):
    """Changes its batch, and reads what the net was given."""

    def training_step(self, batch, batch_idx):
        x, y = batch.pop("x"), batch.pop("y")
        x *= 2
        loss = F.cross_entropy(self.model(x), y)
        self.last = x.numpy()
        return loss


def test_a_training_step_that_changes_its_batch_does_not_change_the_probe(tmp_path):
    callbacks = [
        CreditAlignment(n_samples=7, figure=False),
        GradientNorms(n_samples=7, units=UNITS, figure=False),
    ]
    fit(tmp_path, Careless(), *callbacks, loaders=(support.shuffled("dict"),))
    first = callbacks[0].probe.chunks[0]
    assert set(first) == {"x", "y", "id"}
    assert len(first["x"]) == len(first["id"]) == 7
    rows = [{int(name.split()[1]) for name in first["id"]}, set(range(32))]
    assert rows[0] <= rows[1]
    x, _ = support.tensors(32)
    assert torch.equal(first["x"], x[[int(name.split()[1]) for name in first["id"]]])


def test_an_attribute_of_another_meaning_is_no_list_of_units(tmp_path):
    module = Validated()
    module.credit_units = 5
    with pytest.raises(MisconfigurationException, match="Set `units` to some of: model"):
        fit(tmp_path, module, GradientNorms(figure=False))


# Where the probe comes from


def test_the_probe_is_the_first_rows_of_the_first_validation_loader(tmp_path):
    x, y = support.tensors(20, seed=1)
    expected = [x[:15], y[:15]]
    other = DataLoader(support.Rows(8, "tuple"), batch_size=4)
    for loaders in (val_loader(), [val_loader(), other], {"a": val_loader(), "b": other}):
        module = Several() if isinstance(loaders, list | dict) else Validated()
        found = probe(tmp_path, module, n_samples=15, loaders=(train_loader(), loaders))
        assert found.rows == [8, 7]  # as many as training batches have
        assert all(torch.equal(a, b) for a, b in zip(rows(found), expected, strict=True))


class Several(Validated):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return super().validation_step(batch, batch_idx)


@pytest.mark.parametrize("options", [{"limit_val_batches": 0}, {"check_val_every_n_epoch": 2}])
def test_the_probe_is_validation_data_whatever_the_schedule_of_validation(options, tmp_path):
    module = Validated()
    found = probe(tmp_path, module, **options)
    assert torch.equal(rows(found)[0], support.tensors(20, seed=1)[0][:7])


def test_more_samples_than_there_are(tmp_path):
    """All of them unless so many are asked for, also where a sibling has taken the probe."""
    assert probe(tmp_path, Validated(), n_samples=None).n_rows == 20
    default = GradientNorms(units=UNITS, figure=False)
    asked = ResidualNorms(units=UNITS, n_samples=1024, figure=False)
    module = Validated()
    before = support.traces(module)["state"]
    for callbacks in ([asked], [default, asked]):
        with pytest.raises(ValueError, match=r"`n_samples` is 1024.*only 20 rows.*at most 20"):
            fit(tmp_path, module, *callbacks)
    assert support.traces(module)["state"] == before


def test_a_probe_from_training_data_that_would_lose_samples_is_refused(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter([support.tensors(8)] * 4)

    stream = DataLoader(Stream(), batch_size=None)
    with pytest.raises(MisconfigurationException, match=r"IterableDataset.*validation data"):
        probe(tmp_path, Foreign(), loaders=(stream,))


class Ragged(Validated):
    def training_step(self, batch, batch_idx):
        return self.model(batch[:, :12]).square().mean()

    def validation_step(self, batch, batch_idx):
        pass


def test_batches_of_several_lengths_are_not_joined(tmp_path):
    batches = [torch.randn(4, 12), torch.randn(4, 13)]
    loaders = (
        DataLoader(torch.randn(8, 12), batch_size=8),
        DataLoader(batches, batch_size=None),
    )
    assert probe(tmp_path, Ragged(), n_samples=4, loaders=loaders).rows == [4]
    found = probe(tmp_path, Ragged(), n_samples=7, loaders=loaders)
    assert found.rows == [4, 3]
    assert torch.equal(found.chunks[1], batches[1][:3])


class Transferred(LightningDataModule):
    """Hands out integers and makes numbers of them in a hook, with noise only in training."""

    def train_dataloader(self):
        return DataLoader(torch.arange(16 * 12).reshape(16, 12), batch_size=8)

    val_dataloader = train_dataloader

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch, torch.zeros(len(batch), dtype=torch.long)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        x = x.to(torch.get_default_dtype()) / 100
        return (x + torch.randn_like(x) if self.trainer.training else x), y


def test_the_probe_has_passed_the_hooks_of_batch_transfer(tmp_path):
    module = Validated()
    found = probe(tmp_path, module, loaders=(Transferred(),))
    expected = torch.arange(7 * 12).reshape(7, 12) / 100
    assert torch.equal(rows(found)[0], expected)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_other_precisions(precision, tmp_path):
    kinds = [ResidualNorms, GradientNorms, ReferenceValidity, ScaleStability, CreditAlignment]
    callbacks = [kind(n_samples=7) for kind in kinds]
    fit(tmp_path, support.rule(DFA), *callbacks, precision=precision)
    assert all(len(callback.history.rows) == 2 for callback in callbacks)


# Several fits


def test_diagnostics_of_one_size_share_one_probe(tmp_path):
    callbacks = [
        ResidualNorms(figure=False),
        GradientNorms(figure=False),
        GradientNorms(n_samples=5, figure=False),
    ]
    fit(tmp_path, support.rule(BP), *callbacks)
    assert callbacks[0].probe.chunks[0][0] is callbacks[1].probe.chunks[0][0]
    assert len(callbacks[2].probe.chunks[0][0]) == 5


def test_a_callback_used_again_takes_a_new_probe_and_keeps_the_old_history(tmp_path):
    callback = ResidualNorms(n_samples=7, figure=False)
    fit(tmp_path, support.rule(BP), callback)
    old = (tmp_path / "residual_norms.jsonl").read_text()
    other = DataLoader(support.Rows(8, "tuple"), batch_size=8)
    fit(tmp_path, support.rule(BP), callback, loaders=(train_loader(), other))
    assert torch.equal(callback.probe.chunks[0][0], support.tensors(8)[0][:7])
    assert (tmp_path / "residual_norms.1.jsonl").read_text() == old
    assert len(read_history(tmp_path / "residual_norms.jsonl")) == 2
