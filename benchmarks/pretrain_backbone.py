"""Pre-trains a small residual backbone on the eight classes of CIFAR-10 that are no cat or dog.

It stands in for the paper's VGG16 on ImageNet, which can't be had here: 0.6 million parameters,
32×32 images. No image of a cat or a dog is shown to it, so the transfer to cats-vs-dogs is honest.
It is *not* VGG16, and no figure of it compares with the paper's.

SGD with momentum and a one-cycle learning rate; crops shifted by up to 4 pixels, flips. The test
images of the eight classes say how well it did; nothing is chosen on them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from common import say
from rankwise.data import ImageSet, load_images
from rankwise.heads.backbones import SmallResNet, save_backbone
from rankwise.heads.features import to_float_batch

LEFT_OUT = ("cat", "dog")
BATCH = 128
DEFAULT_OUT = Path(__file__).parent / "artifacts" / "small-resnet-cifar8.safetensors"


def main() -> None:
    """Train, test, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="../shared/data", help="folder of the data sets")
    parser.add_argument(
        "--out", type=Path, help="default benchmarks/artifacts/…, with --quick none"
    )
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--quick", action="store_true", help="smoke test, on embedded digits")
    args = parser.parse_args()
    source = "digits" if args.quick else str(Path(args.data) / "cifar10")
    train, test = (without(load_images(source, split=s), LEFT_OUT) for s in ("train", "test"))
    begin = time.perf_counter()
    network = fit(train, 1 if args.quick else args.epochs, args.seed)
    seconds = time.perf_counter() - begin
    accuracy = float(np.mean(predictions(network, test.images) == test.labels))
    names = [n for n in train.class_names if n not in LEFT_OUT]
    record = {
        "architecture": "small-resnet",
        "n_classes": len(names),
        "options": {},
        "class_names": names,
        "trained_on": f"{train.name} without {' and '.join(LEFT_OUT)}, {len(train)} images",
        "fingerprint": train.fingerprint,
        "epochs": args.epochs,
        "seed": args.seed,
        "test_accuracy": accuracy,
        "seconds": round(seconds, 1),
    }
    out = args.out or (None if args.quick else DEFAULT_OUT)
    if out is not None:
        save_backbone(network, out, record)
    print(
        f"{out or 'not written'}: {100 * accuracy:.2f}% of {len(test)} test images, {seconds:.0f} s"
    )


def without(images: ImageSet, names: tuple[str, ...]) -> ImageSet:
    """The samples of the other classes, their labels counted anew."""
    kept = [i for i, name in enumerate(images.class_names) if name not in names]
    rows = np.flatnonzero(np.isin(images.labels, kept))
    return ImageSet.from_arrays(
        images.images[rows],
        np.searchsorted(kept, images.labels[rows]),
        class_names=[images.class_names[i] for i in kept],
        name=images.name,
    )


def fit(train: ImageSet, epochs: int, seed: int) -> SmallResNet:
    """The trained network; bfloat16 products where the processor has them."""
    torch.manual_seed(seed)
    network = SmallResNet(train.n_classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = len(train) // BATCH * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps, pct_start=0.2)
    images = torch.as_tensor(train.images)
    labels = torch.as_tensor(train.labels)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        network.train()
        begin, total = time.perf_counter(), 0.0
        order = torch.randperm(len(labels), generator=generator)
        for rows in order[: len(order) // BATCH * BATCH].split(BATCH):
            batch = augmented(to_float_batch(images[rows]), generator)
            batch = batch.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(network(batch), labels[rows], label_smoothing=0.1)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.perf_counter() - begin
        say(f"epoch {epoch + 1}/{epochs}: loss {total * BATCH / len(order):.3f}, {seconds:.0f} s")
    return network.eval()


def augmented(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Three channels; half the batch flipped, the whole of it shifted by up to 4 pixels."""
    batch = batch.expand(-1, 3, -1, -1)
    flipped = torch.rand(len(batch), 1, 1, 1, generator=generator) < 0.5
    batch = torch.where(flipped, batch.flip(-1), batch)
    side = batch.shape[-1]
    pad = side // 8
    padded = F.pad(batch, (pad,) * 4, mode="reflect")
    down, right = torch.randint(2 * pad + 1, (2, len(batch), 1), generator=generator)
    rows = (down + torch.arange(side))[:, None, :, None]
    columns = (right + torch.arange(side))[:, None, None, :]
    sample = torch.arange(len(batch))[:, None, None, None]
    return padded[sample, torch.arange(3)[None, :, None, None], rows, columns]


def predictions(network: SmallResNet, images: np.ndarray) -> np.ndarray:
    """Positions of the classes."""
    found = []
    with torch.inference_mode():
        for first in range(0, len(images), 512):
            batch = to_float_batch(images[first : first + 512]).expand(-1, 3, -1, -1)
            found.append(network(batch).argmax(dim=1).numpy())
    return np.concatenate(found)


if __name__ == "__main__":
    main()
