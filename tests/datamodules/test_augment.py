import numpy as np
import pytest
import torch

from lit_credit.datamodules import normalize, random_crop_flip


def all_variants(image, padding):
    """Every crop of the padded image and of its mirror image, as bytes, by an obvious loop."""
    _, height, width = image.shape
    variants = {}
    for mirrored in (False, True):
        padded = np.zeros((len(image), height + 2 * padding, width + 2 * padding), np.uint8)
        for y in range(height):
            for x in range(width):
                source = width - 1 - x if mirrored else x
                padded[:, y + padding, x + padding] = image[:, y, source]
        for dy in range(2 * padding + 1):
            for dx in range(2 * padding + 1):
                crop = padded[:, dy : dy + height, dx : dx + width]
                variants[crop.tobytes()] = (dy, dx, mirrored)
    return variants


@pytest.mark.parametrize(("shape", "padding"), [((3, 6, 5), 1), ((1, 8, 8), 2), ((3, 4, 4), 0)])
def test_every_image_becomes_one_of_its_variants_all_equally_often(shape, padding):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (20, *shape), dtype=np.uint8)
    n = 2 * (2 * padding + 1) ** 2
    counts = dict.fromkeys(np.ndindex(2 * padding + 1, 2 * padding + 1, 2), 0)
    generator = torch.Generator().manual_seed(0)
    repeats = torch.from_numpy(images).repeat(10 * n, 1, 1, 1)
    crops = random_crop_flip(repeats, generator, padding).numpy()
    assert crops.dtype == np.uint8
    variants = [all_variants(image, padding) for image in images]
    for i, crop in enumerate(crops):
        dy, dx, mirrored = variants[i % 20][crop.tobytes()]
        counts[dy, dx, int(mirrored)] += 1
    # 200 draws a variant expected, standard deviation 14.
    assert min(counts.values()) > 200 - 5 * 14
    assert max(counts.values()) < 200 + 5 * 14


def test_draws_come_from_the_generator_alone():
    images = torch.arange(8 * 3 * 32 * 32).view(8, 3, 32, 32).to(torch.uint8)
    before, original = torch.get_rng_state(), images.clone()
    first = random_crop_flip(images, torch.Generator().manual_seed(4))
    assert torch.equal(first, random_crop_flip(images, torch.Generator().manual_seed(4)))
    assert not torch.equal(first, random_crop_flip(images, torch.Generator().manual_seed(5)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, original)


def test_the_memory_format_does_not_matter():
    images = torch.randint(256, (8, 3, 6, 6), dtype=torch.uint8)
    crops = [
        random_crop_flip(x, torch.Generator().manual_seed(4))
        for x in (images, images.to(memory_format=torch.channels_last))
    ]
    assert torch.equal(*crops)


def test_normalize_is_per_channel():
    images = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    result = normalize(images, mean, std)
    assert result.dtype == torch.float32
    for channel in range(3):
        expected = (images[:, channel].double() - mean[channel]) / std[channel]
        torch.testing.assert_close(result[:, channel].double(), expected, rtol=1e-6, atol=1e-6)


def test_float_images_are_not_changed_in_place():
    images = torch.ones(1, 1, 2, 2)
    normalize(images, [1.0], [1.0])
    assert torch.equal(images, torch.ones(1, 1, 2, 2))


def test_a_jitter_only_shifts_and_leaves_the_draws_of_shifts_alone():
    images = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).repeat(50, 1, 1, 1)
    shifted = random_crop_flip(images, torch.Generator().manual_seed(0), 2, mirror=False)
    variants = all_variants(images[0].numpy(), 2)
    found = {variants[image.tobytes()] for image in shifted.numpy()}
    assert not any(mirrored for *_, mirrored in found)
    assert len(found) > 15
