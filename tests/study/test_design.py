"""Study files: what is accepted, and how a mistake is reported."""

import json
import os

import pytest

from rankwise.study import StudyError, read_study
from rankwise.study.design import Study
from rankwise.study.reading import study_from
from study.run_cases import MINIMAL

FILE = """\
name = "mine"
protocol = "sound"
epochs = 7
seeds = [1, 2]
models = ["simple-cnn"]

[data.digits]
source = "digits"
limit = 100

[arms.none]

[arms.strong]
kind = "low-rank"
energy = 0.9
"""


def write(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(tmp_path, text):
    """Lines of the error, without the file's name."""
    path = write(tmp_path, text)
    with pytest.raises(StudyError) as caught:
        read_study(path)
    return [line.removeprefix(f"{path}, ") for line in str(caught.value).splitlines()]


def test_a_file_becomes_a_study(tmp_path):
    study = read_study(write(tmp_path, FILE))
    assert (study.name, study.protocol, study.epochs, study.seeds) == ("mine", "sound", 7, (1, 2))
    assert study.arms["strong"].energy == 0.9
    assert study.arms["strong"].energy_std == 0.025
    assert study.arms["none"].kind == "none"
    assert study.models["simple-cnn"].network == "simple-cnn"
    assert study.data["digits"].limit == 100
    assert (study.folds, study.batch_size, study.test_fraction) == (5, 128, 0.2)


def test_every_mistake_has_its_line_and_what_is_accepted(tmp_path):
    text = FILE.replace("epochs = 7", "epochs = 0").replace("limit = 100", "limits = 100")
    text = text.replace("energy = 0.9", "energy = 1.5")
    assert mistakes(tmp_path, text) == [
        "line 3: epochs is 0; a whole number from 1 is accepted",
        "line 9: unknown key data.digits.limits; source, size, grey, source_pattern, limit, "
        "on_error, models, epochs are accepted",
        "line 15: arms.strong.energy is 1.5; a number above 0, at most 1 is accepted",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('protocol = "sound"', 'protocol = "loud"', 2, ["'loud'", "'sound', 'paper', 'notebook'"]),
        ("seeds = [1, 2]", "seeds = [1, 1]", 4, ["seeds is", "different whole numbers from 0"]),
        ("seeds = [1, 2]", "seeds = []", 4, ["a list of different whole numbers"]),
        ("seeds = [1, 2]", "seeds = [\n  1,\n  -2,\n]", 4, ["seeds is -2"]),
        ('models = ["simple-cnn"]', 'models = ["nonsense"]', 5, ["'nonsense'", "'vgg16'"]),
        ('kind = "low-rank"', 'kind = "lowrank"', 14, ["'lowrank'", "'default+low-rank'"]),
        ("[arms.none]", "[arms.nothing]", 11, ["arms.nothing.kind is 'nothing'", "'none'"]),
        ("[arms.none]", '[arms."a b"]\nkind = "none"', 11, ["letters, digits"]),
        ("limit = 100", "limit = 5", 9, ["a number of images from 20"]),
        ("limit = 100", 'source_pattern = "("', 9, ["is '('; a regular expression on file names"]),
        ('source = "digits"', "source = 3", 8, ["a hub id, a folder"]),
        ("energy = 0.9", "severity = 3", 15, ["'low-rank' has none", "it takes energy,"]),
        ("energy = 0.9", 'skip_threshold = "much"', 15, ["the share of images that get no copy"]),
        ("[arms.none]", "[arms.callable]", 11, ["has no function", "'package.module:name'"]),
        ("[arms.none]", "[arms.albumentations]", 11, ["has no pipeline", "A.save"]),
    ],
)
def test_a_mistake(tmp_path, old, new, line, words):
    assert old in FILE
    (found,) = mistakes(tmp_path, FILE.replace(old, new))
    assert found.startswith(f"line {line}: "), found
    for word in words:
        assert word in found


