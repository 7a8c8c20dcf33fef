"""The models of a study, trained or refused."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rankwise.data import load_images
from rankwise.errors import MissingDependencyError, ModelFileError
from rankwise.study import StudyError
from rankwise.study.cuts import cut
from rankwise.study.design_parts import Model
from rankwise.study.fitted import Training
from rankwise.study.models import check_model, fit_model
from rankwise.training.validation import validation_split
from study.run_cases import run, study

pytestmark = pytest.mark.usefixtures("somebody")


def test_the_quadratic_classifier_as_a_model(tmp_path):
    models = {"quadratic": {"parameters": {"n_units": 20, "n_subnets": 2, "max_iter": 3}}}
    results = run(study(["none", "low-rank"], protocol="sound", models=models), tmp_path / "out")
    assert [c["epochs"] for c in results["conditions"]] == [1, 1, 1]
    for cell in results["cells"]:
        assert len(cell["history"]) == 1
        assert cell["test_accuracy"] > 0.2
        assert np.isfinite(cell["test_loss"])
    assert results["conditions"][0]["n_parameters"] > 200
    retrained = tmp_path / "out/cells/digits/quadratic/none/1/seed-42/retrain"
    from rankwise import QuadraticClassifier

    assert QuadraticClassifier.load(retrained).n_parameters_total_ > 200


def test_a_network_is_tried_in_float32_whatever_the_default_type_is():
    torch.set_default_dtype(torch.float64)
    try:
        assert check_model(Model(network="simple-cnn"), (8, 8), 3) > 0
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"random_state": 5}, "'random_state' can't be .* of the quadratic classifier, as the stu"),
        ({"n_jobs": 2, "device": "cuda"}, "'device', 'n_jobs' can't be .*; preset, unit, .* are a"),
        ({"verbose": 1}, "'verbose' can't be parameters of the quadratic classifier"),
        ({"units": 9}, "the quadratic classifier has no 'units'; preset, unit, .* are accepted"),
        ({"class_weight": "junk"}, "of the quadratic classifier: .*class_weight.* 'junk'"),
        ({"preset": ["tiny"]}, r"a preset is named by text, got \['tiny'\]"),
        ({"probabilities": "foo"}, "probabilities must be .* or None, got 'foo'"),
        ({"image_shape": [4, 15]}, r"of the quadratic classifier: .*\(?4, 15"),
        (
            {"ridge": 0.1, "glue_method": "foo"},
            "unknown method 'foo' of the output layer; accepted",
        ),
        ({"tol": "a"}, "tol must be a number at least 0, got 'a'"),
    ],
)
def test_what_a_fit_of_the_quadratic_classifier_would_refuse_is_refused(parameters, message):
    model = Model(network="quadratic", parameters=parameters)
    with pytest.raises(StudyError, match=message):
        check_model(model, (8, 8), 3)


def test_the_quadratic_classifier_keeps_to_equal_updates(tmp_path):
    """Twice the images: half the epochs under sound, twice the updates where it isn't asked for."""
    arms = {"none": {}, "copies": {"kind": "duplicate", "skip_threshold": 0.0}}
    data = {"digits": {"source": "digits", "limit": 700}}
    models = {"quadratic": {"parameters": {"preset": "tiny", "n_units": 8, "max_iter": 4}}}
    design = study(arms, "sound", models=models, data=data, retrain=False)
    found = {}
    for protocol, n_originals in (("sound", 280), ("paper", None)):
        for arm in ("none", "copies"):
            options = design.arms[arm]
            images = load_images("digits", limit=700, seed=42)
            parts = cut(design, options, images, 42, 0)
            training = Training(1, 0, 16, None, 42, "cpu", best=True, n_originals=n_originals)
            fitted = fit_model(
                design.models["quadratic"],
                parts.train,
                None,
                10,
                training,
                sources=parts.sources,
                folder=tmp_path / protocol / arm,
            )
            found[protocol, arm] = fitted.n_updates
    # 252 of 280 images fill 7 batches of 32, and 504 of 560 15.
    assert found["sound", "none"] == found["paper", "none"] == 4 * 7
    assert found["sound", "copies"] == 2 * 15
    assert found["paper", "copies"] == 4 * 15


