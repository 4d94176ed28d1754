"""The search for a GPU's driver is spared where there is no GPU, and only there."""

import os

import pytest
import torch

from lit_credit.rules.optimization import skip_device_search

NAME = "PYTORCH_NVML_BASED_CUDA_CHECK"


@pytest.mark.parametrize(("available", "after"), [(True, "1"), (False, "0")])
def test_the_driver_is_searched_for_only_where_it_may_be(available, after, monkeypatch):
    monkeypatch.setenv(NAME, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    skip_device_search()
    assert os.environ[NAME] == after
