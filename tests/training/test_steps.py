"""Optimisers' steps against slow references, and the precision of training."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankwise.training import muon
from rankwise.training.precision import resolve_precision
from rankwise.training.steps import Steps

CHOICES = {"learning_rate": 0.01, "matrix_rate": 0.5, "weight_decay": 0.02}


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*size, generator=generator) for size in ((6, 2, 5), (6, 2, 3), (7,))]


def test_muon_steps_along_the_nearest_orthogonal_matrix():
    """Its iteration brings singular values to 0.7 to 1.2, not to 1: the direction is theirs."""
    held = parameters()
    steps = Steps(held, held[:1], optimiser="muon", **CHOICES)
    before = held[0].clone()
    gradient = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(5))
    for parameter in held:
        parameter.grad = torch.ones_like(parameter)
    held[0].grad = gradient
    steps.step()
    u, _, v = np.linalg.svd(gradient.reshape(12, 5).double().numpy(), full_matrices=False)
    # Wide matrices would step further: √(rows / columns) times.
    moved = before.reshape(12, 5).double().numpy() - 0.5 * np.sqrt(12 / 5) * (u @ v)
    expected = moved * np.sqrt(12) / np.linalg.norm(moved)
    found = held[0].reshape(12, 5).double().numpy()
    assert np.linalg.norm(found) == pytest.approx(np.sqrt(12), rel=1e-5)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.2


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_the_iteration_is_its_polynomial_of_the_singular_values(rows, columns, seed):
    matrix = np.random.default_rng(seed).standard_normal((rows, columns))
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    found = muon.orthogonalised(torch.from_numpy(matrix)).numpy()
    np.testing.assert_allclose(found, u * s @ v, atol=1e-9)


def test_a_gradient_of_zeros_moves_nothing():
    matrix = torch.ones(3, 2)
    muon.step(matrix, torch.zeros(3, 2), torch.zeros(3, 2), rate=1.0, momentum=0.9)
    assert torch.equal(matrix, torch.ones(3, 2))


@pytest.mark.parametrize("size", [(12, 5), (5, 12)])
def test_its_steps_are_those_of_torch_s_muon_but_for_bfloat16(size):
    generator = torch.Generator().manual_seed(1)
    ours = torch.randn(*size, generator=generator)
    theirs, buffer = torch.nn.Parameter(ours.clone()), torch.zeros(*size)
    optimiser = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.0, momentum=0.85)
    for _ in range(4):
        theirs.grad = torch.randn(*size, generator=generator)
        before = ours.clone()
        muon.step(ours, theirs.grad, buffer, rate=0.1, momentum=0.85)
        optimiser.step()
        length = (ours - before).norm()
        assert (ours - theirs.detach()).norm() < 0.1 * length


def test_threads_change_no_bit():
    def run(**options):
        generator = torch.Generator().manual_seed(0)
        held = [torch.randn(n, 1, 130, generator=generator) for n in (130, 140, 3)]
        steps = Steps(held, held[:2], optimiser="muon", **CHOICES)
        for _ in range(2):
            for parameter in held:
                parameter.grad = parameter.sin()
            steps.step(**options)
        return held

    with ThreadPoolExecutor(3) as pool:
        for a, b in zip(run(), run(run=pool.map), strict=True):
            assert torch.equal(a, b)


def test_what_is_no_matrix_goes_by_adamw():
    one, two = parameters(), parameters()
    steps = Steps(one, one[:1], optimiser="muon", **CHOICES)
    adamw = torch.optim.AdamW(two[1:], lr=0.01, weight_decay=0.02)
    for share in (1.0, 0.5, 0.1):
        for a, b in zip(one, two, strict=True):
            a.grad, b.grad = a.clone(), b.clone()
        assert steps.set_share(share) == pytest.approx(0.01 * share)
        adamw.param_groups[0]["lr"] = 0.01 * share
        steps.step()
        adamw.step()
    for a, b in zip(one[1:], two[1:], strict=True):
        assert torch.equal(a, b)
    theirs = [adamw.state[p] for p in two[1:]]
    for i, state in enumerate(theirs):
        for name, value in state.items():
            assert torch.equal(steps.tensors()[f"{i}.{name}"], value), "as checkpoints name it"


def test_without_a_gradient_nothing_moves():
    held = parameters()
    before = [p.clone() for p in held]
    steps = Steps(held, held[:1], optimiser="muon", **CHOICES)
    held[2].grad = torch.ones(7)
    steps.step()
    assert [torch.equal(a, b) for a, b in zip(held, before, strict=True)] == [True, True, False]


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_state_goes_on_where_it_was(optimiser):
    def run(n, held, state=None):
        steps = Steps(held, held[:1], optimiser=optimiser, **CHOICES)
        steps.load(state or {})
        for _ in range(n):
            for parameter in held:
                parameter.grad = parameter.sin()
            steps.step()
        return {name: value.clone() for name, value in steps.tensors().items()}

    whole, parts = parameters(), parameters()
    run(4, whole)
    run(2, parts, run(2, parts))
    for a, b in zip(whole, parts, strict=True):
        assert torch.equal(a, b)


def test_auto_is_what_the_processor_has(monkeypatch):
    for native, expected in ((True, "bfloat16"), (False, "float32")):
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda native=native: native)
        assert resolve_precision("auto") == expected
        assert resolve_precision("float32") == "float32"
        assert resolve_precision("bfloat16") == "bfloat16"
    with pytest.raises(ValueError, match="unknown precision 'half'; accepted: float32, bfloat16"):
        resolve_precision("half")
