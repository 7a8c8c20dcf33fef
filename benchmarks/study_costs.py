"""Hours of every recorded study on one core, from a few updates of each network.

An update, a prediction and a degraded image of each data set and network are timed in processor
seconds of one thread, so a busy machine hardly matters, and multiplied by how many of them a study
has. Where arms train to a plateau it is the most that they may take.

    python benchmarks/study_costs.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path
from typing import Any

from common import Table, argument_parser, say, write_result
from rankwise._threads import one_thread
from rankwise.data import ImageSet, load_images
from rankwise.heads.head import VarProHead
from rankwise.nets import TrainingSettings, train_network, updates_per_pass
from rankwise.study import Study, conditions_of, narrowed, preset, read_study
from rankwise.study.degrade import KINDS, degrade
from rankwise.study.design_parts import Model
from rankwise.study.frozen import FeatureStore
from rankwise.study.networks import build_network
from rankwise.study.protocols import protocol_of
from studies import STUDIES

_UPDATES, _IMAGES = 3, 64


def main() -> None:
    """Time, multiply, print, write."""
    parser = argument_parser(__doc__, "study_costs", seeds=None)
    parser.add_argument("--only", nargs="+", choices=list(STUDIES), default=list(STUDIES))
    args = parser.parse_args()
    names = args.only[:1] if args.quick else args.only
    found: dict[Any, dict[str, float]] = {}
    rows, data = [], []
    with one_thread():
        for name in names:
            hours, cells = costs(args, name, found)
            say(f"{name}: {hours:.2f} h, {cells} cells")
            data.append({"study": name, "hours": hours, "cells": cells})
            rows.append([name, str(cells), _hours(hours), STUDIES[name].title])
    table = Table("Recorded studies by cost", ("study", "cells", "hours of one core", "what"), rows)
    print(table.text())
    write_result(
        args,
        "What each recorded study costs",
        [table],
        data,
        {"spread": f"one timing of {_UPDATES} updates and {_IMAGES} images of each network"},
        notes=(
            "Processor time of one thread. `python benchmarks/studies.py --only NAME --data "
            "../shared/data` runs a study; stopped, the same command goes on.",
            "VGG16 is timed with random weights; its study needs ImageNet's from a hub.",
        ),
    )


def _hours(hours: float) -> str:
    return f"{hours:.2f}" if hours < 1 else f"{hours:,.1f}"


def study_of(args: argparse.Namespace, name: str) -> Study:
    """The study that a recorded one's command line stands for."""
    here = Path(__file__).parent
    words = shlex.split(STUDIES[name].design.format(data=args.data, here=here))
    parser = argparse.ArgumentParser()
    parser.add_argument("design")
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--protocol")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seeds", default="")
    given = parser.parse_args(words)
    study = read_study(given.design) if given.design.endswith(".toml") else preset(given.design)
    return narrowed(
        study,
        data=dict(pair.split("=", 1) for pair in given.data),
        only=given.only,
        protocol=given.protocol,
        limit=given.limit,
        seeds=[int(seed) for seed in given.seeds.split(",")] if given.seeds else None,
    )


