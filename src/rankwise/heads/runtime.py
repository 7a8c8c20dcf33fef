"""A backbone on the CPU through onnxruntime, where it is installed and the layers allow it.

On EfficientNet-Lite0 it gives several times the images a second of torch
(`benchmarks/probes.py`). Torch computes what can't be written as ONNX, and everything on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from rankwise._fingerprints import NoFingerprintError, fingerprint
from rankwise.heads.backbones import Backbone
from rankwise.heads.layer_graph import NotAGraphError, describe_layers
from rankwise.heads.onnx_layers import NoCounterpartError, OnnxNodes, onnx_model, write_steps
from rankwise.nets.borrowing import evaluating

Run = Callable[[np.ndarray], np.ndarray]

OFF = "RANKWISE_ONNXRUNTIME"
"""Environment variable: ``0`` leaves everything to torch."""

# One a backbone, of its present weights and the last shape of images: looked up anew in each call.
_KEPT: WeakKeyDictionary[Backbone, tuple[Any, Run | None]] = WeakKeyDictionary()


def runtime_of(backbone: Backbone, shape: tuple[int, int, int]) -> Run | None:
    """From float32 images ``(n, *shape)`` in [-1, 1] to features; None where torch computes.

    Parameters
    ----------
    backbone : Backbone
    shape : (C, H, W)
    """
    if os.environ.get(OFF) == "0" or not (find_spec("onnx") and find_spec("onnxruntime")):
        return None
    try:
        key = (fingerprint(backbone, package=False), shape, torch.get_num_threads())
    except NoFingerprintError:
        return _made(backbone, shape)  # and not kept: nothing would tell that it has changed
    kept = _KEPT.get(backbone)
    if kept is None or kept[0] != key:
        kept = key, _made(backbone, shape)
        _KEPT[backbone] = kept
    return kept[1]


def write_backbone(
    nodes: OnnxNodes, backbone: Backbone, images: str, shape: tuple[int, ...]
) -> str:
    """Add preparation, layers and pooling to an ONNX graph; gives the features' name.

    Parameters
    ----------
    nodes : OnnxNodes
    backbone : Backbone
    images : str
        Float32 ``(n, *shape)`` in [-1, 1].
    shape : (C, H, W)

    Raises
    ------
    NotAGraphError, NoCounterpartError
        If the network can't be written so; the message names the layer.
    """
    with evaluating(backbone):  # somebody's own may be in training mode, with statistics that move
        return _written(nodes, backbone, images, shape)


def _written(nodes: OnnxNodes, backbone: Backbone, images: str, shape: tuple[int, ...]) -> str:
    bare = backbone.bare()
    steps = describe_layers(bare)
    preparation = backbone.preparation
    x = images
    if preparation.channels not in (None, shape[0]):
        x = nodes.add("Concat", *[x] * int(preparation.channels or 1), axis=1)
    found = preparation.matrices(shape[1], shape[2])
    if found is not None:
        x = nodes.add("MatMul", x, nodes.tensor(found[1].T))
        x = nodes.add("MatMul", nodes.tensor(found[0]), x)
    normal = preparation.affine()
    if normal is not None:
        factor, shift = (v[:, None, None] for v in normal)
        x = nodes.add("Add", nodes.add("Mul", x, nodes.tensor(factor)), nodes.tensor(shift))
    features = write_steps(nodes, steps, bare, x)
    n_axes = bare(preparation(torch.zeros(1, *shape))).ndim
    if n_axes == 4:
        axes = nodes.tensor(np.array([2, 3], dtype=np.int64))
        features = nodes.add("ReduceMean", features, axes, keepdims=0)
    elif n_axes != 2:
        features = nodes.add("Flatten", features, axis=1)
    if preparation.power == 1.0:
        return features
    exponent = nodes.tensor(np.float32(preparation.power))
    size = nodes.add("Pow", nodes.add("Abs", features), exponent)
    return nodes.add("Mul", nodes.add("Sign", features), size)


def classifier_model(
    backbone: Backbone,
    image_shape: tuple[int, ...],
    coef: np.ndarray,
    intercept: np.ndarray,
    metadata: dict[str, str],
    batch: int | None = None,
) -> bytes:
    """An ONNX file of backbone and head: uint8 ``image`` to logits, probabilities and label.

    Parameters
    ----------
    backbone : Backbone
    image_shape : (H, W) or (H, W, C)
    coef, intercept : float64 arrays of shape (K, d) and (K,)
        Divided by the temperature.
    metadata : dict
    batch : int, optional
        A fixed number of images; default any.

    Raises
    ------
    ValueError
        If a layer of the backbone isn't written as ONNX.
    """
    from onnx import TensorProto, helper

    height, width, *more = image_shape
    channels = more[0] if more else 1
    nodes = OnnxNodes()
    x = nodes.add("Cast", "image", to=TensorProto.FLOAT)
    if more:
        x = nodes.add("Transpose", x, perm=[0, 3, 1, 2])
    else:
        x = nodes.add("Unsqueeze", x, nodes.tensor(np.array([1], dtype=np.int64)))
    x = nodes.add("Mul", x, nodes.tensor(np.float32(1 / 127.5)))
    x = nodes.add("Sub", x, nodes.tensor(np.float32(1.0)))
    features = write_backbone(nodes, backbone, x, (channels, height, width))
    product = nodes.add("MatMul", features, nodes.tensor(coef.T))
    nodes.add("Add", product, nodes.tensor(intercept), name="logits")
    nodes.add("Softmax", "logits", name="probabilities", axis=1)
    nodes.add("ArgMax", "logits", name="label", axis=1, keepdims=0)
    rows = batch or "n"
    info, k = helper.make_tensor_value_info, len(intercept)
    model = onnx_model(
        nodes,
        [info("image", TensorProto.UINT8, [rows, *image_shape])],
        [
            info("logits", TensorProto.FLOAT, [rows, k]),
            info("probabilities", TensorProto.FLOAT, [rows, k]),
            info("label", TensorProto.INT64, [rows]),
        ],
    )
    helper.set_model_props(model, metadata)
    return model.SerializeToString(deterministic=True)


def _made(backbone: Backbone, shape: tuple[int, int, int]) -> Run | None:
    import onnxruntime
    from onnx import TensorProto, helper

    nodes = OnnxNodes()
    try:
        features = write_backbone(nodes, backbone, "images", shape)
        model = onnx_model(
            nodes,
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", *shape])],
            [helper.make_tensor_value_info(features, TensorProto.FLOAT, ["n", "d"])],
        )
    except (NotAGraphError, NoCounterpartError):
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )

    def run(batch: np.ndarray) -> np.ndarray:
        return session.run(None, {"images": np.ascontiguousarray(batch)})[0]

    return run
