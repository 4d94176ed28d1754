"""Weights whose names Hugging Face translates when it loads them."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lit_credit.utils.random_state import preserved_rng

__all__ = ["translated"]


def translated(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under the names of a module, as Hugging Face translates them.

    Its version 5 saves many models under the names of earlier versions: ``embed_out.weight`` for
    ``lm_head.weight`` of a GPT-NeoX. A second model is built for this, and let go after the call.

    Args:
        module: a model of Hugging Face, or a module that holds one.
        tensors: the tensors by their names in the file.

    Returns:
        The tensors; empty if there is no such model, or if Hugging Face lacks some of its weights.
    """
    named = ((n, child) for n, child in module.named_modules() if _is_pretrained(child))
    name, model = next(named, ("", None))
    if model is None:
        return {}
    try:
        with preserved_rng(), _silent():
            made, found = type(model).from_pretrained(
                None, config=model.config, state_dict=dict(tensors), output_loading_info=True
            )
    except Exception:  # of many types; what does not fit is told by names and shapes
        return {}
    if any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        return {}
    return {f"{name}.{key}".lstrip("."): value for key, value in made.state_dict().items()}


def _is_pretrained(module: nn.Module) -> bool:
    names = [(kind.__module__.split(".")[0], kind.__name__) for kind in type(module).__mro__]
    return ("transformers", "PreTrainedModel") in names


@contextmanager
def _silent() -> Iterator[None]:
    """No progress bar and no report of Hugging Face inside the ``with``."""
    logging: Any = sys.modules["transformers.utils.logging"]
    verbosity, shows_progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_progress:
            logging.enable_progress_bar()
