"""Images per second: our CIFAR10 loader against torchvision's per-sample DataLoader.

Both crop (pad 4), flip and normalise, batch 128. Ours runs in the main process on one thread; the
other has two worker processes. Rounds alternate and the median counts. Each round's clock starts
after its first batch, which favours the other: its workers start, and prefetch, before that.

Run: python benchmarks/data_loading.py [--root DIR] [--rounds 5] [--batches 100]
Without --root the images are random bytes, which cost the same.

Measured with --root, --rounds 7 (torch 2.14, 2 cores shared with other work, load 5), two runs:
ours 113,000/s and 85,000/s, torchvision 4,200/s and 6,200/s, ratio 26.7 and 13.7.
"""

import argparse
from collections.abc import Callable, Iterable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from lit_credit.datamodules import CIFAR10

BATCH, WORKERS = 128, 2


class PerSample(Dataset[tuple[Tensor, int]]):
    """What torchvision's CIFAR10 does with its arrays: an image at a time, by way of PIL."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Any], Tensor]) -> None:
        self.images = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class Synthetic(CIFAR10):
    """CIFAR10 of random bytes."""

    def read(self, train: bool) -> tuple[Tensor, ...]:
        """Draw a split.

        Args:
            train: whether the larger of the two.

        Returns:
            Images and labels.
        """
        n, generator = 50_000 if train else 10_000, torch.Generator().manual_seed(0)
        images = torch.randint(256, (n, *self.shape), dtype=torch.uint8, generator=generator)
        return images, torch.randint(10, (n,), generator=generator)


def per_sample_loader(images: Tensor, labels: Tensor, batches: int) -> DataLoader[Any]:
    steps = [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([m / 255 for m in CIFAR10.mean], [s / 255 for s in CIFAR10.std]),
    ]
    dataset = PerSample(images, labels, transforms.Compose(steps))
    return DataLoader(
        dataset,
        batch_size=BATCH,
        # Just the batches of a round: its workers must not prefetch on while ours is timed.
        sampler=RandomSampler(dataset, num_samples=(batches + 1) * BATCH),
        num_workers=WORKERS,
        persistent_workers=True,
    )


def images_per_second(loader: Iterable[Any], batches: int) -> float:
    iterator = iter(loader)
    next(iterator)
    start = perf_counter()
    images = sum(len(next(iterator)[0]) for _ in range(batches))
    return images / (perf_counter() - start)


def main(root: str | None, rounds: int, batches: int) -> float:
    torch.set_num_threads(1)
    data = Synthetic(val_split=0) if root is None else CIFAR10(root, download=False, val_split=0)
    ours = data.train_dataloader()
    batches = min(batches, len(ours) - 2)  # a first one before the clock, no ragged last one
    images, labels = data.splits.train
    theirs = per_sample_loader(images, labels, batches)
    pairs: list[tuple[float, float]] = []
    for number in range(rounds):
        pairs.append((images_per_second(ours, batches), images_per_second(theirs, batches)))
        print(f"round {number}: ours {pairs[-1][0]:8.0f}/s, torchvision {pairs[-1][1]:8.0f}/s")
    fast, slow = (median(column) for column in zip(*pairs, strict=True))
    print(f"median:  ours {fast:8.0f}/s, torchvision {slow:8.0f}/s, ratio {fast / slow:.1f}")
    return fast / slow


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", help="folder that has cifar-10-batches-py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=100, help="of each loader, each round")
    main(**vars(parser.parse_args()))
