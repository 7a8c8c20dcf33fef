"""Each adapter by the habits of its library."""

import importlib
import os
import sys
import types

os.environ.setdefault("KERAS_BACKEND", "torch")

import albumentations
import keras
import kornia.augmentation
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lowrank.photos import photo_crops
from rankwise.errors import MissingDependencyError
from rankwise.lowrank import RandomLowRank, low_rank_approximation
from rankwise.lowrank.adapters import albumentations as with_albumentations
from rankwise.lowrank.adapters import keras as with_keras
from rankwise.lowrank.adapters import kornia as with_kornia


class TestAlbumentations:
    """Schema, serialisation, seeds, workers."""

    def transform(self, **kwargs):
        return with_albumentations.RandomLowRank(**{"energy": (0.4, 0.8), "p": 1.0, **kwargs})

    def test_copies_are_ours(self):
        image = photo_crops(32)[0]
        result = self.transform(energy=0.7)(image=image, mask=image[..., 0])
        assert (result["image"] == low_rank_approximation(image, energy=0.7)).all()
        assert (result["mask"] == image[..., 0]).all()
        grey = self.transform(energy=0.7)(image=image[..., 0])["image"]
        assert (grey == low_rank_approximation(image[..., 0], energy=0.7)).all()
        floats = self.transform(energy=0.7)(image=image.astype(np.float32) / 255)["image"]
        assert floats.dtype == np.float32
        stack = self.transform(energy=0.7)(images=photo_crops(32)[:3])["images"]
        assert (stack[1] == low_rank_approximation(photo_crops(32)[1], energy=0.7)).all()

    @pytest.mark.parametrize(
        "wrong",
        [{"energy": 1.5}, {"energy": "x"}, {"channels": "rgb"}, {"p": 2}, {"reference": "x"}],
    )
    def test_the_schema_refuses(self, wrong):
        with pytest.raises(ValueError, match="validation error"):
            self.transform(**wrong)

    def test_serialisation_round_trip(self):
        pipeline = albumentations.Compose([self.transform(channels="shared")])
        again = albumentations.from_dict(albumentations.to_dict(pipeline))
        assert albumentations.to_dict(again) == albumentations.to_dict(pipeline)
        image = photo_crops(32)[1]
        for each in (pipeline, again):
            each.set_random_seed(5)
        assert (pipeline(image=image)["image"] == again(image=image)["image"]).all()

    def test_a_seeded_compose_repeats_itself(self):
        image = photo_crops(32)[0]

        def five(seed):
            pipeline = albumentations.Compose([self.transform(p=0.5)], seed=seed)
            return np.stack([pipeline(image=image)["image"] for _ in range(5)])

        assert (five(1) == five(1)).all()
        assert (five(1) != five(2)).any()
        untouched = (five(1) == image).all(axis=(1, 2, 3)).sum()
        assert 0 < untouched < 5

    def test_replay(self):
        pipeline = albumentations.ReplayCompose([self.transform()])
        image = photo_crops(32)[0]
        first = pipeline(image=image)
        again = albumentations.ReplayCompose.replay(first["replay"], image=image)
        assert (again["image"] == first["image"]).all()

    def test_worker_processes(self):
        pipeline = albumentations.Compose([self.transform()], seed=3)
        loader = DataLoader(AlbumentationsImages(pipeline), num_workers=2)
        copies = [copy.numpy()[0] for copy in loader]
        assert len(copies) == 6
        assert all((copy != photo_crops(32)[0]).any() for copy in copies)


class AlbumentationsImages(Dataset):
    def __init__(self, pipeline):
        self.pipeline = pipeline

    def __len__(self):
        return 6

    def __getitem__(self, i):
        return self.pipeline(image=photo_crops(32)[0])["image"]


