"""Data in files of one's own: images in folders, arrays in a file."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lit_credit.datamodules import ArrayFile, ImageFolder


def write_images(folder, n=5, size=(6, 4), classes=("cat", "dog")):
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(256, size=(*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def rows(loader):
    x, y = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(y)


def test_class_folders_are_split_by_class_and_normalised(tmp_path):
    write_images(tmp_path)
    data = ImageFolder(str(tmp_path), batch_size=3, val_split=0.2)
    data.setup()
    assert (data.num_classes, data.shape) == (2, (3, 6, 4))
    (x, y), (_, y_val) = rows(data.train_dataloader()), rows(data.val_dataloader())
    assert sorted(y.tolist()) == [0] * 4 + [1] * 4
    assert y_val.tolist() == [0, 1]
    assert x.mean((0, 2, 3)).abs().max() < 1e-5
    assert (x.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-4
    files = [np.array(Image.open(path)) for path in sorted(tmp_path.rglob("*.png"))]
    read = torch.cat([part[0] for part in data.splits[:2]]).permute(0, 2, 3, 1)
    assert sorted(map(str, files)) == sorted(str(image.numpy()) for image in read)
    again = ImageFolder(str(tmp_path), seed=7, val_split=0.2).splits
    assert torch.equal(again.val[0], data.splits.val[0])
    assert data.splits.test is data.splits.val
    with pytest.warns(DeprecationWarning, match="`val_fraction` of ImageFolder is `val_split` now"):
        former = ImageFolder(str(tmp_path), val_split=0, val_fraction=0.2)
    assert all(map(torch.equal, former.splits.train, data.splits.train))
    assert former.mean == data.mean


FOLDERS = {
    # The folders, val_split; images for training, validation and testing; what the data say.
    ("train", "val"): (0.1, (6, 4, 4), (False, False)),
    ("train", "val", "test"): (0.1, (6, 4, 6), (True, False)),
    ("train", "validation", "test"): (0, (6, 4, 6), (True, False)),
    ("train", "test"): (0.3, (4, 2, 6), (True, False)),
    ("train", "test", ""): (0, (6, 6, 6), (False, True)),
    ("train",): (0.3, (4, 2, 2), (False, False)),
}
SIZES = {"train": (3, (6, 4)), "val": (2, (5, 5)), "validation": (2, (5, 5)), "test": (3, (9, 9))}


@pytest.mark.parametrize("folders", FOLDERS, ids=" ".join)
def test_folders_are_the_splits(tmp_path, folders):
    val_split, sizes, said = FOLDERS[folders]
    for name in filter(None, folders):
        write_images(tmp_path / name, *SIZES[name])
    data = ImageFolder(str(tmp_path), size=8, mode="L", val_split=val_split)
    assert tuple(len(labels) for _, labels in data.splits) == sizes
    assert {images.shape[1:] for images, _ in data.splits} == {(1, 8, 8)}
    for n, (_, labels) in zip(sizes, data.splits, strict=True):
        assert labels.tolist() == [0] * (n // 2) + [1] * (n // 2)
    assert (data.has_test_data, data.validates_on_test_data) == said
    loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert tuple(len(rows(loader)[1]) for loader in loaders) == sizes


@pytest.mark.parametrize("folder", ["", "train"])
def test_no_validation_split_and_no_folder_for_it_is_refused(tmp_path, folder):
    write_images(tmp_path / folder)
    with pytest.raises(ValueError, match=r"`val_split` is 0, but .* has no folder .* such as 0\.1"):
        ImageFolder(str(tmp_path), val_split=0).setup()


def test_two_processes_see_the_batches_of_one(tmp_path):
    write_images(tmp_path)

    def first(rank, world_size):
        data = ImageFolder(str(tmp_path), batch_size=4, seed=3, augment=True)
        data.trainer = SimpleNamespace(
            global_rank=rank, world_size=world_size, lightning_module=None
        )
        return next(iter(data.train_dataloader()))

    for whole, *parts in zip(first(0, 1), first(0, 2), first(1, 2), strict=True):
        assert torch.equal(whole, torch.cat(parts))


def empty(folder):
    (folder / "cat").mkdir()


def different_classes(folder):
    write_images(folder / "train")
    write_images(folder / "val", classes=("cat", "cow"))


def different_sizes(folder):
    write_images(folder, classes=("cat",))
    write_images(folder, size=(5, 5), classes=("dog",))


def broken(folder):
    write_images(folder)
    (folder / "cat" / "2.png").write_bytes(b"no image")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "is not a folder with one folder of images per class"),
        (empty, "is not a folder with one folder of images per class"),
        (different_classes, r"has the classes \['cat', 'dog'\], .* has \['cat', 'cow'\]"),
        (different_sizes, r"\(6, 4\) and \(5, 5\) pixels .*Set `size`"),
        (broken, "2.png cannot be read"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(ValueError, match=message):
        ImageFolder(str(tmp_path)).setup()


# Arrays


@pytest.fixture
def arrays(tmp_path):
    rng = np.random.default_rng(0)
    found = {"x": rng.standard_normal((10, 3)), "y": np.arange(10, dtype=np.int32)}
    np.savez(tmp_path / "data.npz", **found)
    torch.save({k: torch.from_numpy(v) for k, v in found.items()}, tmp_path / "data.pt")
    return found


@pytest.mark.parametrize("name", ["data.npz", "data.pt"])
def test_arrays_become_batches(tmp_path, arrays, name):
    data = ArrayFile(str(tmp_path / name), ["x", "y"], batch_size=4)
    (x, y), (x_val, y_val) = rows(data.train_dataloader()), rows(data.val_dataloader())
    assert (x.dtype, y.dtype, len(y), len(y_val)) == (torch.float32, torch.int64, 8, 2)
    assert sorted([*y.tolist(), *y_val.tolist()]) == list(range(10))
    for one, number in zip([*x, *x_val], [*y, *y_val], strict=True):
        np.testing.assert_allclose(one, arrays["x"][number], rtol=1e-6)


def test_a_second_file_is_for_validation(tmp_path, arrays):
    np.savez(tmp_path / "val.npz", x=arrays["x"][:3])
    files = [str(tmp_path / name) for name in ("data.npz", "val.npz")]
    data = ArrayFile(files[0], ["x"], val_file=files[1])
    assert [len(part[0]) for part in data.splits] == [10, 3, 3]
    assert not data.has_test_data


def test_a_file_for_testing_is_not_validated_on(tmp_path, arrays):
    np.savez(tmp_path / "test.npz", x=arrays["x"][:3], y=arrays["y"][:3])
    files = [str(tmp_path / name) for name in ("data.npz", "test.npz")]
    data = ArrayFile(files[0], ["x", "y"], test_file=files[1])
    assert [len(part[0]) for part in data.splits] == [8, 2, 3]
    assert rows(data.test_dataloader())[1].tolist() == [0, 1, 2]
    assert rows(data.predict_dataloader())[1].tolist() == [0, 1, 2]
    assert data.has_test_data


@pytest.mark.parametrize(
    ("file", "names", "message"),
    [
        ("none.npz", ["x"], "`file` is .*none.npz', which cannot be read: .*No such file"),
        ("text.npz", ["x"], "`file` is .*text.npz', which cannot be read"),
        ("data.npz", ["x", "z"], r"`names` is \['x', 'z'\], but .* holds x, y"),
        ("data.pt", [], r"`names` is \[\], but"),
        ("odd.npz", ["x", "y"], r"have \[10, 4\] samples"),
        ("one.pt", ["x"], "it holds Tensor, not a dict"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, arrays, file, names, message):
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "odd.npz", x=arrays["x"], y=arrays["y"][:4])
    torch.save(torch.zeros(3), tmp_path / "one.pt")
    with pytest.raises(ValueError, match=message):
        ArrayFile(str(tmp_path / file), names).setup()
