"""Experiments on credit assignment in neural networks, on Lightning."""

__all__ = ["__version__"]

__version__ = "0.1.0"