class TestKornia:
    """Parameter generator, replay, same_on_batch."""

    def images(self):
        return torch.from_numpy(photo_crops(32)[:6].transpose(0, 3, 1, 2) / 255).float()

    def test_copies_are_ours(self):
        images = self.images()
        copies = with_kornia.RandomLowRank(energy=0.7, p=1.0)(images)
        assert torch.equal(copies, low_rank_approximation(images, energy=0.7))
        assert torch.equal(images, self.images())
        single = with_kornia.RandomLowRank(energy=0.7, p=1.0, keepdim=True)(images[0])
        assert torch.allclose(single, copies[0], atol=1e-6)

    def test_parameters_and_replay(self):
        images = self.images()
        torch.manual_seed(1)
        augmentation = with_kornia.RandomLowRank(energy=(0.4, 0.8), p=0.5)
        copies = augmentation(images)
        chosen = augmentation._params["batch_prob"].bool()
        energies = augmentation._params["energy"]
        assert ((energies >= 0.4) & (energies <= 0.8)).all()
        assert 0 < int(chosen.sum()) < 6
        assert torch.equal(copies[~chosen], images[~chosen])
        for i in torch.nonzero(chosen)[:, 0]:
            place = int(i)
            expected = low_rank_approximation(images[i], energy=float(energies[place]))
            assert torch.allclose(copies[i], expected, atol=1e-6)
        assert torch.equal(augmentation(images, params=augmentation._params), copies)
        torch.manual_seed(1)
        assert torch.equal(with_kornia.RandomLowRank(energy=(0.4, 0.8), p=0.5)(images), copies)

    def test_same_on_batch(self):
        augmentation = with_kornia.RandomLowRank(energy=(0.4, 0.8), p=1.0, same_on_batch=True)
        augmentation(self.images())
        assert len(set(augmentation._params["energy"].tolist())) == 1

    def test_in_a_sequence(self):
        sequence = kornia.augmentation.AugmentationSequential(
            with_kornia.RandomLowRank(p=1.0), kornia.augmentation.RandomHorizontalFlip(p=1.0)
        )
        images = self.images()
        copies = sequence(images)
        assert copies.shape == images.shape
        assert torch.equal(sequence(images, params=sequence._params), copies)
        assert "NormalEnergy" in repr(sequence)


class TestKeras:
    """Training only, saved with the model, channels first and last."""

    def test_copies_are_ours_in_training_only(self):
        images = torch.from_numpy(photo_crops(32)[:4] / 255).float()
        layer = with_keras.RandomLowRank(energy=0.7, p=1)
        assert torch.equal(layer(images), images)
        expected = low_rank_approximation(images, energy=0.7, channel_axis=-1)
        assert torch.equal(layer(images, training=True), expected)
        assert torch.allclose(layer(images[0], training=True), expected[0], atol=1e-6)
        first = with_keras.RandomLowRank(energy=0.7, p=1, data_format="channels_first")
        turned = images.permute(0, 3, 1, 2)
        again = first(turned, training=True).permute(0, 2, 3, 1)
        assert torch.allclose(again, expected, atol=1e-6)

    def test_the_input_gets_a_gradient_and_a_compiled_graph_breaks_once(self):
        images = torch.from_numpy(photo_crops(16)[:3] / 255).float()
        layer = with_keras.RandomLowRank(energy=0.7, p=1)
        plain = layer(images, training=True)
        moved = images.clone().requires_grad_()
        copies = layer(moved, training=True)
        assert torch.equal(copies, plain)
        weights = torch.arange(copies.numel()).reshape(copies.shape).float()
        (copies * weights).sum().backward()
        assert torch.equal(moved.grad, weights)
        found = torch._dynamo.explain(lambda x: layer.call(x * 2, training=True) + 1)(images)
        assert found.graph_count <= 3

    def test_seed_and_probability(self):
        images = torch.from_numpy(photo_crops(32)[:20] / 255).float()

        def copies(seed):
            layer = with_keras.RandomLowRank(energy=(0.4, 0.8), p=0.5, seed=seed)
            return layer(images, training=True)

        assert torch.equal(copies(1), copies(1))
        assert not torch.equal(copies(1), copies(2))
        assert 0 < int((copies(1) == images).flatten(1).all(1).sum()) < 20

    def test_a_model_with_it_trains_and_loads(self, tmp_path):
        inputs = keras.Input((16, 16, 3))
        hidden = with_keras.RandomLowRank(energy=(0.4, 0.8), p=0.5, seed=1)(inputs)
        outputs = keras.layers.Dense(2)(keras.layers.Flatten()(hidden))
        model = keras.Model(inputs, outputs)
        model.compile(optimizer="sgd", loss="mse")
        images = photo_crops(16)[:8] / 255
        model.fit(images, np.zeros((8, 2)), epochs=1, verbose=0)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert np.allclose(again.predict(images, verbose=0), model.predict(images, verbose=0))
        layer = next(x for x in again.layers if isinstance(x, with_keras.RandomLowRank))
        assert layer.get_config() == model.layers[1].get_config()

    def test_other_back_ends_are_refused(self, monkeypatch):
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
        with pytest.raises(MissingDependencyError, match="set KERAS_BACKEND=torch"):
            with_keras.RandomLowRank()