def test_sub_networks_are_as_many_with_copies_as_without():
    from rankwise.study.design_parts import Model
    from rankwise.study.quadratic import equal_choices, quadratic_classifier

    shape = (8, 8)
    sized = Model(network="quadratic", parameters={"unit": "bilinear", "refine": 6})
    classifier = quadratic_classifier(sized, 0, shape)
    assert classifier.plan_for(shape, 4000).n_subnets > classifier.plan_for(shape, 1000).n_subnets
    equal = equal_choices(classifier, shape, 1000, 4000)
    with_copies = quadratic_classifier(sized, 0, shape, **equal).plan_for(shape, 4000)
    without = classifier.plan_for(shape, 1000)
    assert with_copies.n_subnets == without.n_subnets
    assert with_copies.subnet.n_units == without.subnet.n_units
    assert with_copies.subnet.n_samples == 1000
    assert with_copies.refine == 2


@pytest.mark.parametrize("protocol", ["paper", "sound", "notebook"])
def test_the_classifier_s_own_validation_part_keeps_copies_with_their_originals(
    tmp_path, monkeypatch, protocol
):
    images = load_images("digits", limit=400, seed=42)
    models = {"quadratic": {"parameters": {"n_units": 10, "n_subnets": 1, "refine": 1}}}
    arms = {"copies": {"kind": "duplicate", "skip_threshold": 0.0}}
    design = study(arms, protocol, models=models)
    parts = cut(design, design.arms["copies"], images, 42, 0)
    split = parts.split.train
    assert split.is_copy.any()
    np.testing.assert_array_equal(parts.sources, images.source_ids[split.rows])
    found = []

    def recorded(*arguments):
        rows, held = validation_split(*arguments)
        found.append((rows, held))
        return rows, held

    monkeypatch.setattr("rankwise.training.fitting.validation_split", recorded)
    training = Training(1, 0, 16, None, 42, "cpu", best=True)
    model, n = design.models["quadratic"], images.n_classes
    fit_model(model, parts.train, None, n, training, sources=parts.sources, folder=tmp_path)
    ((rows, held),) = found
    assert len(held)
    assert not np.isin(split.rows[held], split.rows[rows]).any()


def test_fine_tuning_trains_in_two_stages(tmp_path):
    models = {
        "own": {
            "network": "somebody_s_own:make",
            "parameters": {"width": 6},
            "transfer": True,
            "frozen_epochs": 3,
            "unfreeze": 1,
        }
    }
    for protocol in ("paper", "notebook"):
        design = study(["low-rank"], protocol=protocol, models=models, retrain=False, epochs=1)
        results = run(design, tmp_path / protocol)
        cell = results["cells"][0]
        place = tmp_path / protocol / Path(cell["predictions"]).parent
        with (place / "history-frozen.csv").open() as file:
            before = list(csv.DictReader(file))
        assert [row["epoch"] for row in before] == ["1", "2", "3"]
        assert {float(row["learning_rate"]) for row in before} == {1e-3}
        assert all(0 < float(row["train_loss"]) < 10 for row in before)
        # SVD arms train twice as long; the history is that of the second stage.
        assert [entry["epoch"] for entry in cell["history"]] == [1, 2]
        assert cell["history"][0]["learning_rate"] == pytest.approx(1e-5)
        steps = cell["history"][0]["n_updates"]
        frozen = cell["n_updates"] - 2 * steps
        # The notebook's first stage sees all folds, so it takes more updates.
        assert frozen == 3 * steps if protocol == "paper" else frozen > 3 * steps
        assert int(before[-1]["n_updates"]) == frozen


