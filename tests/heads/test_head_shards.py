"""Heads of several places and days: any order, exact leave-one-out, certificates, positions."""

import itertools
import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from rankwise import VarProHead
from rankwise.heads.head import solve_head

pytestmark = pytest.mark.filterwarnings("ignore:the ridge of merged heads:UserWarning")


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x[:900], y[:900]


def shards(x, y, cuts=(0, 200, 230, 600, 900)):
    return [(x[a:b], y[a:b]) for a, b in itertools.pairwise(cuts)]


def test_merged_in_any_order_the_bits_are_the_same(digits):
    heads = [VarProHead().fit(*shard) for shard in shards(*digits)]
    digests = set()
    for order in itertools.permutations(range(4)):
        head = VarProHead()
        for i in order:
            head.merge(heads[i])
        digests.add(head.coef_.tobytes() + head.intercept_.tobytes())
    # Merged in two branches, and from statistics alone.
    left = VarProHead().merge(heads[3]).merge(heads[1])
    right = VarProHead().merge(heads[0].statistics_).merge(heads[2])
    digests.add(left.merge(right).coef_.tobytes() + left.intercept_.tobytes())
    given = VarProHead.from_statistics([h.statistics_ for h in heads])
    digests.add(given.coef_.tobytes() + given.intercept_.tobytes())
    assert len(digests) == 1
    whole = VarProHead("gcv").fit(*digits)
    np.testing.assert_allclose(given.outputs(digits[0]), whole.outputs(digits[0]), atol=1e-8)


def test_classes_that_arrive_later_give_the_layer_of_all_at_once(digits):
    x, y = digits
    whole = VarProHead("gcv").fit(x, y)
    head = VarProHead("gcv")
    for classes in ((3, 7), (0,), (1, 2, 4, 5), (6, 8, 9)):
        new = np.isin(y, classes)
        # A head can't be fitted on one class, but its statistics can be gathered.
        head.merge(VarProHead("gcv").partial_fit(x[new], y[new], classes=classes))
    np.testing.assert_array_equal(head.classes_, whole.classes_)
    np.testing.assert_allclose(head.coef_, whole.coef_, atol=1e-8)
    np.testing.assert_allclose(head.intercept_, whole.intercept_, atol=1e-8)


def test_what_each_shard_brought_is_saved_so_later_ones_give_the_same_bits(digits, tmp_path):
    parts = [VarProHead("gcv").fit(*part) for part in shards(*digits)]
    parts[1].unlearn(*(v[:5] for v in shards(*digits)[1]))
    whole = VarProHead("gcv")
    for part in parts:
        whole.merge(part)
    for count in (1, 2, 3):
        some = VarProHead("gcv")
        for part in parts[:count]:
            some.merge(part)
        some.save(tmp_path / str(count))
        loaded = VarProHead.load(tmp_path / str(count))
        for part in parts[count:][::-1]:
            loaded.merge(part)
        np.testing.assert_array_equal(loaded.coef_, whole.coef_)
        np.testing.assert_array_equal(loaded.statistics_.scatter, whole.statistics_.scatter)
    assert len(VarProHead.load(tmp_path / "3")._parts) == 3


def test_shards_choose_the_ridge_by_exact_leave_one_out(digits):
    x, y = digits
    whole = VarProHead().fit(x, y)
    parts = shards(x, y)
    with pytest.warns(UserWarning, match="for exact leave-one-out give choose_ridge"):
        head = VarProHead().merge(VarProHead().fit(*parts[0])).merge(VarProHead().fit(*parts[1]))
    for part in parts[2:]:
        head.merge(VarProHead().fit(*part).statistics_)
    assert head.chosen_by_ == "gcv"
    errors = [head.left_out_errors(*part) for part in parts]
    found = head.choose_ridge(errors)
    assert (found.chosen_by_, found.alpha_) == ("loo", pytest.approx(whole.alpha_))
    np.testing.assert_allclose(
        [e for _, e in found.criterion_], [e for _, e in whole.criterion_], rtol=1e-8
    )
    np.testing.assert_allclose(found.outputs(x), whole.outputs(x), atol=1e-8)
    before = found.criterion_
    assert head.choose_ridge(errors[::-1]).criterion_ == before, "to the bit"
    with pytest.raises(ValueError, match="weigh 690, but the head has seen 900"):
        head.choose_ridge([errors[0], errors[1], errors[2], errors[1], errors[1], errors[1]])
    other = VarProHead(alphas=[1.0, 2.0]).fit(x, y)
    with pytest.raises(ValueError, match="are of different ridges"):
        head.choose_ridge([*errors[1:], other.left_out_errors(*parts[0])])
    with pytest.raises(ValueError, match="no left-out errors"):
        head.choose_ridge([])


def test_from_statistics_takes_nothing_else(digits):
    for given in ([], [3], "statistics"):
        with pytest.raises(ValueError, match="takes ClassStatistics, one or several"):
            VarProHead.from_statistics(given)
    with pytest.raises(ValueError, match="alpha must be"):
        VarProHead.from_statistics(VarProHead("gcv").fit(*digits).statistics_, alpha="none")


