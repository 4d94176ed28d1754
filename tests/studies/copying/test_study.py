"""The finding of the copying study: new patterns teach a rule, a few of them are memorized."""

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from lit_credit.callbacks import CircuitMatching, HeadBehaviour
from lit_credit.models import RotaryTransformer
from lit_credit.rules import BP
from lit_credit.studies.copying import Copying, PatternCopying


@pytest.fixture
def trained(tmp_path):
    def train(pool_size, steps):
        seed_everything(1, verbose=False)

        def optimizer(parameters):
            return torch.optim.AdamW(parameters, lr=3e-3, betas=(0.9, 0.98), weight_decay=5e-4)

        data = Copying(
            length=32,
            pattern_lengths=(5, 9),
            ood_pattern_length=12,
            burn_in=1,
            pool_size=pool_size,
            steps_per_epoch=steps,
        )
        module = BP(RotaryTransformer(), PatternCopying(), optimizer=optimizer)
        circuits = CircuitMatching(distances=[10, -10], figure=False)
        heads = HeadBehaviour(figure=False)
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            default_root_dir=tmp_path,
            callbacks=[circuits, heads],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, data)
        values = {tag: float(value) for tag, value in trainer.callback_metrics.items()}
        return values | circuits.history.rows[-1]["values"] | heads.history.rows[-1]["values"]

    return train


@pytest.mark.slow
def test_with_new_patterns_the_rule_is_learned_and_two_circuits_meet(trained):
    end = trained(pool_size=None, steps=1000)
    assert end["val/ood_error"] < 0.2
    assert end["circuits/z/best"] > 2
    assert end["circuits/mismatch/best"] < 0.15
    assert end["circuits/match_rms_sds/R10/best"] > 5
    assert end["circuits/embedding_rms/R10/mean"] < end["circuits/match_rms/R10/null"] - 0.05
    # The mask lets keys stand before their query only, and there they match best.
    assert end["circuits/D+10/mismatch/best"] < end["circuits/D-10/mismatch/best"]
    assert end["circuits/D+10/z/best"] > end["circuits/z/best"] > end["circuits/D-10/z/best"]
    assert end["behaviour/previous_token/blocks.0.attention.heads/H00"] > 0.4
    assert end["behaviour/induction/blocks.1.attention.heads/H00"] > 0.7


@pytest.mark.slow
def test_with_fifty_patterns_they_are_learned_by_heart(trained):
    end = trained(pool_size=50, steps=600)
    assert end["val/id_error"] < 0.1
    assert end["val/ood_error"] > 0.9
    assert end["circuits/z/best"] < 1.2
    assert end["circuits/mismatch/best"] > 0.7
    assert end["behaviour/induction/best"] < 0.2