def test_a_pre_trained_backbone_under_a_new_head(tmp_path):
    import torch

    from rankwise.heads.backbones import SmallResNet, save_backbone

    torch.manual_seed(0)
    path = tmp_path / "own.safetensors"
    options = {"width": 4, "n_features": 8}
    record = {"architecture": "small-resnet", "n_classes": 5, "options": options}
    save_backbone(SmallResNet(5, **options), path, record)
    model = {"network": "backbone", "backbone": str(path), "frozen_epochs": 1, "unfreeze": 2}
    design = study(models={"own": model}, epochs=1)
    results = run(design, tmp_path / "out")
    assert len(results["cells"]) == 3
    # The new head replaces the old one: 8 features and 10 classes.
    old = sum(p.numel() for p in SmallResNet(5, **options).parameters())
    assert results["conditions"][0]["n_parameters"] == old - (8 * 5 + 5) + (8 * 10 + 10)
    # The head in one pass in place of the frozen epoch: its updates are missing, nothing else.
    solved = run(
        study(models={"own": model | {"frozen_stage": "closed-form"}}, epochs=1), tmp_path / "one"
    )
    for slow, fast in zip(results["cells"], solved["cells"], strict=True):
        frozen = Path(slow["predictions"]).with_name("history-frozen.csv")
        assert (tmp_path / "out" / frozen).is_file()
        assert not (tmp_path / "one" / frozen).exists()
        assert fast["n_updates"] == fast["history"][-1]["n_updates"] == slow["n_updates"] // 2
        assert fast["history"] != slow["history"]
    with pytest.raises(StudyError, match="can't be fine-tuned: "):
        run(study(models={"own": model | {"unfreeze": 99}}), tmp_path / "deep")
    path.unlink()
    with pytest.raises(ModelFileError, match="there is no such file"):
        run(design, tmp_path / "other")


