"""Experiments on credit assignment in neural networks, on Lightning."""

from lit_credit.former_names import import_former_paths

__all__ = ["__version__"]

__version__ = "0.1.0"

import_former_paths()