def test_a_removal_is_certified(digits, tmp_path):
    x, y = digits
    head = VarProHead("gcv").fit(x, y)
    path = tmp_path / "removal.json"
    head.unlearn(x[:40], y[:40], certificate=path, rest=(x[40:], y[40:]))
    record = json.loads(path.read_text(encoding="utf-8"))
    assert head.removals_ == [record]
    assert record["removed"]["n_samples"] == 40
    assert sum(c["n_samples"] for c in record["removed"]["by_class"].values()) == 40
    assert (record["before"]["n_samples"], record["after"]["n_samples"]) == (900, 860)
    assert record["before"]["sha256"] != record["after"]["sha256"]
    assert 0 < record["difference"]["bound"] < 1e-10
    measured = record["difference"]["measured"]
    assert 0 < measured["scatter"] < 1e-10
    assert measured["means"] < 1e-10
    again = VarProHead("gcv").fit(x, y).unlearn(x[:40], y[:40])
    assert again.removals_[0]["removed"]["sha256"] == record["removed"]["sha256"]
    assert "measured" not in again.removals_[0]["difference"]
    coef = head.coef_.copy()
    with pytest.raises(ValueError, match="all samples that stay are needed"):
        head.unlearn(x[40:50], y[40:50], rest=(x[60:], y[60:]))
    np.testing.assert_array_equal(head.coef_, coef)
    assert len(head.removals_) == 1
    assert not hasattr(head.fit(x, y), "removals_"), "another fit has nothing taken out"


# -- positions ---------------------------------------------------------------------------------


@pytest.fixture
def wrong(digits):
    x, y = digits[0][:300], digits[1][:300].copy()
    y[:6] = (y[:6] + 3) % 10
    return TensorDataset(torch.as_tensor(x), torch.as_tensor(y)), x, y


@pytest.mark.parametrize("shuffle", [False, True])
def test_positions_are_those_of_the_data_set(wrong, shuffle):
    data, x, y = wrong
    torch.manual_seed(0)
    loader = DataLoader(data, batch_size=32, shuffle=shuffle)
    head = VarProHead().fit(loader)
    plain = VarProHead().fit(x, y)
    rows, margins = head.likely_wrong_labels(loader)
    expected, same = plain.likely_wrong_labels(x, y)
    np.testing.assert_array_equal(rows[:20], expected[:20])
    np.testing.assert_allclose(margins, same, atol=1e-8)
    np.testing.assert_allclose(
        head.leave_one_out_predictions(loader), plain.leave_one_out_predictions(x, y), atol=1e-8
    )


class Shuffled:
    """Blocks in another order each time."""

    def __init__(self, x, y):
        self.x, self.y, self.seed = x, y, 0

    def __iter__(self):
        self.seed += 1
        order = np.random.default_rng(self.seed).permutation(len(self.y))
        for rows in np.array_split(order, 5):
            yield self.x[rows], self.y[rows]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_draws_as_ever_and_leaves_the_generator_as_it_was(digits, shuffle):
    x, y = (torch.as_tensor(v[:200]) for v in digits)
    orders = []

    class Seen(TensorDataset):
        def __getitem__(self, row):
            orders[-1].append(row)
            return super().__getitem__(row)

    loader = DataLoader(Seen(x, y), batch_size=64, shuffle=shuffle)
    torch.manual_seed(3)
    orders.append([])
    for _ in range(2):  # the two looks of leave-one-out
        list(loader)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    orders.append([])
    head = VarProHead().fit(loader)
    assert orders[1] == orders[0]
    orders.append([])
    head.predict(loader)
    head.likely_wrong_labels(loader)
    head.left_out_errors(loader)
    VarProHead("gcv").partial_fit(loader).unlearn(loader)
    with pytest.raises(ValueError, match="wrong"):
        VarProHead().fit(failing(loader))
    assert torch.equal(torch.get_rng_state(), before)


def failing(loader):
    yield next(iter(loader))
    raise ValueError("wrong")


def test_positions_that_mean_nothing_are_refused(wrong):
    data, x, y = wrong
    head = VarProHead().fit(x, y)
    some = SubsetRandomSampler(range(300))
    for loader in (Shuffled(x, y), DataLoader(data, batch_size=50, sampler=some)):
        for call in (head.likely_wrong_labels, head.leave_one_out_predictions):
            with pytest.raises(ValueError, match="gives its samples in another order each time"):
                call(loader)
    blocks = [(x[:100], y[:100]), (x[100:], y[100:])]
    np.testing.assert_array_equal(
        head.likely_wrong_labels(blocks)[0], head.likely_wrong_labels(x, y)[0]
    )


# -- a network's own layer -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda y: y + 1, "label 4 has no output in the network's head, which has 4"),
        (lambda y: y - 1, "label -1 has no output"),
        (lambda y: y * 0.5, r"whole numbers of shape \(n,\), got float64"),
        (lambda y: y[:, None], r"of shape \(40, 1\)"),
        (lambda y: y[:-1], "inconsistent numbers of samples"),
        (lambda y: y * 0, "only one class"),
    ],
)
def test_a_layer_is_not_touched_before_all_is_checked(labels, message):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 4))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8)
    with pytest.raises(ValueError, match=message):
        solve_head(network, images, labels(np.arange(40) % 4))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_the_old_place_of_solve_head_still_leads_to_it():
    from rankwise.nets import head

    assert head.solve_head is solve_head
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        _ = head.other
