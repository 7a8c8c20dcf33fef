"""``rankwise augment`` and ``rankwise show``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rankwise._seeds import checked_seed
from rankwise.cli._output import say
from rankwise.cli.model import (
    Channels,
    Grey,
    ImageColumn,
    Json,
    LabelColumn,
    Size,
    SkipBad,
    SourcePattern,
    _reading,
)
from rankwise.errors import RunError


def augment(
    source: Annotated[str, typer.Argument(help="digits, a hub id, a folder, an .npz file.")],
    out: Annotated[Path, typer.Argument(help="Folder for originals and copies.")],
    energy: Annotated[float, typer.Option(help="Mean share of Σσ that a copy keeps.")] = 0.975,
    energy_std: Annotated[float, typer.Option(help="Its standard deviation.")] = 0.025,
    skip_threshold: Annotated[
        float, typer.Option(help="Share of the images that get no copy.")
    ] = 0.8,
    file_format: Annotated[
        str, typer.Option("--format", help="parquet (the hub's layout) or folder.")
    ] = "parquet",
    reference: Annotated[
        str, typer.Option(help="Rank rule and channels of the paper, or of its notebook.")
    ] = "paper",
    split: Annotated[str, typer.Option(help="Split to augment: the training images.")] = "train",
    limit: Annotated[
        int | None, typer.Option(help="Images to read, drawn by class with the seed.")
    ] = None,
    size: Size = None,
    grey: Grey = False,
    channels: Channels = None,
    source_pattern: SourcePattern = None,
    skip_bad: SkipBad = False,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    workers: Annotated[int, typer.Option(help="Processes; -1 for one a core.")] = 1,
    seed: Annotated[
        int, typer.Option(callback=checked_seed, help="The same seed gives the same copies.")
    ] = 42,
    as_json: Json = False,
) -> None:
    """Write a data set with low-rank copies of part of its images, shuffled, and a log."""
    from rankwise.data.load import Source
    from rankwise.lowrank import LowRankAugmenter, NormalEnergy, RandomLowRank
    from rankwise.lowrank.export import augment_files, check_format

    check_format(file_format)
    reading = _reading(size, grey, skip_bad, source_pattern, channels)
    folder = Path(source).expanduser()
    if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
        raise RunError(f"{out} lies in {source}, which would hold its own copies; choose another")
    transform = RandomLowRank(
        NormalEnergy(energy, energy_std),
        skip_threshold=skip_threshold,
        reference=reference,
        seed=seed,
    )
    augmenter = LowRankAugmenter(transform, workers=workers, progress=True)
    opened = Source(source, image_column=image_column, label_column=label_column)
    options = {"limit": limit, "seed": seed, **reading}
    if size is None and opened.survey(progress=True).mixed:
        images = opened.read_by_size(split, **options)
    else:
        images = [opened.read(split, progress=True, **options)]
    for note in dict.fromkeys(note for part in images for note in part.notes):
        say(f"note: {note}", err=True)
    skipped = list(dict.fromkeys(line for part in images for line in part.skipped))
    for line in skipped:
        say(f"skipped {line}", err=True)
    images = [part for part in images if len(part)]
    summary = augment_files(images, augmenter, out, file_format)
    if as_json:
        typer.echo(json.dumps({"out": str(out), "skipped": len(skipped), **summary}))
        return
    say(f"{summary['originals']} originals and {summary['copies']} copies in {out}")
    if summary["copies"]:
        say(
            f"mean energy {summary['mean_energy']:.4f}, rank {summary['mean_rank']:.1f},"
            f" relative error {summary['mean_error']:.4f};"
            f" {summary['copies_equal_to_their_original']} copies equal their original"
        )


def show(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    out: Annotated[Path, typer.Option(help="Picture to write: .png, .pdf, .svg …")],
    energy: Annotated[float, typer.Option(help="Of the copies in the first picture.")] = 0.975,
    size: Annotated[
        int | None, typer.Option(min=1, help="Shrink the image to at most so many pixels a side.")
    ] = None,
    seed: Annotated[int, typer.Option(callback=checked_seed, help="Of the random copies.")] = 42,
    as_json: Json = False,
) -> None:
    """Draw what an energy means: channels, growing ranks, random copies, singular values."""
    import numpy as np

    from rankwise.lowrank import OptionError, rank_for_energy, spectrum
    from rankwise.lowrank.pictures import draw_image, save_picture

    if out.exists() and out.samefile(image):
        raise RunError(f"{out} is the image itself; choose another file for the picture")
    pixels = _read(image, size)
    if not 0 < energy <= 1:
        raise OptionError(f"energy must lie in (0, 1], not {energy}")
    save_picture(draw_image(pixels, energy=energy, seed=seed), out)
    sigma = spectrum(pixels, channel_axis=-1)
    ranks = np.asarray(rank_for_energy(sigma, energy)).tolist()
    if as_json:
        say(
            json.dumps(
                {
                    "image": str(image),
                    "out": str(out),
                    "shape": list(pixels.shape),
                    "energy": energy,
                    "ranks": ranks,
                    "singular_values": np.round(sigma, 6).tolist(),
                }
            )
        )
        return
    listed = "/".join(map(str, ranks))
    say(f"{out}: energy {energy:g} keeps rank {listed} of {sigma.shape[-1]}")


def _read(path: Path, size: int | None):  # type: ignore[no-untyped-def]
    import numpy as np
    from PIL import Image, ImageOps

    from rankwise.errors import DataError

    try:
        with Image.open(path) as file:
            file.load()
            upright = ImageOps.exif_transpose(file)
            if upright.mode.startswith(("I", "F")):  # 16 bits and more: to the range of 8
                deep = np.asarray(upright, dtype=np.float64)
                top = 65535.0 if upright.mode.startswith("I;16") else max(255.0, deep.max())
                upright = Image.fromarray(np.uint8(np.clip(deep, 0, top) * (255 / top) + 0.5))
            grey = upright.mode in ("1", "L", "LA")
            picture = upright.convert("L" if grey else "RGB")
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow's parsers raise nearly anything
        raise DataError(f"{path} can't be read as an image: {error}") from None
    if size is not None:
        picture.thumbnail((size, size))
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels
