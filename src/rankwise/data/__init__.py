"""Reading labelled images: from the hub, parquet, folders, IDX, ``.npz``, memory, or scikit-learn.

How to add a data source: write a class with the members of `rankwise.data.reader.Reader`
(four attributes, three methods, described there) and a line in `rankwise.data.opening.open_reader`
that recognises the source. Splits, hold-outs, limits, decoding, resizing, skipping and
fingerprints are the same code for every source.
"""

from rankwise.data.imageset import ImageSet
from rankwise.data.load import load_images, read_image
from rankwise.data.repeats import Repeats, one_source_each, repeats_between
from rankwise.data.split import check_no_shared_sources, hold_out_by_source, stratified_limit

__all__ = [
    "ImageSet",
    "Repeats",
    "check_no_shared_sources",
    "hold_out_by_source",
    "load_images",
    "one_source_each",
    "read_image",
    "repeats_between",
    "stratified_limit",
]