def test_mixed_precision_reaches_every_stage(tmp_path, monkeypatch):
    from rankwise import nets

    plain, asked = nets.train_network, []

    def train_network(model, images, labels, settings, **options):
        asked.append(settings.precision)
        return plain(model, images, labels, settings, **options)

    monkeypatch.setattr(nets, "train_network", train_network)
    tuned = {"network": "somebody_s_own:make", "transfer": True, "frozen_epochs": 1, "unfreeze": 1}
    design = study(models={"own": tuned}, epochs=1, precision="bf16-mixed", retrain=False)
    results = run(design, tmp_path / "mixed")
    assert asked == ["bf16-mixed"] * 4
    full = run(design.model_copy(update={"precision": "32-true"}), tmp_path / "full")
    assert asked[4:] == ["32-true"] * 4
    losses = [[cell["history"][0]["train_loss"] for cell in r["cells"]] for r in (results, full)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    with pytest.raises(StudyError, match=r"precision '16-mixed' needs a GPU, and this study would"):
        run(study(precision="16-mixed"), tmp_path / "half")
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            "somebody_s_own:scores_of_three",
            r"gives scores of shape \(2, 3\) for two images; \(2, 10",
        ),
        ("somebody_s_own:too_deep", r"can't take images of shape \(8, 8\): "),
        ("somebody_s_own:no_network", "gave int; a torch.nn.Module is needed"),
        ("somebody_s_own:nothing", "the module somebody_s_own has no nothing"),
        ("somebody_s_own:broken", r"called as \(\(8, 8\), 10\): TypeError: broken\(\) missing 1"),
    ],
)
def test_networks_that_are_refused_early(tmp_path, network, message):
    with pytest.raises(StudyError, match=message):
        run(study(models={"own": {"network": network}}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("network", "parameters", "message"),
    [
        ("somebody_s_own:broken", {"width": 3}, r"10, width=3\): KeyError: 'nothing there'"),
        ("quadratic", {"unitz": 3}, "has no 'unitz'; .*n_units.* are accepted as its parameters"),
        ("quadratic", {"n_units": "x"}, "n_units must be a whole number at least 1, got 'x'"),
        ("quadratic", {"preset": "huge"}, "unknown preset 'huge'; accepted: "),
        ("quadratic", {"preset": "small", "jacobian": "kaufman"}, "jacobian"),
    ],
)
def test_parameters_that_are_refused_early(tmp_path, network, parameters, message):
    models = {"own": {"network": network, "parameters": parameters}}
    with pytest.raises(StudyError, match=message):
        run(study(models=models), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_timm_must_be_there(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'rankwise\[timm\]'"):
        run(study(models=["timm:resnet18"]), tmp_path / "out")


def test_a_timm_model(tmp_path, monkeypatch):
    """A stand-in for timm shows that name, classes and channels are handed on."""
    import types

    import torch

    asked = {}

    def create_model(name, **options):
        asked.update(options, name=name)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, options["num_classes"]))

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    results = run(study(models=["timm:some.net"], retrain=False, epochs=1), tmp_path / "out")
    assert asked == {"name": "some.net", "num_classes": 10, "in_chans": 1, "pretrained": False}
    assert results["conditions"][0]["model"] == "some.net"


class TimmNet:
    """A stand-in for timm: one convolution on three channels, which keeps the pixels it saw."""

    def __init__(self, channels=3):
        import types

        self.asked = []
        config = {"input_size": (channels, 8, 8)}
        config |= {"mean": (0.25, 0.5, 0.75), "std": (0.5, 0.5, 0.25)}
        self.data = types.SimpleNamespace(resolve_model_data_config=lambda network: config)

    def create_model(self, name, **options):
        from torch import nn

        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.features = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
                classes = options["num_classes"]
                self.head = nn.Linear(5, classes) if classes else nn.Identity()
                self.seen = []

            def forward(self, x):
                self.seen.append(x.detach())
                return self.head(self.features(x).mean(dim=(2, 3)))

        self.asked.append({"name": name, **options})
        if name == "unheard":
            raise OSError("offline\nand a long story")
        return Network()


def test_a_pre_trained_timm_model_gets_its_own_pixels(monkeypatch):
    """Black, of 1 or 3 channels, as (0 - mean) / deviation: in transfer and without."""
    import torch

    from rankwise.study.design_parts import Model
    from rankwise.study.networks import build_network

    timm = TimmNet()
    monkeypatch.setitem(sys.modules, "timm", timm)
    black = torch.tensor([-0.5, -1.0, -3.0])
    transfer = Model(network="timm:some.net", transfer=True, unfreeze=1)
    network = build_network(transfer, (8, 8), 4, 0).eval()
    assert timm.asked == [{"name": "some.net", "pretrained": True, "num_classes": 0}]
    assert network.n_features == 5
    whole = Model(network="timm:some.net", parameters={"pretrained": True})
    for made, shape in (
        (network.backbone, (2, 1, 8, 8)),
        (build_network(whole, (8, 8, 3), 4, 0).eval(), (2, 3, 8, 8)),
    ):
        made.network.seen.clear()
        with torch.no_grad():
            scores = made(torch.full(shape, -1.0))
        (seen,) = made.network.seen
        torch.testing.assert_close(seen, black.view(1, 3, 1, 1).expand(2, 3, 8, 8))
    assert scores.shape == (2, 4)
    assert all(p.requires_grad for p in made.parameters())
    with pytest.raises(StudyError, match=r"timm can't make 'unheard': OSError: offline$"):
        build_network(Model(network="timm:unheard", transfer=True), (8, 8), 4, 0)


def test_a_pre_trained_timm_model_is_fine_tuned(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", TimmNet())
    models = {"net": {"network": "timm:n", "transfer": True, "frozen_epochs": 1, "unfreeze": 1}}
    results = run(study(models=models, epochs=1, retrain=False), tmp_path / "out")
    assert results["conditions"][0]["n_parameters"] == 5 * 27 + 5 + 5 * 10 + 10
    # A network that doesn't take what its own configuration says.
    monkeypatch.setitem(sys.modules, "timm", TimmNet(channels=4))
    with pytest.raises(StudyError, match=r"mean has 3 value\(s\) for 4 channel\(s\)"):
        run(study(models=models), tmp_path / "other")


def test_fine_tuning_somebody_s_network_replaces_its_last_layer():
    from torch import nn

    from rankwise.study.networks import _without_its_head

    plain = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    )
    assert isinstance(_without_its_head(plain, 5)[-1], nn.Identity)
    features = nn.Sequential(nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert _without_its_head(features, 5) is features
    # Its last layer gives features, not as many numbers as there are classes.
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
    assert isinstance(_without_its_head(wide, 5)[-1], nn.Linear)


def test_a_fine_tuned_network_of_somebody_s_learns_from_its_features(tmp_path, monkeypatch):
    import sys
    import types

    from torch import nn

    from rankwise.study.design_parts import Model
    from rankwise.study.networks import build_network

    def make(image_shape, n_classes):
        return nn.Sequential(
            nn.Conv2d(1, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(12, n_classes),
        )  # fmt: skip

    module = types.ModuleType("plain_networks")
    module.make = make
    monkeypatch.setitem(sys.modules, "plain_networks", module)
    model = Model(network="plain_networks:make", transfer=True, unfreeze=1)
    assert build_network(model, (8, 8), 10, 0).head.in_features == 12
