"""Ray, where it is installed: the bits of one machine."""

import numpy as np
import pytest

import rankwise
from rankwise import QuadraticClassifier, Subnetworks
from rankwise.errors import MissingDependencyError


def test_without_ray_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with (
        pytest.raises(MissingDependencyError, match=r"ray is a cluster of Ray's: pip install"),
        rankwise.cluster("ray"),
    ):
        pass


def test_a_fit_has_the_bits_of_one_machine(digits):
    ray = pytest.importorskip("ray")
    images, labels = (np.repeat(array, 3, axis=0) for array in digits)
    options = {"n_units": 24, "n_subnets": 3, "subnets": Subnetworks(samples=200), "max_iter": 1}
    one = QuadraticClassifier(**options).fit(images, labels)
    with rankwise.cluster("ray") as executor:
        other = QuadraticClassifier(**options).fit(images, labels)
        outputs = other.outputs(images)
        with pytest.raises(ZeroDivisionError):
            list(executor.map(lambda n: n // 0, [1]))
        assert executor.describe()["kernels"]
    assert not ray.is_initialized()
    np.testing.assert_array_equal(one.network_.coef, other.network_.coef)
    np.testing.assert_array_equal(one.outputs(images), outputs)
