"""Write a classifier as a C header in three precisions: bytes on a watch, and what rounding costs.

The rounded weights are run by numpy here; `rankwise export DIR --format c --check SOURCE` compiles
the header and compares.
"""

from __future__ import annotations

from rankwise import QuadraticClassifier, load_images
from rankwise.export import PRECISIONS, to_graph
from rankwise.export.c_source import c_source
from rankwise.export.quantise import quantise
from rankwise.networks.graph import run


def main() -> None:
    """Print flash, RAM and accuracy for each precision."""
    train = load_images("digits", split="train")
    test = load_images("digits", split="test")
    model = QuadraticClassifier("windowed", n_units=100, n_subnets=2, max_iter=8)
    graph = to_graph(model.fit(train.images, train.labels))

    print("precision     flash    RAM  accuracy")
    for precision in PRECISIONS:
        source = c_source(graph, "digits", precision=precision)
        outputs = run(quantise(graph, precision).rounded(), test.images)
        accuracy = (model.classes_[outputs.argmax(axis=1)] == test.labels).mean()
        print(f"{precision:9} {source.flash_bytes:9,} {source.ram_bytes:6,}  {accuracy:.4f}")


if __name__ == "__main__":
    main()