@pytest.mark.parametrize(
    ("key", "values", "accepted"),
    [
        ("batch_size", ['"128"', "128.0", "true"], "a whole number from 1"),
        ("epochs", ['"7"', "7.0"], "a whole number from 1"),
        ("folds", ['"5"', "5.0"], "a whole number from 2 to 100"),
        ("split_seed", ["true"], "a whole number from 0"),
        ("test_fraction", ['"0.2"', "nan"], "a number above 0, at most 0.5"),
        ("epochs_factor", ["true", "inf"], "a number above 0"),
        ("rope", ['"0.01"', "true", "-0.01", "1"], "a share of accuracy, a number from 0, below 1"),
        ("precision", ["32", '"16"'], "'32-true', 'bf16-mixed', '16-mixed'"),
        ("retrain", ['"yes"', "1", '"false"'], "true or false"),
        ("data.digits.limit", ['"100"', "100.0"], "a number of images from 20"),
        ("data.digits.size", ['"16"', "[16.0, 16]"], "a number of pixels, or [height, width]"),
        ("data.digits.grey", ['"no"', "0"], "true or false"),
        ("data.digits.epochs", ["true"], "a whole number from 1"),
        ("models.cnn.transfer", ['"true"', "1"], "true or false"),
        ("models.cnn.frozen_epochs", ['"50"'], "a whole number from 1"),
        ("models.cnn.unfreeze", ["4.0"], "a whole number of layers from 0"),
        ("models.cnn.dropout", ['"0.5"', "false"], "a number from 0, below 1"),
        ("models.cnn.learning_rate", ['"1e-3"', "inf"], "a number above 0"),
        ("arms.strong.energy", ['"0.9"', "true"], "a number above 0, at most 1"),
        ("arms.strong.energy_std", ['"0"', "inf"], "a number from 0"),
        (
            "arms.strong.skip_threshold",
            ['"0.8"', "true"],
            "the share of images that get no copy, a number from 0 to 1",
        ),
        ("arms.strong.severity", ['"3"', "3.0"], "a whole number from 1 to 5"),
    ],
)
def test_values_of_another_type_are_no_values(tmp_path, key, values, accepted):
    text = 'data.digits.source = "digits"\nmodels.cnn.network = "simple-cnn"\n'
    text += 'arms.strong.kind = "low-rank"\n'
    for value in values:
        (found,) = mistakes(tmp_path, f"{text}{key} = {value}\n")
        assert found.startswith(f"line 4: {key} is "), found
        assert found.endswith(f"; {accepted} is accepted"), found


def test_precisions_are_those_of_the_training():
    from rankwise.nets.settings import PRECISIONS as TRAINED
    from rankwise.study.design import PRECISIONS

    assert PRECISIONS == TRAINED
    assert study_from(MINIMAL).precision == "32-true"


def test_whole_numbers_do_as_numbers(tmp_path):
    study = read_study(write(tmp_path, FILE.replace("energy = 0.9", "energy = 1\nenergy_std = 0")))
    assert (study.arms["strong"].energy, study.arms["strong"].energy_std) == (1, 0)


def test_names_must_exist(tmp_path):
    text = FILE + '\n[[conditions]]\ndata = "digits"\nmodel = "simple-cnn"\narm = "strong"\n'
    assert read_study(write(tmp_path, text)).conditions[0].arm == "strong"
    text += '\n[[conditions]]\ndata = "faces"\nmodel = "simple-cnn"\narm = "weak"\n'
    assert mistakes(tmp_path, text) == [
        "line 23: conditions[1].data names 'faces'; 'digits' are there",
        "line 25: conditions[1].arm names 'weak'; 'none', 'strong' are there",
    ]
    text = FILE.replace("limit = 100", 'models = ["resnet25"]')
    (found,) = mistakes(tmp_path, text)
    assert found == "line 9: data.digits.models names 'resnet25'; 'simple-cnn' are there"


def test_published_figures_are_checked_too(tmp_path):
    row = '[[conditions]]\ndata = "digits"\nmodel = "simple-cnn"\narm = "none"\n'
    good = FILE + row + "[conditions.published]\ninterval = [0.1, 0.2]\ntest_accuracy = 0.1\n"
    assert read_study(write(tmp_path, good)).conditions[0].published.interval == (0.1, 0.2)
    (found,) = mistakes(tmp_path, good.replace("= 0.1\n", "= 99.0\n"))
    assert found.startswith("line 22: conditions[0].published.test_accuracy is 99.0; ")
    (found,) = mistakes(tmp_path, good.replace("[0.1, 0.2]", "[0.1, 20.0]"))
    assert found.startswith("line 21: conditions[0].published.interval is 20.0; [low, high]")


def test_models_have_options_of_their_own(tmp_path):
    text = FILE.replace('models = ["simple-cnn"]', 'models.mine = {network = "backbone"}')
    assert mistakes(tmp_path, text)[0].endswith(
        "network = 'backbone' and backbone = FILE go together"
    )
    text = FILE.replace('models = ["simple-cnn"]', 'models = ["quadratic"]')
    text = text.replace('kind = "low-rank"\nenergy = 0.9', 'kind = "default+low-rank"')
    (found,) = mistakes(tmp_path, text)
    assert "arms.strong works on batches" in found
    assert "arms of copies and 'none' are accepted" in found


