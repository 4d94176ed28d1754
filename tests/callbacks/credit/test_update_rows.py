"""Which parameters CreditAlignment compares."""

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_credit.callbacks import CreditAlignment
from lit_credit.models import MLP
from lit_credit.rules import (
    DirectKolenPollack,
    ForwardGradient,
    KolenPollack,
    LocalLosses,
    TargetPropagation,
)
from lit_credit.tasks import Classification
from tests.support import loader, quiet_trainer


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *[(KolenPollack, {}), (DirectKolenPollack, {}), (LocalLosses, {"loss": "pred"})],
        (TargetPropagation, {}),
    ],
)
def test_parameters_that_the_loss_does_not_reach_have_no_row(kind, options, tmp_path):
    rule = kind(MLP(20, [8, 6], num_classes=5), Classification(5), **options)
    watch = CreditAlignment(figure=False)
    trainer = quiet_trainer(max_epochs=1, callbacks=[watch], default_root_dir=tmp_path)
    trainer.fit(rule, loader(), loader())
    rows = {tag for tag in watch.history.rows[-1]["values"] if tag.startswith("credit/update/")}
    own = [n for n, _ in rule.net.named_parameters() if "feedback" not in n]
    assert rows == {f"credit/update/{name}" for name in own}


def test_a_rule_that_credits_parameters_alone_is_compared_by_its_updates(tmp_path):
    rule = ForwardGradient(MLP(20, [8], num_classes=5), Classification(5), perturb="weights")
    watch = CreditAlignment()
    trainer = quiet_trainer(max_epochs=1, callbacks=[watch], default_root_dir=tmp_path)
    trainer.fit(rule, loader(), loader())
    tags = watch.history.rows[-1]["values"]
    assert set(tags) == {f"credit/update/{name}" for name, _ in rule.net.named_parameters()}
    assert (tmp_path / "figures" / "credit_alignment.png").exists()

    alone = CreditAlignment(parameters=False)
    trainer = quiet_trainer(max_epochs=1, callbacks=[alone], default_root_dir=tmp_path)
    with pytest.raises(MisconfigurationException, match=r"`credit\(batch\)`"):
        trainer.fit(rule, loader(), loader())
