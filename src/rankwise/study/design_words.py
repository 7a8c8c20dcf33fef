"""What was trained, on what and how, in sentences from which somebody can repeat the study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rankwise.study.protocols import protocol_of

Record = Mapping[str, Any]

_COPIES = {
    "low-rank": "copies of low rank by SVD",
    "duplicate": "unchanged copies",
    "jpeg": "JPEG-compressed copies",
    "downscale": "copies made small and large again",
    "blur": "blurred copies",
}
_KINDS = {
    "none": "no augmentation",
    "default": "batches flipped, rotated and zoomed",
    "matched": "no copy, but as many updates as with them",
    "albumentations": "a pipeline of albumentations",
    "callable": "a function of our own",
    **_COPIES,
}
_OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD"}


def networks(results: Record) -> str:
    """A sentence on every network: its size, its optimizer, what it began with."""
    models: Mapping[str, Record] = results["study"].get("models") or {}
    used = dict.fromkeys(c["model"] for c in results["conditions"])
    said = []
    for name in used:
        sizes = {c.get("n_parameters") for c in results["conditions"] if c["model"] == name}
        known = sorted(size for size in sizes if size)
        parts = [_from_to([f"{size:,}" for size in known], "parameters")] if known else []
        if name in models:
            parts += _network(name, models[name])
        said.append(f"{name} ({', '.join(parts)})" if parts else name)
    if not said:
        return ""
    return f"{'The network was' if len(said) == 1 else 'The networks were'} {'; '.join(said)}."


def _network(name: str, model: Record) -> list[str]:
    """What a model's table says, without what it leaves as it is."""
    parts = [] if model["network"] == name else [f"network {model['network']}"]
    parts += [f"{key} {model[key]}" for key in ("weights", "backbone") if model.get(key)]
    if model["network"] != "quadratic":
        transfer = model.get("transfer") or model["network"] == "backbone"
        if transfer:
            parts.append(_transfer(model))
        if model["network"] in ("simple-cnn", "resnet25", "vgg16", "backbone") or transfer:
            parts.append(f"dropout {model.get('dropout', 0.5):g}")
        optimizer = model.get("optimizer") or ("rmsprop" if transfer else "adam")
        rate = model.get("learning_rate") or (1e-5 if transfer else 1e-3)
        parts.append(f"{_OPTIMIZERS.get(optimizer, optimizer)} at a learning rate of {rate:g}")
        if model.get("output") == "varpro":
            parts.append("last layer by variable projection")
    parts += [f"{key} {value}" for key, value in (model.get("parameters") or {}).items()]
    return parts


def _transfer(model: Record) -> str:
    closed = model.get("frozen_stage") == "closed-form"
    head = "solved in closed form" if closed else f"trained for {model.get('frozen_epochs')} epochs"
    top = model.get("unfreeze", 0)
    after = f", then its {top} topmost layers too" if top else " and nothing else"
    return f"pre-trained, its head {head}{after}"


def arms(results: Record) -> str:
    """A sentence on every arm: what it does, to how many images, with which options.

    An arm with several doses is named with each, and with the places that have it.
    """
    tables: Mapping[str, Record] = results["study"].get("arms") or {}
    doses: dict[str, dict[str, list[Record]]] = {}
    for c in results["conditions"]:
        words = _both(c, results["study"]) if c["arm_kind"] == "both" else ""
        words = words or _arm(c, tables.get(c["arm"], {}))
        doses.setdefault(c["arm"], {}).setdefault(words, []).append(c)
    said = [
        f"{name}{_where(own, by_words) if len(by_words) > 1 else ''} ({words})"
        for name, by_words in doses.items()
        for words, own in by_words.items()
    ]
    return f"The arms were {'; '.join(said)}." if said else ""


def _where(own: Sequence[Record], by_words: Mapping[str, Sequence[Record]]) -> str:
    """The places of a dose: data sets, with models and epochs where data sets don't tell it."""
    others = [c for each in by_words.values() if each is not own for c in each]
    places = []
    for c in own:
        same_data = [o for o in others if o["data_set"] == c["data_set"]]
        same_model = [o for o in same_data if o["model"] == c["model"]]
        place = c["data_set"] + f" with {c['model']}" * bool(same_data)
        places.append(place + f" for {_count(c['epochs'], 'epoch')}" * bool(same_model))
    return f" on {listed(dict.fromkeys(places))}"