@pytest.mark.parametrize(
    ("lines", "sentences"),
    [
        (
            'network = "simple-cnn"\nparameters = {width = 3}\ntransfer = true\nunfreeze = 3',
            [
                "7: models.m.parameters: 'simple-cnn' has none; it takes dropout, learning_rate, "
                "optimizer, output",
                "8: models.m.transfer: 'simple-cnn' has none; it takes dropout, ",
                "9: models.m.unfreeze: 'simple-cnn' has none; it takes dropout, ",
            ],
        ),
        (
            'network = "resnet25"\nweights = "w.safetensors"\nparameters = {}',
            [
                "7: models.m.weights: 'resnet25' has none; ",
                "8: models.m.parameters: 'resnet25' has",
            ],
        ),
        (
            'network = "vgg16"\nparameters = {}\nfrozen_stage = "epochs"',
            [
                "7: models.m.parameters: 'vgg16' has none; it takes dropout, learning_rate, "
                "optimizer, output, transfer, weights",
                "8: models.m.frozen_stage needs transfer = true",
            ],
        ),
        (
            'network = "vgg16"\ntransfer = true',
            [
                "7: models.m.transfer would freeze features that learned nothing: 'vgg16' needs "
                "weights for it; a safetensors file or a hub id is accepted"
            ],
        ),
        (
            'network = "backbone"\nbackbone = "b.safetensors"\nparameters = {}\nweights = "w"\n'
            "transfer = false",
            [
                "8: models.m.parameters: 'backbone' has none; it takes backbone, dropout, "
                "frozen_epochs, frozen_stage, learning_rate, optimizer, output, transfer, unfreeze",
                "9: models.m.weights: 'backbone' has none; ",
                "10: models.m.transfer is false, but a backbone is always fine-tuned; leave it out",
            ],
        ),
        (
            'network = "timm:resnet18"\ndropout = 0.1\nweights = "w"',
            [
                "7: models.m.dropout needs transfer = true",
                "8: models.m.weights: 'timm:resnet18' has none; it takes learning_rate, optimizer, "
                "output, parameters, transfer",
            ],
        ),
        (
            'network = "a.b:make"\ndropout = 0.1\nfrozen_epochs = 2',
            [
                "7: models.m.dropout needs transfer = true",
                "8: models.m.frozen_epochs needs transfer = true",
            ],
        ),
        (
            'network = "quadratic"\ndropout = 0.1\ntransfer = true\nepochs = 3',
            ["9: unknown key models.m.epochs; network, weights, "],
        ),
        (
            'network = "quadratic"\ndropout = 0.1\ntransfer = true',
            [
                "7: models.m.dropout: 'quadratic' has none; it takes parameters",
                "8: models.m.transfer: 'quadratic' has none; it takes parameters",
            ],
        ),
    ],
)
def test_options_that_a_network_does_not_read(tmp_path, lines, sentences):
    text = f"data.digits = {{}}\n\n[arms.none]\n\n[models.m]\n{lines}\n"
    found = mistakes(tmp_path, text)
    assert len(found) == len(sentences), found
    for line, sentence in zip(found, sentences, strict=True):
        assert line.startswith(f"line {sentence}"), found


def test_options_that_networks_read(tmp_path):
    tuned = 'frozen_epochs = 2\nfrozen_stage = "epochs"\nunfreeze = 1\ndropout = 0.1\n'
    trained = 'optimizer = "sgd"\nlearning_rate = 0.1\noutput = "varpro"\n'
    tables = {
        "simple-cnn": f"dropout = 0.1\n{trained}",
        "vgg16": f'transfer = true\nweights = "w"\n{tuned}{trained}',
        "backbone": f'backbone = "b"\n{tuned}{trained}',
        "timm:resnet18": f"transfer = true\nparameters = {{}}\n{tuned}{trained}",
        "a:make": f"parameters = {{}}\n{trained}",
    }
    models = "".join(
        f'[models.m{i}]\nnetwork = "{name}"\n{lines}'
        for i, (name, lines) in enumerate(tables.items())
    )
    study = read_study(write(tmp_path, f"data.digits = {{}}\n[arms.none]\n{models}"))
    assert [model.network for model in study.models.values()] == list(tables)


def test_a_row_s_options_are_those_of_its_arm(tmp_path):
    row = '[[conditions]]\ndata = "digits"\nmodel = "simple-cnn"\n'
    text = f'{FILE}{row}arm = "none"\nenergy = 0.9\nskip_threshold = 0.5\n'
    assert mistakes(tmp_path, text) == [
        "line 20: conditions[0].energy: an arm of kind 'none' has none; it takes no option",
        "line 21: conditions[0].skip_threshold: an arm of kind 'none' has none; it takes no option",
    ]
    text = text.replace("[arms.none]", '[arms.none]\nkind = "blur"')
    assert mistakes(tmp_path, text) == [
        "line 21: conditions[0].energy: an arm of kind 'blur' has none; it takes severity, "
        "skip_threshold"
    ]