class TestTorchvision:
    """With the flow of v2.Transform.forward: flatten, one draw, transform what is an image.

    torchvision has no build for this torch without a GPU index, so its part is played by the few
    lines of it that the adapter relies on.
    """

    @pytest.fixture
    def adapter(self, monkeypatch):
        class TVTensor(torch.Tensor):
            @classmethod
            def __torch_function__(cls, function, types, args=(), kwargs=None):
                with torch._C.DisableTorchFunctionSubclass():
                    output = function(*args, **(kwargs or {}))
                # As torchvision: what is computed from an image is a plain tensor.
                return output.as_subclass(torch.Tensor) if isinstance(output, cls) else output

        class TVImage(TVTensor):
            pass

        class Video(TVTensor):
            pass

        class Mask(TVTensor):
            pass

        class Transform(torch.nn.Module):
            def forward(self, *inputs):
                flat = list(inputs)
                params = self.make_params(flat)
                out = [self.transform(x, params) if self._wanted(x) else x for x in flat]
                return out[0] if len(out) == 1 else tuple(out)

            def _wanted(self, x):
                return any(
                    isinstance(x, kind) if isinstance(kind, type) else kind(x)
                    for kind in self._transformed_types
                )

        root = types.ModuleType("torchvision")
        tensors = types.ModuleType("torchvision.tv_tensors")
        tensors.Image, tensors.Video, tensors.Mask = TVImage, Video, Mask
        transforms = types.ModuleType("torchvision.transforms")
        v2 = types.ModuleType("torchvision.transforms.v2")
        v2.Transform = Transform
        v2.functional = types.SimpleNamespace(
            is_pure_tensor=lambda x: isinstance(x, torch.Tensor) and not isinstance(x, TVTensor)
        )
        root.tv_tensors, root.transforms, transforms.v2 = tensors, transforms, v2
        for module in (root, tensors, transforms, v2):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        name = "rankwise.lowrank.adapters.torchvision"
        monkeypatch.delitem(sys.modules, name, raising=False)
        yield importlib.import_module(name)
        sys.modules.pop(name, None)

    def test_images_change_and_the_rest_does_not(self, adapter):
        image = torch.from_numpy(photo_crops(32)[0].transpose(2, 0, 1).copy())
        expected = low_rank_approximation(image, energy=0.7)
        transform = adapter.RandomLowRank(energy=0.7, p=1)
        assert torch.equal(transform(image), expected)
        wrapped = image.as_subclass(adapter.tv_tensors.Image)
        mask = image[:1].as_subclass(adapter.tv_tensors.Mask)
        copy, same, label = transform(wrapped, mask, 7)
        assert type(copy) is adapter.tv_tensors.Image
        assert torch.equal(copy.as_subclass(torch.Tensor), expected)
        assert same is mask
        assert label == 7
        picture = transform(Image.fromarray(photo_crops(32)[0]))
        assert (np.asarray(picture) == expected.numpy().transpose(1, 2, 0)).all()
        video = torch.stack([image, image.flip(-1)]).as_subclass(adapter.tv_tensors.Video)
        copies = transform(video)
        assert type(copies) is adapter.tv_tensors.Video
        assert torch.equal(copies.as_subclass(torch.Tensor)[0], expected)
        for direct in (
            low_rank_approximation(wrapped, energy=0.7),
            RandomLowRank(0.7, p=1)(wrapped),
        ):
            assert type(direct) is adapter.tv_tensors.Image
            assert torch.equal(direct.as_subclass(torch.Tensor), expected)
        half = RandomLowRank(0.7, p=0.5, seed=0)(torch.stack([image] * 8).as_subclass(type(video)))
        assert type(half) is adapter.tv_tensors.Video

    def test_draws_follow_torchs_seed_and_p(self, adapter):
        image = torch.from_numpy(photo_crops(32)[0].transpose(2, 0, 1).copy())
        transform = adapter.RandomLowRank(energy=(0.5, 0.9), skip_threshold=0.5)
        assert "p=0.5" in transform.extra_repr()

        def ten(seed):
            torch.manual_seed(seed)
            return torch.stack([transform(image) for _ in range(10)])

        assert torch.equal(ten(1), ten(1))
        assert not torch.equal(ten(1), ten(2))
        assert 0 < int((ten(1) == image).flatten(1).all(1).sum()) < 10


@pytest.mark.parametrize("library", ["albumentations", "kornia", "keras", "torchvision"])
def test_a_missing_library_is_named(library, monkeypatch):
    name = f"rankwise.lowrank.adapters.{library}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    for module in [m for m in sys.modules if m.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'rankwise\[{library}\]'"):
        importlib.import_module(name)
