"""``rankwise augment`` and ``rankwise show``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankwise._files import expanded, json_text
from rankwise._seeds import checked_seed
from rankwise.cli._options import (
    Channels,
    Grey,
    ImageColumn,
    Json,
    LabelColumn,
    Size,
    SkipBad,
    SourcePattern,
    reading_of,
)
from rankwise.cli._output import say
from rankwise.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rankwise.lowrank import NormalEnergy, RandomLowRank


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
    from rankwise.data.source import Source
    from rankwise.data.telling import counts_line, part_lines
    from rankwise.lowrank import LowRankAugmenter, NormalEnergy, RandomLowRank
    from rankwise.lowrank.export import augment_files, check_format

    check_format(file_format)
    reading = reading_of(size, grey, skip_bad, source_pattern, channels)
    folder = expanded(source)
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
    kept = []
    if size is None and opened.survey().mixed:
        survey = opened.survey()
        kept = [
            f"images of {len(survey.sizes | survey.other_sizes)} sizes keep their own; --size "
            "brings them to one"
        ]
    for line in (counts_line(images), *part_lines(opened, images)):
        say(line, err=True)
    for note in dict.fromkeys((*kept, *(note for part in images for note in part.notes))):
        say(f"note: {note}", err=True)
    skipped = list(dict.fromkeys(line for part in images for line in part.skipped))
    for line in skipped:
        say(f"skipped {line}", err=True)
    images = [part for part in images if len(part)]
    summary = augment_files(images, augmenter, out, file_format)
    if as_json:
        typer.echo(json_text({"out": str(out), "skipped": len(skipped), **summary}))
        return
    say(f"{summary['originals']} originals and {summary['copies']} copies in {out}")
    same = summary["copies_equal_to_their_original"]
    if summary["copies"]:
        say(
            f"mean energy {summary['mean_energy']:.4f}, rank {summary['mean_rank']:.1f},"
            f" relative error {summary['mean_error']:.4f};"
            f" {same} cop{'y equals its' if same == 1 else 'ies equal their'} original"
        )


def show(
    source: Annotated[
        str,
        typer.Argument(
            help="An image file; or a set: a folder, digits, a hub id, an .npz file.",
            metavar="IMAGE|SET",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Picture to write: .png, .pdf, .svg …; or .html, a page.")
    ],
    energy: Annotated[
        float | None,
        typer.Option(
            help="Of every copy, of random ones the mean; default 0.975 for an image, the paper's, "
            "and 0.9 for a set, figure 3.1's."
        ),
    ] = None,
    energy_std: Annotated[
        float | None,
        typer.Option(help="Of random copies; default 0.025 for an image, 0.1 for a set."),
    ] = None,
    skip_threshold: Annotated[
        float | None,
        typer.Option(help="Share of a set's images that get no copy; default 0.8, figure 3.1's."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Images of a set, drawn with the seed; default 36.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            min=1, help="Shrink images to at most so many pixels a side; of a page default 240."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(callback=checked_seed, help="Of the random copies.")] = 42,
    skip_bad: SkipBad = False,
    as_json: Json = False,
) -> None:
    """Draw what an energy means for an image, or what augmentation makes of a set of images.

    Of an image: channels, growing ranks, random copies, singular values; as a page, with a slider
    that rebuilds it. Of a set: the first paper's figure 3.1, originals on the left and the same
    with low-rank copies on the right.
    """
    from rankwise.data.tree import has_image_ending
    from rankwise.lowrank import NormalEnergy, RandomLowRank
    from rankwise.lowrank.pages import MOST_PIXELS
    from rankwise.lowrank.sets import FIGURE_ENERGY, FIGURE_SKIPS

    path = expanded(source)
    if size is None and out.suffix.lower() == ".html":
        size = MOST_PIXELS
    if path.suffix.lower() != ".npz" and (path.is_file() or has_image_ending(path)):
        named = {
            "--skip-threshold": skip_threshold,
            "--limit": limit,
            "--skip-bad": skip_bad or None,
        }
        given = [name for name, value in named.items() if value is not None]
        if given:
            verb = "is" if len(given) == 1 else "are"
            raise RunError(
                f"{', '.join(given)} {verb} for a set of images, and {source} is one image"
            )
        law = NormalEnergy(
            0.975 if energy is None else energy, 0.025 if energy_std is None else energy_std
        )
        _show_image(path, out, law, size, seed, as_json)
        return
    transform = RandomLowRank(
        NormalEnergy(
            FIGURE_ENERGY.mean if energy is None else energy,
            FIGURE_ENERGY.std if energy_std is None else energy_std,
        ),
        skip_threshold=FIGURE_SKIPS if skip_threshold is None else skip_threshold,
        seed=seed,
    )
    _show_set(source, out, transform, limit or 36, size, seed, skip_bad, as_json)


def _show_image(
    image: Path, out: Path, law: NormalEnergy, size: int | None, seed: int, as_json: bool
) -> None:
    import numpy as np

    from rankwise.lowrank import low_rank_approximation, spectrum
    from rankwise.lowrank.pages import write_image_page
    from rankwise.lowrank.pictures import draw_image, save_picture
    from rankwise.lowrank.sets import colours_of
    from rankwise.lowrank.visibility import mean_change

    if out.exists() and out.samefile(image):
        raise RunError(f"{out} is the image itself; choose another file for the picture")
    pixels = colours_of(_read(image, size))
    copy, ranks = low_rank_approximation(
        pixels, energy=law.mean, channel_axis=-1, alpha=False, return_rank=True
    )
    change = mean_change(pixels, copy)
    if out.suffix.lower() == ".html":
        write_image_page(pixels, out, title=image.name, energy=law.mean)
    else:
        sheet = draw_image(pixels, energy=law.mean, energy_std=law.std, seed=seed)
        save_picture(sheet, out, title=image.name)
    sigma = spectrum(pixels, channel_axis=-1, alpha=False)
    if as_json:
        say(
            json_text(
                {
                    "image": str(image),
                    "out": str(out),
                    "shape": list(pixels.shape),
                    "energy": law.mean,
                    "ranks": ranks.tolist(),
                    "mean_change": change,
                    "singular_values": np.round(sigma, 6).tolist(),
                }
            )
        )
        return
    listed = "/".join(map(str, ranks.tolist()))
    say(
        f"{out}: energy {law.mean:g} keeps rank {listed} of {sigma.shape[-1]}"
        f" at {pixels.shape[0]}×{pixels.shape[1]} pixels;"
        f" a copy differs by {change:.2f} of 255 on average"
    )


def _show_set(
    source: str,
    out: Path,
    transform: RandomLowRank,
    limit: int,
    size: int | None,
    seed: int,
    skip_bad: bool,
    as_json: bool,
) -> None:
    from rankwise.lowrank.pages import write_set_page
    from rankwise.lowrank.pictures import draw_set, save_picture
    from rankwise.lowrank.sets import augmented_set, law_of

    names, images = _some_images(source, limit, size, seed, skip_bad)
    if any(out.exists() and Path(name).exists() and out.samefile(name) for name in names):
        raise RunError(f"{out} is one of the images; choose another file for the picture")
    drawn = augmented_set(images, transform=transform)
    if out.suffix.lower() == ".html":
        write_set_page(drawn, out, title=source)
    else:
        save_picture(draw_set(drawn), out)
    made = [copy for copy in drawn.drawn if copy.energy is not None]
    if as_json:
        copies = [
            {"image": name, "energy": copy.energy, "ranks": copy.ranks and list(copy.ranks)}
            for name, copy in zip(names, drawn.drawn, strict=True)
        ]
        say(json_text({"source": source, "out": str(out), **transform.to_dict(), "images": copies}))
        return
    say(f"{out}: {len(images)} images, of which {len(made)} are copies; {law_of(transform)}")


def _some_images(
    source: str, limit: int, size: int | None, seed: int, skip_bad: bool
) -> tuple[list[str], list[NDArray[np.uint8]]]:
    """Some images of a set with their names: a folder's image files, labelled or not, as they are.

    Whatever else is a source is read as for training.
    """
    import numpy as np
    from PIL import Image

    from rankwise.errors import DataError

    folder = expanded(source)
    files = _image_files(folder) if folder.is_dir() else []
    if files:
        found: dict[int, NDArray[np.uint8]] = {}
        for i in np.random.default_rng(seed).permutation(len(files)):
            if len(found) == limit:
                break
            try:
                found[int(i)] = _read(files[i], size)
            except DataError as error:
                if not skip_bad:
                    raise
                say(f"skipped {error}", err=True)
        if not found:
            raise DataError(f"{source}: no image of the {len(files):,} files can be read")
        return [str(files[i]) for i in sorted(found)], [found[i] for i in sorted(found)]
    from rankwise.data import load_images

    how = "skip" if skip_bad else "raise"
    read = load_images(source, "all", limit=limit, seed=seed, on_error=how, progress=True)
    images = list(read.images)
    if size is not None:
        for i, pixels in enumerate(images):
            picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
            picture.thumbnail((size, size))
            images[i] = np.asarray(picture)
    return [str(name) for name in read.source_ids], images


def _image_files(folder: Path) -> list[Path]:
    from rankwise.data.tree import has_image_ending, is_litter

    found = [
        path
        for path in sorted(folder.rglob("*"))
        if has_image_ending(path)
        and not any(
            part.startswith(".") or is_litter(part) for part in path.relative_to(folder).parts
        )
    ]
    for path in found:
        if path.is_symlink() and not path.exists():
            say(f"note: {path} is left out: its link leads nowhere", err=True)
    return [path for path in found if path.is_file()]


def _read(path: Path, size: int | None) -> NDArray[np.uint8]:
    """An image as training reads it: upright, alpha laid on a ground, the bits that it uses."""
    import numpy as np
    from PIL import Image

    from rankwise.data import decode, read_image
    from rankwise.errors import DataError

    try:
        with decode.without_pillows_warnings():
            header = decode.header_of(path)
    except decode.BadImageError as error:
        raise DataError(f"{path} can't be read as an image: {error}") from None
    if header.pages:
        say(f"note: {path} holds several pictures: the first is read", err=True)
    shape = (header.height, header.width) if header.grey else (header.height, header.width, 3)
    pixels = read_image(path, image_shape=shape)
    if size is not None:
        picture = Image.fromarray(pixels)
        picture.thumbnail((size, size))
        pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels
