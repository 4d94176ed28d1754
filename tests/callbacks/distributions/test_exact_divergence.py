import math

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch import nn

from lit_credit.callbacks import ExactDivergence
from lit_credit.inspect.contexts import Contexts, read_contexts
from lit_credit.rules import BP
from lit_credit.studies.ngram import AttentionOnly
from lit_credit.tasks import Classification
from tests import support
from tests.callbacks.representations.test_embedding_geometry import Pairs
from tests.support import ChangedData


class Attending(LightningModule):
    """One attention of three heads; answers at every position."""

    def __init__(self, symbols=4):
        super().__init__()
        self.embed = nn.Embedding(5, 6)
        self.attention = nn.MultiheadAttention(6, 3, batch_first=True)
        self.out = nn.Linear(6, symbols)

    def forward(self, x):
        h = self.embed(x)
        return self.out(h + self.attention(h, h, h, need_weights=False)[0])


def measured(module, data=None, **options):
    return support.measured(ExactDivergence(**options), module, data or support.Data())


def test_against_a_loop_over_contexts():
    torch.manual_seed(0)
    module = Attending()
    nn.init.normal_(module.out.weight)
    x, prior, rows = support.Data().contexts()
    values, slow = measured(module), {}
    lists = {name: [] for name in ("kl", "kl_uniform", "accuracy", "accuracy_max", "margin")}
    for m in range(12):
        p = rows[m].tolist()
        f = module(x[m : m + 1])[0, -1].tolist()
        z = sum(map(math.exp, f))
        best = f.index(max(f))
        y = p.index(max(p))
        lists["kl"].append(
            sum(a * math.log(a * z / math.exp(b)) for a, b in zip(p, f, strict=True))
        )
        lists["kl_uniform"].append(sum(a * math.log(4 * a) for a in p))
        lists["accuracy"].append(p[best])
        lists["accuracy_max"].append(max(p))
        lists["margin"].append(f[y] - max(v for i, v in enumerate(f) if i != y))
    for name, numbers in lists.items():
        slow[name] = sum(float(w) * v for w, v in zip(prior, numbers, strict=True))
    slow["kl_max"], slow["margin_min"] = max(lists["kl"]), min(lists["margin"])
    slow["memorized"] = sum(m > 0 for m in lists["margin"])
    slow["contexts"] = 12
    slow["memorized_bound"] = 12  # not more than there are: 3 * 2 + 6
    slow["accuracy_bound"] = 1
    assert 0 < slow["memorized"] < 12
    assert values == pytest.approx(slow, rel=1e-5)


def test_the_bound_is_that_of_one_attention():
    values = measured(Pairs())
    assert not {"memorized_bound", "accuracy_bound"} & set(values)
    module = Attending()
    module.second = nn.MultiheadAttention(6, 1)
    assert "memorized_bound" not in measured(module)
    # One head of six features in a stream of six holds twelve.
    assert measured(module, units=["second"])["memorized_bound"] == 12
    with pytest.raises(MisconfigurationException, match="no attention whose heads can be read"):
        measured(Pairs(), units=["attention"])


def test_the_bound_counts_heads_that_are_in_parallel_together():
    def bound(separate, depth=1, units=None, told=True):
        net = AttentionOnly(4, width=2, heads=3, depth=depth, separate_heads=separate)
        net.blocks[0].attention.heads_in_parallel = told
        module = BP(net, Classification(4))
        return measured(module, units=units).get("memorized_bound")

    assert bound(separate=False) == bound(separate=True) == 3 * 2 + 2
    assert bound(separate=True, units=["blocks.0.attention.[12]"]) == 2 * 2 + 2
    assert bound(separate=True, depth=2) is None
    assert bound(separate=True, depth=2, units=["blocks.0.attention.*"]) == 3 * 2 + 2
    # Modules side by side may as well follow each other.
    assert bound(separate=True, told=False) is None


def test_contexts_that_never_come_play_no_part():
    def rare(c):
        prior, rows = c.prior.clone(), c.rows.clone()
        prior[0], rows[0] = 0, torch.tensor([1.0, 0.0, 0.0, 0.0])
        return c._replace(prior=prior / prior.sum(), rows=rows)

    def without(c):
        prior = c.prior[1:] / c.prior[1:].sum()
        return Contexts(c.x[1:], prior, c.rows[1:])

    module = Pairs()
    nn.init.constant_(module.table.weight[0], torch.inf)  # would make the mean NaN
    assert measured(module, ChangedData(rare)) == pytest.approx(
        measured(module, ChangedData(without))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c._replace(prior=c.prior[1:]), r"shapes \(\(12, 2\), \(11,\), \(12, 4\)\)"),
        (lambda c: c._replace(prior=2 * c.prior), "`prior` of `contexts"),
        (lambda c: c._replace(rows=2 * c.rows), "`rows` of `contexts"),
        (lambda c: c._replace(prior=c.prior + torch.eye(12)[0] - torch.eye(12)[1]), "below 0"),
        (lambda c: c._replace(rows=c.rows + torch.tensor([1.0, -1.0, 0, 0])), "below 0"),
        (lambda c: c[:2], "returned tuple, expected a tuple of three tensors"),
        (lambda c: c._asdict(), "returned dict, expected"),
        (lambda c: tuple(part.numpy() for part in c), "expected a tuple of three tensors"),
    ],
)
def test_contexts_that_do_not_fit_are_named(change, message):
    trainer = support.trainer(None, logger=False)
    trainer.datamodule = ChangedData(change)
    with pytest.raises(MisconfigurationException, match=message):
        read_contexts(trainer)


def test_modules_that_do_not_answer_are_named():
    with pytest.raises(MisconfigurationException, match=r"\(12, 7\).*expected logits \(12, 4\)"):
        measured(Pairs(7))
    with pytest.raises(MisconfigurationException, match=r"Foreign was called with contexts of sha"):
        measured(support.Foreign())


def test_a_resumed_run_reads_the_contexts_of_its_seed():
    """A datamodule gets its seed back after ``setup``, before the first measurement."""
    data = support.Data()
    callback, trainer, module = ExactDivergence(), support.trainer(None, logger=False), Pairs()
    trainer.datamodule = data
    callback.prepare(trainer, module)
    data.contexts = lambda: (*support.Data.contexts(data)[:2], torch.full((12, 4), 0.25))
    callback.begin(trainer, module)
    assert callback.measure(module)["kl_uniform"] == pytest.approx(0)
