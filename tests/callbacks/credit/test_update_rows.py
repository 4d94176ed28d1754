"""Which parameters CreditAlignment compares."""

import pytest

from lit_credit.callbacks import CreditAlignment
from lit_credit.models import MLP
from lit_credit.rules import DirectKolenPollack, KolenPollack, LocalLosses
from lit_credit.tasks import Classification
from tests.support import loader, quiet_trainer


@pytest.mark.parametrize(
    ("kind", "options"),
    [(KolenPollack, {}), (DirectKolenPollack, {}), (LocalLosses, {"loss": "pred"})],
)
def test_parameters_that_the_loss_does_not_reach_have_no_row(kind, options):
    rule = kind(MLP(20, [8], num_classes=5), Classification(5), **options)
    watch = CreditAlignment(figure=False)
    quiet_trainer(max_epochs=1, callbacks=[watch]).fit(rule, loader(), loader())
    rows = {tag for tag in watch.history.rows[-1]["values"] if tag.startswith("credit/update/")}
    own = [n for n, _ in rule.net.named_parameters() if "feedback" not in n]
    assert rows == {f"credit/update/{name}" for name in own}
