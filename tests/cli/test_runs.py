"""Runs of ``rankwise train`` that stop, go on, are repeated or are refused."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from cli_cases import CONVOLUTIONAL, FAST, call, class_folders


def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, monkeypatch, capsys):
    """Ctrl-C during the third of five sub-networks, then the same command."""
    from rankwise.training import subnetworks

    arguments = ["train", "digits", "--units", "50", "--subnets", "5", "--max-iter", "3"]
    arguments += ["--workers", "1", "--limit", "200", "--json"]
    original, calls = subnetworks.train_subnet, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(subnetworks, "train_subnet", interrupted)
        _, err = call(patch, capsys, *arguments, "--out", tmp_path / "a", expect=130)
    assert "interrupted: 2 finished sub-networks are kept in" in err
    assert not (tmp_path / "a" / "report.json").exists()
    resumed = json.loads(call(monkeypatch, capsys, *arguments, "--out", tmp_path / "a")[0])
    assert resumed["resumed_subnets"] == 2
    kept = json.loads((tmp_path / "a" / "subnets" / "seconds.json").read_text())
    assert resumed["seconds"]["earlier"] == kept["earlier"] > 0
    assert resumed["seconds"]["subnets"] >= kept["earlier"] + kept["now"]
    assert resumed["seconds"]["total"] > resumed["seconds"]["subnets"]
    table, _ = call(monkeypatch, capsys, *arguments[:-1], "--out", tmp_path / "a")
    assert "of these, before interruptions" in table
    whole = json.loads(call(monkeypatch, capsys, *arguments, "--out", tmp_path / "b")[0])
    assert whole["resumed_subnets"] == 0
    assert whole["seconds"]["earlier"] == 0
    assert resumed["inductive_accuracy"] == whole["inductive_accuracy"]
    name = "model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def stop_in_the_third_epoch(patch):
    """Ctrl-C as the third epoch of joint training begins, whoever's it is."""
    from rankwise.training.joint import JointTraining

    original, calls = JointTraining._epoch, []

    def interrupted(self, *given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *given)

    patch.setattr(JointTraining, "_epoch", interrupted)


def test_what_a_teacher_has_done_is_kept_and_told(tmp_path, monkeypatch, capsys):
    arguments = ["train", "digits", *CONVOLUTIONAL, "--teacher", "small", "--out", tmp_path / "a"]
    with monkeypatch.context() as patch:
        stop_in_the_third_epoch(patch)
        _, err = call(patch, capsys, *arguments, expect=130)
    assert "interrupted: 2 finished epochs of the teacher are kept in" in err
    out, err = call(monkeypatch, capsys, *arguments)
    assert "to train:" not in err
    assert "seconds: teacher" in out
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    seconds = report["seconds"]
    assert sum(seconds[part] for part in ("teacher", "joint", "glue")) <= seconds["fit"]
    assert seconds["load"] + seconds["fit"] + seconds["evaluate"] <= seconds["total"]
    within = f"{seconds['load']:.1f} / {seconds['evaluate']:.1f} / {seconds['total']:.1f}"
    assert f"{seconds['glue']:.1f} / {seconds['fit']:.1f}" in out
    assert within in out


