"""Figure A.2 and Table 5: as in the paper, as the networks are, and readable."""

import json

import pytest
from torch import nn

from cli_cases import call
from rankwise.nets import make_network
from rankwise.nets.diagram import diagram_text, draw_diagram, drawn_networks, table_5


@pytest.fixture(scope="module")
def networks():
    return drawn_networks()


def test_every_layer_is_in_a_box(networks):
    for network in networks:
        times = [
            int(label.split("(")[1].split()[0]) if label.endswith("times)") else 1
            for label, _ in network.boxes
        ]
        assert sum(times) == len(network.summary.layers)


def test_filters_grow_with_depth_as_in_the_figure(networks):
    blocks = [box for box in networks[1].boxes if box[0].startswith("RCB")]
    assert blocks == [
        ("RCB, 64 filters  (4 times)", "25×25×64"),
        ("RCB, 128 filters /2", "13×13×128"),
        ("RCB, 128 filters  (4 times)", "13×13×128"),
        ("RCB, 256 filters /2", "7×7×256"),
        ("RCB, 256 filters  (2 times)", "7×7×256"),
    ]
    kinds = [label.split()[0] for label, _ in networks[0].boxes]
    assert kinds[2:7] == ["convolution", "max", "convolution", "max", "convolution"]


def test_the_table_has_the_papers_figures_beside_those_that_are_counted(networks):
    counted = []
    for network in networks:
        model = make_network(network.name, network.image_shape, network.n_classes)
        counted.append(sum(p.numel() for p in model.parameters() if p.requires_grad))
    assert [row[2:] for row in table_5(networks)[1:]] == [
        ("9 (without dropout)", "9", "100K", f"{counted[0]:,}"),
        ("25 (incl. dropout)", "25", "5M", f"{counted[1]:,}"),
    ]


def test_what_is_drawn_of_a_block_is_what_a_block_has(networks):
    network = make_network("resnet25", (100, 100, 3), 2)
    block = network.blocks[4]
    assert [type(m) for m in (block.conv1, block.norm1, block.conv2, block.norm2)] == [
        nn.Conv2d, nn.BatchNorm2d, nn.Conv2d, nn.BatchNorm2d
    ]  # fmt: skip
    assert block.conv1.kernel_size == block.conv2.kernel_size == (3, 3)
    assert [type(m) for m in block.shortcut] == [nn.Conv2d, nn.BatchNorm2d]
    text = diagram_text(networks)
    assert "x -+- conv 3×3 - batch norm - ReLU - conv 3×3 - batch norm -(+)- ReLU ->" in text


def test_text_fits_a_terminal_and_the_picture_has_every_word(networks):
    text = diagram_text(networks)
    assert max(map(len, text.splitlines())) <= 80
    sheet = draw_diagram(networks)
    drawn = [found.get_text() for axis in sheet.subfigs[0].axes for found in axis.texts]
    for network in networks:
        for label, shape in network.boxes:
            assert label in text
            assert shape in text
            assert label in drawn
            assert shape in drawn


def test_the_command(tmp_path, monkeypatch, capsys):
    out, _ = call(monkeypatch, capsys, "nets")
    assert out == diagram_text(drawn_networks()) + "\n"
    out, _ = call(monkeypatch, capsys, "nets", "--out", tmp_path / "a.png")
    assert out == f"{tmp_path / 'a.png'}\n"
    assert (tmp_path / "a.png").stat().st_size > 50_000
    out, _ = call(monkeypatch, capsys, "nets", "--out", tmp_path / "a.html", "--json")
    found = json.loads(out)
    assert [n["parameters"] for n in found["networks"]] == [104_202, 4_998_210]
    assert [n["depth"] for n in found["networks"]] == [9, 25]
    assert "<title>The networks of figure A.2</title>" in (tmp_path / "a.html").read_text()
    _, err = call(monkeypatch, capsys, "nets", "--out", tmp_path / "a.doc", expect=1)
    assert "doesn't end in one of" in err
