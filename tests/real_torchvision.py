"""Backbones of torchvision as it really is, in an environment of its own (``make torchvision``).

torchvision imports only beside the release of torch that it was made for, and brings 5.5 GB. So
this is no part of the suite: an environment is made once (``--environment``), and this file runs
itself there. Weights can't be fetched everywhere: they are drawn, and laid where torchvision looks
for those that it has fetched before. What is checked is everything but their values.
"""

from __future__ import annotations

import argparse
import subprocess
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
NEEDED = ("torch==2.14.1", "torchvision==0.29.1")
NAMES = (
    "resnet18",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "squeezenet1_0",
    "shufflenet_v2_x0_5",
    "densenet121",
    "regnet_y_400mf",
    "convnext_tiny",
    "swin_t",
    "vit_b_32",
)
REFUSED = {
    "r3d_18": "isn't a classifier of images",
    "resnet999": "isn't one of torchvision's models",
}


def main() -> None:
    """Make the environment, and run the checks in it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, default=ROOT / ".venv-torchvision")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        check()
        return
    python = args.environment / "bin" / "python"
    if not python.exists():
        venv.create(args.environment, with_pip=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *NEEDED], check=True)
    subprocess.run([*pip, f"{ROOT}[torchvision,backbones,onnx]"], check=True)
    raise SystemExit(subprocess.run([python, __file__, "--inside"], check=False).returncode)


def check() -> None:
    """Every name: loaded, prepared as torchvision prepares, fitted, saved, read again."""
    import numpy as np
    import torch
    import torchvision
    from torchvision import models

    from rankwise import VarProHead
    from rankwise.errors import ModelFileError
    from rankwise.heads.backbones import load_backbone
    from rankwise.heads.features import extract_features

    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    images = rng.integers(0, 200, (24, 80, 96, 3)).astype(np.uint8)
    images[labels == 1, 20:60, 20:60] = 230
    with TemporaryDirectory() as home:
        torch.hub.set_dir(home)
        for name in NAMES:
            lay_weights(models, name, Path(home))
            backbone = load_backbone(f"torchvision/{name}")
            # Of torchvision's size before its crop, so that neither resizes: ours is bicubic.
            side = models.get_model_weights(name).DEFAULT.transforms().resize_size[0]
            square = rng.integers(0, 256, (4, side, side, 3)).astype(np.uint8)
            given = extract_features(backbone, square, device="cpu")
            expected = by_torchvision(models, name, backbone, square)
            far = np.abs(given - expected).max() / np.abs(expected).max()
            head = VarProHead(backbone=f"torchvision/{name}").fit(images, labels)
            folder = Path(home) / "head"
            head.save(folder)
            again = VarProHead.load(folder)
            same = np.array_equal(head.predict_proba(images), again.predict_proba(images))
            right = head.score(images, labels)
            print(f"{name:20} features {given.shape[1]:5}, off torchvision's by {far:.1e}")
            assert far < 1e-3, "cropped and normalised as torchvision does"
            assert same, "a head that is read again is the saved one"
            assert right > 0.9, right
        for name, reason in REFUSED.items():
            refused(lambda name=name: load_backbone(f"torchvision/{name}"), ValueError, reason)
        for path in (Path(home) / "checkpoints").glob("resnet18*"):
            path.write_bytes(path.read_bytes()[:999])
        refused(
            lambda: load_backbone("torchvision/resnet18"),
            ModelFileError,
            "the weights of torchvision/resnet18 that torchvision has fetched can't be read",
        )
    print("all as it should be")


def lay_weights(models, name: str, home: Path) -> None:  # type: ignore[no-untyped-def]
    """Drawn weights, where torchvision keeps those it has fetched."""
    import torch

    torch.manual_seed(1)
    network = models.get_model(name, weights=None)
    file = models.get_model_weights(name).DEFAULT.url.rsplit("/", 1)[1]
    (home / "checkpoints").mkdir(exist_ok=True)
    torch.save(network.state_dict(), home / "checkpoints" / file)


def by_torchvision(models, name: str, backbone, images):  # type: ignore[no-untyped-def]
    """Features after torchvision's own preparation of its weights."""
    import torch

    transforms = models.get_model_weights(name).DEFAULT.transforms()
    batch = torch.stack([transforms(torch.as_tensor(i).permute(2, 0, 1)) for i in images])
    with torch.inference_mode():
        found = backbone.bare().eval()(batch)
    found = found.mean(dim=(2, 3)) if found.ndim == 4 else found.flatten(1)
    return found.numpy()


def refused(call, kind: type[Exception], sentence: str) -> None:  # type: ignore[no-untyped-def]
    """The call must be refused with a sentence."""
    found = None
    try:
        call()
    except kind as error:
        found = str(error)
    assert sentence in str(found), found
    print(f"refused: {found}")


if __name__ == "__main__":
    main()