def test_a_refused_run_leaves_its_folder_as_it_was(tmp_path, monkeypatch, capsys):
    """So that the corrected command isn't refused for the one before it."""
    out = tmp_path / "a"
    arguments = ["train", "digits", "--out", out, "--limit", "250", "--workers", "1"]
    nano = ["--preset", "nano", "--max-iter", "1"]
    _, err = call(monkeypatch, capsys, *arguments, *nano, "--units", "3", expect=1)
    assert "n_units must be at least 6, one a layer of the preset, got 3" in err
    assert not (out / "run.json").exists()
    with monkeypatch.context() as patch:
        # As if there were no memory at all.
        patch.setattr("rankwise.training.room.available_memory", lambda: 0)
        patch.setattr("rankwise.training.groups.available_memory", lambda: 0)
        _, err = call(patch, capsys, *arguments, *nano, expect=1)
        assert "and 0.0 GiB are free" in err
        _, err = call(patch, capsys, *arguments, *FAST, expect=1)
        assert "and 0.0 GiB are free" in err
        assert not (out / "run.json").exists()
    call(monkeypatch, capsys, *arguments, *nano)
    kept = (out / "model.safetensors").read_bytes()
    call(monkeypatch, capsys, *arguments, *nano, "--units", "3", "--overwrite", expect=1)
    assert (out / "model.safetensors").read_bytes() == kept


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX")
def test_control_c_with_two_workers_then_the_same_command(tmp_path, monkeypatch, capsys):
    """A real SIGINT to parent and workers, as a terminal sends it, once one part is finished.

    What is left, and the whole, one worker does: the numbers are the same.
    """
    arguments = ["train", "digits", "--units", "64", "--subnets", "8", "--max-iter", "10"]
    arguments += ["--limit", "300", "--seed", "3", "--json", "--workers"]
    command = [sys.executable, "-m", "rankwise", *arguments, "2", "--out", str(tmp_path / "a")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests themselves run in the background, a shell has made them deaf to it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 200
    while not list((tmp_path / "a" / "subnets").glob("[0-9]*.safetensors")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    assert out == ""
    assert "finished sub-networks are kept in" in err
    assert "Traceback" not in err
    n_kept = len(list((tmp_path / "a" / "subnets").glob("[0-9]*.safetensors")))
    assert 1 <= n_kept < 8
    assert not (tmp_path / "a" / "report.json").exists()
    resumed, whole = (
        json.loads(call(monkeypatch, capsys, *arguments, "1", "--out", tmp_path / out)[0])
        for out in ("a", "b")
    )
    assert resumed["resumed_subnets"] == n_kept
    assert resumed["inductive_accuracy"] == whole["inductive_accuracy"]
    name = "model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_interrupted_epochs_are_kept(tmp_path, monkeypatch, capsys):
    """Ctrl-C during the third of three epochs, then the same command."""
    arguments = ["train", "digits", *CONVOLUTIONAL, "--json"]
    with monkeypatch.context() as patch:
        stop_in_the_third_epoch(patch)
        _, err = call(patch, capsys, *arguments, "--out", tmp_path / "a", expect=130)
    assert "interrupted: 2 finished epochs are kept in" in err
    resumed = json.loads(call(monkeypatch, capsys, *arguments, "--out", tmp_path / "a")[0])
    assert resumed["resumed_epochs"] == 2
    earlier = sum(entry["seconds"] for entry in resumed["history"][:2])
    assert resumed["seconds"]["earlier"] == pytest.approx(earlier)
    assert resumed["seconds"]["joint"] > sum(entry["seconds"] for entry in resumed["history"])
    whole = json.loads(call(monkeypatch, capsys, *arguments, "--out", tmp_path / "b")[0])
    assert whole["resumed_epochs"] == 0
    name = "model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_another_run_in_the_folder_is_refused(trained, monkeypatch, capsys):
    out, _ = trained
    _, err = call(monkeypatch, capsys, "train", "digits", "--out", out, "--seed", "7", expect=1)
    assert "holds another run (different: " in err
    assert "seed 42, now 7" in err
    assert "--overwrite" in err


@pytest.mark.parametrize("name", ["run.json", "report.json"])
@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_record_is_named(trained, tmp_path, monkeypatch, capsys, name, content):
    import shutil

    shutil.copytree(trained[0], tmp_path / "m")
    (tmp_path / "m" / name).write_text(content)
    arguments = ["train", "digits", "--out", tmp_path / "m", *FAST, "--bootstrap"]
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert f"{name} is damaged" in err
    if name == "run.json":
        _, err = call(monkeypatch, capsys, "evaluate", tmp_path / "m", "digits", expect=1)
        assert f"{name} is damaged" in err


def test_a_record_that_lacks_something_is_named(trained, tmp_path, monkeypatch, capsys):
    import shutil

    place = tmp_path / "m"
    shutil.copytree(trained[0], place)
    run = (place / "run.json").read_text()
    (place / "report.json").write_text('{"run": {}}')
    arguments = ["train", "digits", "--out", place, *FAST, "--bootstrap"]
    _, err = call(monkeypatch, capsys, *arguments, expect=1)
    assert "report.json is damaged: it lacks inductive_accuracy, train_accuracy" in err
    (place / "run.json").write_text('{"run": {}}')
    _, err = call(monkeypatch, capsys, "evaluate", place, "digits", expect=1)
    assert "run.json is damaged: its run has no seed or reading" in err
    (place / "run.json").write_text(run)
    # A run whose model is gone isn't complete: it is made again.
    (place / "model.safetensors").unlink()
    stdout, _ = call(monkeypatch, capsys, *arguments, "--json")
    assert not json.loads(stdout).get("already_complete")
    assert (place / "model.safetensors").exists()


def test_the_demo_leaves_another_run_alone(trained, monkeypatch, capsys):
    _, err = call(monkeypatch, capsys, "demo", "--out", trained[0], expect=1)
    assert "holds another run" in err


def test_a_source_spelled_differently_is_the_same_run(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, capsys, "train", "photos/", "--out", "m", *FAST, "--json")
    stdout, _ = call(
        monkeypatch, capsys, "train", tmp_path / "photos", "--out", "m", *FAST, "--json"
    )
    assert json.loads(stdout)["already_complete"]
    _, err = call(monkeypatch, capsys, "train", "photos", "--out", "photos/m", *FAST, expect=1)
    assert "lies inside the source photos" in err


def test_overwrite_discards_a_run(tmp_path, monkeypatch, capsys):
    base = ["train", "digits", "--out", tmp_path / "m", *FAST, "--limit", "100", "--json"]
    call(monkeypatch, capsys, *base)
    stdout, _ = call(monkeypatch, capsys, *base, "--seed", "7", "--overwrite")
    assert json.loads(stdout)["run"]["seed"] == 7
    assert json.loads(stdout)["resumed_subnets"] == 0


def test_bootstrap_can_be_asked_for_later(tmp_path, monkeypatch, capsys):
    base = ["train", "digits", "--out", tmp_path / "m", *FAST, "--limit", "100", "--json"]
    first = json.loads(call(monkeypatch, capsys, *base)[0])
    second = json.loads(call(monkeypatch, capsys, *base, "--bootstrap")[0])
    assert second["inductive_accuracy"] == first["inductive_accuracy"]
    assert second["resumed_subnets"] == 2
    assert "bootstrap" in second
    assert second["seconds"] == first["seconds"], "what the training took"
    assert second["bootstrap"]["seconds"] > 0
    assert second["peak_memory_mb"] >= first["peak_memory_mb"]


def test_more_rounds_of_bootstrapping(tmp_path, monkeypatch, capsys):
    base = ["train", "digits", "--out", tmp_path / "m", *FAST, "--limit", "100", "--bootstrap"]
    one = json.loads(call(monkeypatch, capsys, *base, "--json")[0])["bootstrap"]
    two = json.loads(call(monkeypatch, capsys, *base, "--bootstrap-rounds", "2", "--json")[0])
    first, second = two["bootstrap"]["rounds"]
    assert one["rounds"] == [first]
    assert second.items() <= two["bootstrap"].items()
    out, _ = call(monkeypatch, capsys, *base, "--bootstrap-rounds", "2")
    agreement = [f"{100 * each['agreement_with_guesses']:.2f}%" for each in (first, second)]
    assert " / ".join(agreement) in out
    assert all(len(line) <= 80 for line in out.splitlines() if line.startswith("│"))
    _, err = call(monkeypatch, capsys, *base[:-1], "--bootstrap-rounds", "2", expect=2)
    assert "--bootstrap-rounds is for --bootstrap, which isn't given" in " ".join(
        err.replace("│", " ").split()
    )


def test_bootstrap_without_a_preset_trains_subnetworks(tmp_path, monkeypatch, capsys):
    """Images so many and so large that the default has none."""
    rng = np.random.default_rng(0)
    labels = np.arange(2600) % 2
    images = rng.integers(0, 100, (2600, 16, 16), dtype=np.uint8)
    images[labels == 1, :8] += 100
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    train = ["train", tmp_path / "x.npz", "--max-iter", "1", "--workers", "1", "--json"]
    report = json.loads(
        call(monkeypatch, capsys, *train, "--out", tmp_path / "b", "--bootstrap")[0]
    )
    assert (report["preset"], report["n_subnets"]) == (None, 4)
    assert report["bootstrap"]["transductive_accuracy"] > 0.9
    plain = json.loads(call(monkeypatch, capsys, *train, "--out", tmp_path / "s")[0])
    assert (plain["preset"], plain["n_subnets"]) == ("small", 0)
    _, err = call(monkeypatch, capsys, *train, "--out", tmp_path / "s", "--bootstrap", expect=1)
    assert "holds this run with preset 'small', the default for these images" in err
    _, err = call(monkeypatch, capsys, *train, "--out", tmp_path / "b", expect=1)
    assert "holds another run (different: unit bilinear, now not given" in err


def noise(path, n):
    """Images of noise with labels that have nothing to do with them."""
    rng = np.random.default_rng(0)
    np.savez(path, images=rng.integers(0, 256, (n, 8, 8), np.uint8), labels=np.arange(n) % 10)
    return path


FAR, CHANCE = " is far above the ", " of always naming the largest class"


def test_a_warning_of_the_package_is_one_line(tmp_path, monkeypatch, capsys):
    arguments = ["train", "digits", "--preset", "nano", "--limit", "150", "--max-iter", "2"]
    before = warnings.showwarning
    _, err = call(
        monkeypatch,
        capsys,
        *arguments,
        "--patience",
        "1",
        "--workers",
        "1",
        "--out",
        tmp_path / "r",
    )
    assert "\nwarning: patience=1 has no effect, since it looks at a validation part" in err
    assert "UserWarning" not in err
    assert warnings.showwarning is before


@pytest.mark.parametrize(
    ("images", "options", "expected"),
    [
        ("noise", ["--units", "100", "--subnets", "1", "--limit", "100"], [FAR, CHANCE]),
        ("noise", ["--units", "2", "--subnets", "1"], [CHANCE]),
        ("digits", ["--units", "60", "--subnets", "1", "--limit", "70"], [FAR]),
        ("digits", ["--units", "20", "--subnets", "1"], []),
    ],
    ids=["both", "chance", "by heart", "neither"],
)
def test_figures_that_speak_against_a_run_are_told(
    images, options, expected, tmp_path, monkeypatch, capsys
):
    source = images if images == "digits" else noise(tmp_path / "noise.npz", 1500)
    arguments = ["train", source, *options, "--max-iter", "2", "--ridge", "1e-6", "--workers", "1"]
    out, err = call(monkeypatch, capsys, *arguments, "--json", "--out", tmp_path / "run")
    report = json.loads(out)
    told = report["warnings"]
    assert len(told) == len(expected)
    for line, part in zip(told, expected, strict=True):
        assert part in line
        assert f"warning: {line}" in err
    train, test = (f"{100 * report[k]:.1f}%" for k in ("train_accuracy", "inductive_accuracy"))
    for line in told:
        assert line.startswith(
            f"training accuracy {train}" if FAR in line else f"test accuracy {test}"
        )


def test_epochs_are_judged_by_their_best_validation_images():
    from rankwise.runs.cautions import warnings_of

    report = {"train_accuracy": 0.9, "inductive_accuracy": 0.5, "n_subnets": 0}
    report["output_layer"] = "trained"
    epochs = [{"validation_accuracy": share} for share in (0.6, 0.7, None, 0.65)]
    (line,) = warnings_of(report | {"history": epochs}, np.arange(100) % 10)
    assert line.startswith(
        "training accuracy 90.0% is far above the 70.0% of the validation images"
    )
    epochs[1]["validation_accuracy"] = 0.76
    assert warnings_of(report | {"history": epochs}, np.arange(100) % 10) == []
    # The epochs' accuracies are of the layer that training left, not of a glue.
    report |= {"history": epochs, "output_layer": "glue"}
    (line,) = warnings_of(report, np.arange(100) % 10)
    assert line.startswith("training accuracy 90.0% is far above the 50.0% of the test images")


def test_what_a_cluster_takes_of_a_convolutional_preset_is_said(tmp_path, monkeypatch, capsys):
    arguments = ["train", "digits", *CONVOLUTIONAL, "--out", tmp_path / "a"]
    _, err = call(monkeypatch, capsys, *arguments, "--cluster", "local:1")
    told = "preset 'tiny' is trained on this machine: --cluster takes its glue at most; presets"
    assert told in err.replace("\n", " ")
    _, err = call(monkeypatch, capsys, *arguments, "--overwrite")
    assert "on this machine: --cluster" not in err.replace("\n", " ")


def test_another_model_leaves_no_export_of_the_one_before(trained, tmp_path):
    from rankwise.export import C_PRECISIONS, FORMATS
    from rankwise.runs.records import discard_model

    for precision in C_PRECISIONS:
        for ending in FORMATS.values():
            suffix = "" if precision == "float32" else f"_{precision}"
            (tmp_path / f"rankwise_model{suffix}{ending}").touch()
    (tmp_path / "own.html").touch()
    discard_model(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["own.html"]


def test_parts_that_share_a_source_are_refused(tmp_path, monkeypatch, capsys):
    for part, first in (("train", 0), ("validation", 4), ("test", 5)):
        class_folders(tmp_path / "set" / part, per_class=12)
        for path in sorted((tmp_path / "set" / part).rglob("*.png")):
            number = first + int(path.stem[0]) % 2 + 10 * (part == "train")
            path.rename(path.with_name(f"p{number}_{path.stem}.png"))
    train = [
        "train",
        tmp_path / "set",
        "--preset",
        "nano",
        "--max-iter",
        "1",
        "--out",
        tmp_path / "a",
    ]
    _, err = call(monkeypatch, capsys, *train, "--source-pattern", r"^(p\d+)_", expect=1)
    assert "Parts 2 and 3 of a split share 1 source id(s), such as 'p5'" in " ".join(err.split())


def test_sub_networks_that_nobody_named_read_no_validation_part(tmp_path, monkeypatch, capsys):
    for part in ("train", "validation", "test"):
        class_folders(tmp_path / "set" / part)
    out, err = call(
        monkeypatch, capsys, "train", tmp_path / "set", *FAST, "--out", tmp_path / "a", "--json"
    )
    assert json.loads(out)["validation"] is None
    assert "left to choose" not in err
    # What every classifier takes says nothing of sub-networks.
    usual = ["--calibrate", "--max-iter", "1", "--workers", "1", "--out", tmp_path / "b", "--json"]
    out, _ = call(monkeypatch, capsys, "train", tmp_path / "set", *usual)
    assert json.loads(out)["validation"]["n_samples"] == 24


def test_images_of_two_channels_have_a_report(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 12, 12, 2), dtype=np.uint8), np.arange(60) % 2
    np.savez(tmp_path / "two.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    options = ["--preset", "nano", "--max-iter", "1", "--out", tmp_path / "run"]
    call(monkeypatch, capsys, "train", tmp_path / "two.npz", *options)
    assert (tmp_path / "run" / "report.json").exists()
    assert (tmp_path / "run" / "units.png").exists()