def _both(condition: Record, study: Record) -> str:
    """Two arms at once, each with its own dose; nothing where results don't name the two."""
    parts = condition.get("parts") or ()
    named = [(pair, "+".join(pair)) for pair in study.get("factorial") or ()]
    pairs = [pair for pair, name in named if condition["arm"] == name]
    pairs += [pair for pair, name in named if condition["arm"].startswith(f"{name}-unchanged")]
    if not parts or not pairs:
        return ""
    tables: Mapping[str, Record] = study.get("arms") or {}
    each = [_arm(part, tables.get(name, {})) for name, part in zip(pairs[0], parts, strict=True)]
    return f"both at once: {'; and '.join(each)}"


def _arm(condition: Record, table: Record) -> str:
    kind = str(condition["arm_kind"])
    if kind == "both":
        unchanged = condition["arm"].endswith("-unchanged")
        return "unchanged copies in place of both" if unchanged else "both at once"
    plain = kind.removeprefix("default+")
    words = _KINDS.get(plain, plain)
    if plain != kind:
        words = f"{_KINDS['default']}, and {words}"
    parts = [words]
    foreign = plain in ("albumentations", "callable") or ":" in plain
    if foreign:
        parts += [f"{table[key]}" for key in ("function", "pipeline") if table.get(key)]
        parts += [f"{key} {value}" for key, value in (table.get("parameters") or {}).items()]
        parts.append("as copies" if table.get("use") == "copies" else "in batches")
    skip = condition.get("skip_threshold")
    if skip is not None:
        parts.append(f"of {1 - skip:.4g} of the training images")
    if condition.get("energy") is not None:
        parts.append(
            f"energy {condition['energy']:g} ± {condition.get('energy_std') or 0:g} of the sum of "
            "singular values"
        )
        if table.get("reference") == "notebook":
            parts.append("the rank nearest to it, one for all channels, as the paper’s code has it")
    if plain in ("jpeg", "downscale", "blur") and table.get("severity"):
        parts.append(f"severity {table['severity']}")
    return ", ".join(parts)


def schedule(results: Record) -> str:
    """Sentences on epochs, batches and the re-training."""
    study = results["study"]
    by_epochs: dict[int, list[str]] = {}
    trained = [c for c in results["conditions"] if not _in_one_pass(study, c["model"])]
    if not trained:
        return ""
    for condition in trained:
        named = by_epochs.setdefault(condition["epochs"], [])
        if condition["arm"] not in named:
            named.append(condition["arm"])
    if len(by_epochs) == 1:
        epochs = _count(next(iter(by_epochs)), "epoch")
    else:
        epochs = ", ".join(f"{_count(n, 'epoch')} ({', '.join(a)})" for n, a in by_epochs.items())
    most = "at most " if study.get("patience") else ""
    text = f"Trainings had {most}{epochs} in batches of {study.get('batch_size', 128)}"
    precision = study.get("precision", "32-true")
    text += "." if precision == "32-true" else f", at precision {precision}."
    if study.get("retrain", True):
        sound = protocol_of(study["protocol"]).equal_updates
        text += (
            " With each seed a network was trained once more, on the whole training part"
            f"{' and the test part' * (study['protocol'] == 'notebook')}, for "
            f"{'' if sound else '1.2 times '}the mean of the folds’ best epochs."
        )
    return text


def _in_one_pass(study: Record, name: str) -> bool:
    """Whether a model has no epochs."""
    model = (study.get("models") or {}).get(name) or {}
    head_alone = model.get("frozen_stage") == "closed-form" and model.get("unfreeze") == 0
    transfer = model.get("transfer") or model.get("network") == "backbone"
    return model.get("network") == "quadratic" or bool(transfer and head_alone)


def region(results: Record) -> str:
    """How wide the region of practical equivalence is, in words."""
    study = results["study"]
    if study.get("rope") is not None:
        return f"±{100 * study['rope']:.3g} points"
    widths = sorted({100 * c["bayes"]["rope"] for c in results["comparisons"]})
    share = study.get("relative_rope", 0.1)
    text = f"±{share:g} of the baseline’s mean error"
    if not widths:
        return text
    return f"{text}, here {_from_to([f'±{w:.3g}' for w in (widths[0], widths[-1])], 'points')}"


def _from_to(values: Sequence[str], unit: str) -> str:
    ends = list(dict.fromkeys((values[0], values[-1])))
    return f"{' to '.join(ends)} {unit}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def listed(words: Iterable[str]) -> str:
    """Words with commas, the last with “and”."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