def test_networks_of_one_name_are_told_apart():
    def names(*networks):
        models = study_from(MINIMAL | {"models": list(networks)}).models
        return {name: model.network for name, model in models.items()}

    assert names("a:make", "b.c:make", "a:other") == {
        "a-make": "a:make",
        "b.c-make": "b.c:make",
        "other": "a:other",
    }
    both = names("timm:resnet18", "a:resnet18")
    assert both == {"timm-resnet18": "timm:resnet18", "a-resnet18": "a:resnet18"}
    assert names("timm:resnet18", "timm:vit.x") == {
        "resnet18": "timm:resnet18",
        "vit.x": "timm:vit.x",
    }


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(StudyError, match=r"nowhere\.toml can't be read: No such file"):
        read_study(tmp_path / "nowhere.toml")
    with pytest.raises(StudyError, match=r"isn't TOML: .*line 2"):
        read_study(write(tmp_path, "a = 1\nb = = 2\n"))
    marked = write(tmp_path, "\ufeff" + FILE)  # as editors save "UTF-8 with BOM"
    assert read_study(marked) == read_study(write(tmp_path, FILE))
    assert mistakes(tmp_path, "\ufeff" + FILE.replace("epochs = 7", "epochs = 0")) == [
        "line 3: epochs is 0; a whole number from 1 is accepted"
    ]
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match="isn't a text file in UTF-8"):
        read_study(binary)


def test_missing_parts_are_named():
    with pytest.raises(StudyError) as caught:
        study_from({})
    assert str(caught.value).splitlines() == [
        "the study: data is missing; a table [data.NAME] for each data set is accepted",
        "the study: models is missing; a list of 'simple-cnn', 'resnet25', 'vgg16', 'quadratic', "
        "'backbone', or tables [models.NAME] is accepted",
        "the study: arms is missing; a list of kinds of arms, or tables [arms.NAME] is accepted",
    ]
    with pytest.raises(StudyError, match="data is empty; at least one is needed"):
        study_from(MINIMAL | {"data": {}})


def test_a_study_survives_json():
    arms = {"x": {"kind": "low-rank", "energy": 0.5}}
    for source in ("digits", os.fsdecode(b"photos\xe9")):
        study = study_from(MINIMAL | {"arms": arms, "data": {"digits": {"source": source}}})
        assert Study.model_validate(json.loads(json.dumps(study.to_json()))) == study


def test_a_source_with_a_star_is_a_data_set_for_each_match(tmp_path, monkeypatch):
    for name in ("cells", "b leaves"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    (tmp_path / "sets" / "own.npz").write_bytes(b"")
    (tmp_path / "sets" / "notes.txt").write_text("no data set")
    monkeypatch.chdir(tmp_path)
    values = {
        "data": {"many": {"source": "sets/*", "limit": 50}, "digits": {"source": "digits"}},
        "models": ["simple-cnn"],
        "arms": ["none"],
    }
    found = study_from(values)
    assert list(found.data) == ["b-leaves", "cells", "own", "digits"]
    assert found.data["cells"].source == "sets/cells"
    assert found.data["own"].limit == 50
    rows = [{"data": name, "model": "simple-cnn", "arm": "none"} for name in ("many", "digits")]
    named = study_from(values | {"conditions": rows})
    assert [row.data for row in named.conditions] == ["b-leaves", "cells", "own", "digits"]
    for wrong, sentence in (
        ([1], r"conditions\[0\] is 1; a table is accepted"),
        (["digits"], r"conditions\[0\] is 'digits'; a table is accepted"),
        ([rows[0] | {"data": ["many"]}], r"conditions\[0\].data is \['many'\]; the name of a data"),
        ("digits", r"conditions is 'digits'; tables \[\[conditions\]\] is accepted"),
    ):
        with pytest.raises(StudyError, match=f"^the study: {sentence}"):
            study_from(values | {"conditions": wrong})
    with pytest.raises(StudyError, match=r"data.many.source is 'no/\*', which matches no folder"):
        study_from(values | {"data": {"many": {"source": "no/*"}}})
    twice = values["data"] | {"cells": {"source": "digits"}}
    with pytest.raises(StudyError, match=r"matches sets/cells, and there is a data set 'cells'"):
        study_from(values | {"data": twice})