def costs(
    args: argparse.Namespace, name: str, found: dict[Any, dict[str, float]]
) -> tuple[float, int]:
    """Hours and cells of a study; `found` keeps timings for further ones."""
    study = study_of(args, name)
    protocol = protocol_of(study.protocol)
    wanted = study.degraded or protocol.degraded
    seconds, cells = 0.0, 0
    for condition in conditions_of(study):
        images = _images(study, condition.data_set)
        model = study.models[condition.model]
        key = (condition.data_set, study.data[condition.data_set].size, condition.model, name)
        unit = found.setdefault(key, _timed(model, images, study.batch_size))
        n_test = study.test_fraction * len(images)
        n_rest = len(images) - n_test
        copies = 0.0
        if condition.options.copies and not protocol.equal_updates:
            copies = 1 - condition.options.skip_threshold
        for stage, count in (("fold", study.folds), ("retrain", int(study.retrain))):
            share = (study.folds - 1) / study.folds if stage == "fold" else 1.0
            n = n_rest * share
            degraded = wanted == "all" or (wanted == "retrain" and stage == "retrain")
            seen = n_test * (1 + 25 * degraded) + (n_rest - n)
            if model.is_head_alone:
                own = unit["solve"]  # features are computed once an image, below
            else:
                passes = updates_per_pass(round(n * (1 + copies)), study.batch_size)
                epochs = condition.epochs * (1.0 if stage == "fold" else 0.7)
                own = epochs * (passes * unit["update"] + (n_rest - n) * unit["image"])
                own += seen * unit["image"]
                if model.is_transfer:
                    own += model.frozen_epochs * passes * unit["frozen"]
            seconds += own * count * len(study.seeds)
            cells += count * len(study.seeds)
    for data_set in dict.fromkeys(c.data_set for c in conditions_of(study)):
        images = _images(study, data_set)
        n_test = study.test_fraction * len(images)
        seconds += 5 * n_test * _degrading(images) if wanted != "none" else 0.0
        model = next(study.models[c.model] for c in conditions_of(study))
        if model.is_head_alone:
            one = next(v for k, v in found.items() if k[0] == data_set and k[3] == name)
            copied = sum(1 - c.options.skip_threshold for c in conditions_of(study)
                         if c.options.copies == "low-rank")  # fmt: skip
            n = len(images) + 25 * n_test + len(study.seeds) * copied * (len(images) - n_test)
            seconds += n * one["image"]
    return seconds / 3600, cells


_READ: dict[Any, ImageSet] = {}


def _images(study: Study, name: str) -> ImageSet:
    data = study.data[name]
    key = (data.source, data.size, data.limit)
    if key not in _READ:
        _READ[key] = load_images(
            str(data.source), "all", size=data.size, limit=data.limit, on_error="skip"
        )
    return _READ[key]


def _clock(call: Any) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def _timed(model: Model, images: ImageSet, batch: int) -> dict[str, float]:
    """Processor seconds of an update, of an image predicted, and of what else a cell does once."""
    import numpy as np
    import torch

    from rankwise.nets import freeze, predict_logits, unfreeze_top

    plain = model.model_copy(update={"weights": None})
    some, labels = images.images[:_IMAGES], images.labels[:_IMAGES]
    network: Any = build_network(plain, images.image_shape, images.n_classes, 0)
    if model.is_head_alone:
        store = FeatureStore(network.backbone.eval(), None)
        store(some[:1])
        image = _clock(lambda: store(some[1:])) / (_IMAGES - 1)
        n = int(0.64 * len(images))
        features = np.random.default_rng(0).standard_normal((n, network.head.in_features))
        solve = _clock(lambda: VarProHead("loo").fit(features, images.labels[:n]))
        built = _clock(lambda: build_network(plain, images.image_shape, images.n_classes, 0))
        return {"image": image, "solve": solve + built}
    if model.is_transfer:
        freeze(network.backbone)
    rows = np.arange(batch) % len(images)
    train = images.images[rows], images.labels[rows]

    def update(steps: int) -> float:
        settings = TrainingSettings(1, batch_size=batch, steps_per_epoch=steps)
        return _clock(lambda: train_network(network, *train, settings, device="cpu"))

    def of_one() -> float:
        update(1)
        return max(1e-6, (update(1 + _UPDATES) - update(1)) / _UPDATES)

    found = {"frozen": of_one() if model.is_transfer else 0.0}
    if model.is_transfer:
        unfreeze_top(network.backbone, model.unfreeze)
    found["update"] = of_one()
    with torch.no_grad():
        found["image"] = _clock(lambda: predict_logits(network, some, device="cpu")) / len(labels)
    return found


def _degrading(images: ImageSet) -> float:
    """Processor seconds of an image, over all kinds, at one severity."""
    some = images.images[:_IMAGES]
    return sum(_clock(lambda k=kind: degrade(some, k, 3)) for kind in KINDS) / len(some)


if __name__ == "__main__":
    main()
