import pytest
import torch

from lit_credit.functional import noise_scale


def test_expected_norms_of_gaussian_gradients_give_signal_and_noise():
    signal, noise = 4.0, 30.0  # |g|^2 of a mean over b rows is |G|^2 + tr S / b in the mean
    small, big = (torch.tensor(signal + noise / rows) for rows in (2, 64))
    found = noise_scale(small, big, small_rows=2, big_rows=64)
    assert [part.item() for part in found] == pytest.approx([4, 30, 7.5])


def test_estimates_are_unbiased_and_equal_those_of_sample_statistics():
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    sd = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)
    found = []
    for _ in range(2000):
        x = mean + sd * torch.randn(8, 5, 3, generator=generator, dtype=torch.float64)
        groups = x.mean(1)
        small, big = groups.square().sum(1).mean(), x.mean((0, 1)).square().sum()
        one = noise_scale(small, big, small_rows=5, big_rows=40)
        assert one.noise.item() == pytest.approx(5 * groups.var(0).sum().item())
        found.append(one[:2])
    signal, noise = torch.tensor(found).mean(0)
    assert signal.item() == pytest.approx(5.25, abs=0.1)
    assert noise.item() == pytest.approx(14, abs=0.3)


def test_no_scale_without_a_signal():
    found = noise_scale(torch.tensor(8.0), torch.tensor(0.5), small_rows=1, big_rows=8)
    assert found.signal < 0
    assert found.scale.isnan()


@pytest.mark.parametrize(("small", "big"), [(0, 3), (3, 3), (4, 3)])
def test_sizes_that_do_not_fit_are_refused(small, big):
    with pytest.raises(ValueError, match=f"`small_rows` is {small} and `big_rows` is {big}"):
        noise_scale(torch.ones(2), torch.ones(2), small_rows=small, big_rows=big)
