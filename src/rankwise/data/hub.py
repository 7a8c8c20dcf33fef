"""Data sets of the Hugging Face hub, through `datasets` and its cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise.data.arrow import ArrowReader, ArrowSplit
from rankwise.data.reader import IntArray, contiguous_blocks
from rankwise.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa


class HubSplit:
    """One split of a `datasets.Dataset`, whose arrow file is memory-mapped."""

    def __init__(self, dataset: Any, where: str) -> None:
        self.features = dataset.features.to_dict()
        self.schema = dataset.features.arrow_schema
        self.n_rows = len(dataset)
        self._dataset = dataset.with_format("arrow")
        self._where = where

    def batches(
        self, columns: list[str], rows: IntArray
    ) -> Iterator[tuple[int, pa.RecordBatch | pa.Table]]:
        """Slice the arrow table; nothing is decoded, and columns cost nothing till used."""
        for wanted in contiguous_blocks(rows, 1024):
            start, stop = int(wanted[0]), int(wanted[-1]) + 1
            yield start, self._dataset[start:stop]

    def describe(self, row: int) -> str:
        """Data set, split and row."""
        return f"row {row} of {self._where}"


_PATIENCE = 5.0  # seconds for the hub's first answer; `datasets` alone asks six times, for 30 s


def _check_reachable(name: str) -> None:
    """Ask the hub once, so that a mistyped path isn't looked up for half a minute.

    Raises
    ------
    DataError
        If the hub knows no such set, or is out of reach and the set isn't in the cache.
    """
    import datasets
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    cache = Path(datasets.config.HF_DATASETS_CACHE) / name.replace("/", "___")
    if datasets.config.HF_HUB_OFFLINE or cache.exists() or Path(name).exists():
        return
    try:
        HfApi().dataset_info(name, timeout=_PATIENCE)
    except RepositoryNotFoundError as error:
        raise DataError(
            f"The hub has no open data set {name!r}, and no local folder has that name."
        ) from error
    except HfHubHTTPError:
        return  # it answers; what it says is told with the loading
    except Exception as error:  # of one of several libraries, by its version
        raise DataError(
            f"The hub can't be reached for {name!r}, and no local folder has that name ({error}); "
            "a local folder with the data set's parquet files works as well."
        ) from error


def hub_reader(
    name: str, image_column: str | None = None, label_column: str | None = None
) -> ArrowReader:
    """Reader of a data set of the Hugging Face hub, through the cache of `datasets`."""
    import datasets

    _check_reachable(name)
    try:
        found = datasets.load_dataset(name)
    except datasets.exceptions.DatasetNotFoundError as error:
        raise DataError(
            f"The hub has no open data set {name!r}, and no local folder has that name ({error})."
        ) from error
    except ConnectionError as error:
        raise DataError(
            f"The hub can't be reached for {name!r}, and no local folder has that name ({error}); "
            "a local folder with the data set's parquet files works as well."
        ) from error
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).split("\n")[0]
        raise DataError(f"The hub's data set {name!r} can't be loaded ({reason}).") from error
    parts: dict[str, ArrowSplit] = {}
    for split, dataset in found.items():
        for column, feature in dataset.features.items():
            if isinstance(feature, datasets.Image):
                dataset = dataset.cast_column(column, datasets.Image(decode=False))
        parts[str(split)] = HubSplit(dataset, f"{name} ({split})")
    return ArrowReader(name, name, parts, Path(), image_column, label_column)
