"""What torch does at every step of an optimizer where there is no GPU."""

import os

import torch

__all__ = ["skip_device_search"]


def skip_device_search() -> None:
    """Spare each step of Adam and AdamW a search for the GPU's driver, where there is none.

    At every step they ask whether a GPU is available. Lightning sets an environment variable that
    makes torch look for the driver's library whenever it is asked, which takes 0.2 to 0.4 ms, as
    long as a step of a small net; it does so for the sake of processes forked after CUDA has
    started, of which there are none without a GPU.
    """
    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
