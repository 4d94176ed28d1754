"""MNIST, FashionMNIST and CIFAR10, on tiny files in the real format, and without a network."""

import gzip
import hashlib
import pickle
import re
import socket
import struct
import threading
import time

import numpy as np
import pytest
import torch
from torchvision import datasets

from lit_credit.datamodules import CIFAR10, MNIST, FashionMNIST
from lit_credit.datamodules.network import any_reachable
from tests.support.processes import HANG

RNG = np.random.default_rng(0)
ALL = [MNIST, FashionMNIST, CIFAR10]


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "create_connection", refuse)


def write_mnist(folder):
    """Write the four files of the idx format; return what they say."""
    folder.mkdir(parents=True)
    splits = []
    for name, n in (("train", 20), ("t10k", 7)):
        images = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = RNG.integers(0, 10, n, dtype=np.uint8)
        header = struct.pack(">IIII", 0x803, n, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 0x801, n)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
        splits.append((images[:, None], labels))
    return splits


def write_cifar10(root, monkeypatch):
    """Write batches of four samples, and let torchvision expect their md5."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    splits = []

    def write(name, content):
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    for attribute in ("train_list", "test_list"):
        images, labels, listed = [], [], []
        for name, _ in getattr(datasets.CIFAR10, attribute):
            images.append(RNG.integers(0, 256, (4, 3072), dtype=np.uint8))
            labels.append(RNG.integers(0, 10, 4).tolist())
            listed.append(write(name, {"data": images[-1], "labels": labels[-1]}))
        monkeypatch.setattr(datasets.CIFAR10, attribute, listed)
        splits.append((np.concatenate(images).reshape(-1, 3, 32, 32), np.concatenate(labels)))
    name, md5 = write("batches.meta", {"label_names": list("abcdefghij")})
    meta = {"filename": name, "key": "label_names", "md5": md5}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return splits


def write(cls, root, monkeypatch):
    if cls is CIFAR10:
        return write_cifar10(root, monkeypatch)
    return write_mnist(root / cls.__name__ / "raw")


@pytest.mark.parametrize("cls", ALL)
def test_reads_what_the_files_say(cls, tmp_path, monkeypatch, offline):
    splits = write(cls, tmp_path, monkeypatch)
    data = cls(root=str(tmp_path), batch_size=4, val_split=0)
    data.prepare_data()
    for (images, labels), (x, y) in zip(splits, data.splits[:2], strict=True):
        np.testing.assert_array_equal(x.numpy(), images)
        np.testing.assert_array_equal(y.numpy(), labels)
        assert x.shape[1:] == cls.shape
    x, y = next(iter(data.val_dataloader()))
    mean, std = (np.array(value).reshape(-1, 1, 1) / 255 for value in (cls.mean, cls.std))
    np.testing.assert_allclose(x.numpy(), (splits[1][0] / 255 - mean) / std, rtol=1e-4, atol=1e-5)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64


def test_cifar10_is_augmented_in_training_by_default(tmp_path, monkeypatch):
    write(CIFAR10, tmp_path, monkeypatch)
    loader = CIFAR10(root=str(tmp_path)).train_dataloader()
    plain = CIFAR10(root=str(tmp_path), augment=False).train_dataloader()
    (x, y), (x_plain, y_plain) = next(iter(loader)), next(iter(plain))
    assert torch.equal(y, y_plain)
    assert not torch.equal(x, x_plain)
    assert not torch.equal(x.sum((1, 2, 3)), next(iter(loader))[0].sum((1, 2, 3)))


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("download", [True, False])
def test_missing_data_without_a_network_is_one_clear_error(cls, download, tmp_path, offline):
    data = cls(root=str(tmp_path), download=download)
    with pytest.raises(ValueError, match=f"^{cls.__name__}: ") as raised:
        data.prepare_data()
    message = str(raised.value)
    assert f"`root`='{tmp_path}'" in message
    assert "Digits" in message
    assert all(f"{path}  (missing)" in message for path in data.files())
    assert ("`download` is False" if not download else data.urls()[0]) in message
    with pytest.raises(ValueError, match="missing"):
        data.setup()


@pytest.mark.parametrize("cls", ALL)
def test_a_network_that_hangs_is_given_up(cls, tmp_path, monkeypatch):
    monkeypatch.setattr("lit_credit.datamodules.network.PATIENCE", 0.1)
    release, ended = threading.Event(), threading.Event()

    def hang(*_, **__):
        release.wait(HANG)
        ended.set()
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "create_connection", hang)
    with pytest.raises(ValueError, match="no connection to http"):
        cls(root=str(tmp_path)).prepare_data()
    assert not ended.is_set()  # the error came while every connection still hung
    release.set()


def test_a_slow_line_is_waited_for(monkeypatch):
    """It answers after a second and a half, which was too late once."""

    def answer(*_, **__):
        time.sleep(1.5)
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", answer)
    assert any_reachable(["http://localhost:1/"])


def test_a_failed_download_is_the_same_error(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("404")

    monkeypatch.setattr("lit_credit.datamodules.torchvision_images.any_reachable", lambda _: True)
    monkeypatch.setattr(datasets.CIFAR10, "download", fail)
    with pytest.raises(ValueError, match=r"(?s)CIFAR10: .*404.*missing.*Digits"):
        CIFAR10(root=str(tmp_path)).prepare_data()


@pytest.mark.parametrize("cls", ALL)
def test_a_damaged_file_is_named(cls, tmp_path, monkeypatch, offline):
    write(cls, tmp_path, monkeypatch)
    data = cls(root=str(tmp_path))
    damaged = next(iter(data.files()))
    damaged.write_bytes(damaged.read_bytes()[:-5])
    with pytest.raises(ValueError, match=rf"(?s)^{cls.__name__}: .*{re.escape(str(damaged))}"):
        data.setup()
    if cls is CIFAR10:
        with pytest.raises(ValueError, match=rf"{re.escape(str(damaged))}  \(damaged"):
            data.prepare_data()


def test_archives_put_there_by_hand_are_unpacked_without_a_network(tmp_path, monkeypatch, offline):
    splits = write_mnist(tmp_path / "MNIST" / "raw")
    data, resources = MNIST(root=str(tmp_path), val_split=0), []
    for path in data.files():
        archive = path.with_name(path.name + ".gz")
        archive.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        resources.append((archive.name, hashlib.md5(archive.read_bytes()).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    data.prepare_data()
    np.testing.assert_array_equal(data.splits[0][0].numpy(), splits[0][0])


def test_reachable_means_that_a_port_answers(monkeypatch):
    monkeypatch.setattr("lit_credit.datamodules.network.getproxies", dict)
    with socket.create_server(("localhost", 0)) as server:
        url = f"http://localhost:{server.getsockname()[1]}/x"
        assert any_reachable(["http://localhost:1/", url], seconds=HANG)
        monkeypatch.setattr("lit_credit.datamodules.network.getproxies", lambda: {"https": url})
        assert any_reachable(["https://example.invalid/data"], seconds=HANG)
    assert not any_reachable(["http://localhost:1/", "https://example.invalid/data"])


def test_mnist_is_jittered_by_two_pixels(tmp_path, monkeypatch):
    write(MNIST, tmp_path, monkeypatch)
    data = MNIST(root=str(tmp_path), augment=True, max_shift=2, mirror=False, normalize="none")
    plain = MNIST(root=str(tmp_path), normalize="none")
    for image, original in zip(
        next(iter(data.train_dataloader()))[0], next(iter(plain.train_dataloader()))[0], strict=True
    ):
        padded = torch.nn.functional.pad(original, (2,) * 4)
        windows = [padded[:, y : y + 28, x : x + 28] for y in range(5) for x in range(5)]
        assert any(torch.equal(image, window) for window in windows)
    with pytest.raises(ValueError, match=r"`max_shift` is 2 .*`augment` is False"):
        MNIST(root=str(tmp_path), max_shift=2)
