"""Writing a checkpoint of each net of an ensemble."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lit_credit.protocols import ModuleProtocol, NetProtocol, asked, offers
from lit_credit.runs.checkpoint_io import AtomicCheckpointIO
from lit_credit.trainer.trainer import run_folder
from lit_credit.utils.both_packages import Callback
from lit_credit.utils.ranges import check_range

__all__ = ["MemberCheckpoints"]


class MemberCheckpoints(Callback):
    """Writes ``members/M00_seed42.ckpt`` and so on into the run's folder when training ends.

    Each file holds weights like the checkpoint of a run of a single net. It loads with
    ``load_from_checkpoint``, or with ``--ckpt_path`` and a configuration of the single net. The
    module's ``net`` must have ``seeds`` and ``member_state(index)``, as
    :class:`lit_credit.models.Ensemble` has. Costs some milliseconds per member.

    Args:
        every_n_epochs: also write ``members/M00_seed42_step1000.ckpt`` and so on after every so
            many epochs; None writes at the end only.

    Raises:
        ValueError: if ``every_n_epochs`` is below 1, or, in ``setup``, if the net is not an
            ensemble.
    """

    def __init__(self, every_n_epochs: int | None = None) -> None:
        super().__init__()
        check_range(1, every_n_epochs=every_n_epochs)
        self.every_n_epochs = every_n_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the net has members."""
        net = asked(pl_module, ModuleProtocol.net, None)
        if not offers(net, NetProtocol.member_state, NetProtocol.seeds):
            raise ValueError(
                f"`net` is {type(net).__name__}, which has no `member_state` and `seeds`. Use an "
                "Ensemble, or leave MemberCheckpoints out."
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the members every ``every_n_epochs`` epochs."""
        if self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._write(trainer, pl_module, f"_step{trainer.global_step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the members."""
        self._write(trainer, pl_module, "")

    def _write(self, trainer: Trainer, pl_module: LightningModule, suffix: str) -> None:
        # Every rank must save, or ranks that save would wait for the others forever.
        root = trainer.strategy.broadcast(run_folder(trainer))
        if root is None:
            return
        folder = root / "members"
        whole = folder / "all.ckpt"
        trainer.save_checkpoint(whole, weights_only=True)
        if not trainer.is_global_zero:
            return
        checkpoint = torch.load(whole, weights_only=True)
        whole.unlink()
        net: Any = pl_module.net
        for index, seed in enumerate(net.seeds.tolist()):
            path = Path(folder, f"M{index:02d}_seed{seed}{suffix}.ckpt")
            AtomicCheckpointIO().save_checkpoint(
                _of_member(checkpoint, net.member_state(index)), path
            )


def _of_member(checkpoint: dict[str, Any], state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The checkpoint as a run of the single net would have written it."""
    found = dict(checkpoint)
    others = {k: v for k, v in checkpoint["state_dict"].items() if not k.startswith("net.")}
    found["state_dict"] = {**others, **{f"net.{name}": value for name, value in state.items()}}
    arguments = dict(checkpoint.get("hyper_parameters", {}))
    for name in ("net", "task"):
        # Replace the configured ensemble and its task by the single net and task inside them.
        inner = _argument(arguments.get(name), name)
        if inner is not None:
            arguments[name] = inner
    found["hyper_parameters"] = arguments
    return found


def _argument(configured: Any, name: str) -> Any:
    init_args = configured.get("init_args") if isinstance(configured, dict) else None
    return init_args.get(name) if isinstance(init_args, dict) else None
