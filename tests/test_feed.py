"""What a training takes its batches from: order, batches, decoded images, augmentation."""

import numpy as np
import pytest
import torch

from wbctool.imaging.colour import STAINS
from wbctool.training.augmentation import Augmentation, change_stains, flips_and_turns, warp
from wbctool.training.feed import batches_of, epoch_order, prefetch
from wbctool.training.images import ImageStore
from wbctool.training.recipe import Recipe
from wbctool.training.recipe_files import with_values


def test_batches_hold_every_index_once_and_none_is_too_small():
    for size in (2, 8, 16):
        for count in (6, 8, 9, 17, 18, 64):
            order = epoch_order(np.zeros(count), "shuffled", 1, 2)
            batches = batches_of(order, size)
            assert sorted(np.concatenate(batches)) == list(range(count))
            assert min(map(len, batches)) >= max(2, size // 4)
            assert max(map(len, batches)) < size + max(2, size // 4)
    assert not np.array_equal(*(epoch_order(np.zeros(64), "shuffled", 1, epoch) for epoch in (1, 2)))
    assert [len(batch) for batch in batches_of(np.arange(1), 8)] == [1]


def test_balanced_sampling_draws_every_class_equally_often_and_its_images_evenly():
    targets = np.repeat([0, 1, 2], [90, 9, 1])
    order = epoch_order(targets, "balanced", 3, 1)
    counts = np.bincount(targets[order])
    assert len(order) == 100
    assert sorted(counts) == [33, 33, 34]
    times = np.bincount(order, minlength=100)
    assert set(times[90:99]) <= {3, 4}
    assert times[:90].max() == 1
    assert not np.array_equal(order, epoch_order(targets, "balanced", 3, 2))


def test_batches_are_prefetched_in_order_and_errors_come_through():
    assert list(prefetch(range(100))) == list(range(100))

    def faulty():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(prefetch(faulty()))
    made = []
    fetching = prefetch(made.append(n) or n for n in range(1000))
    next(fetching)
    fetching.close()  # ends the thread
    assert len(made) < 20


@pytest.fixture
def paths(cells):
    return sorted(str(p) for p in cells.glob("*/*.png") if "masks" not in str(p))[:5]


@pytest.mark.parametrize("limit", [None, 48 * 48 * 3 * 2, 0])
def test_images_come_in_the_order_of_the_indices_whatever_is_kept(tmp_path, paths, limit):
    from wbctool.imaging.files import read_image

    images = ImageStore(paths, 48, tmp_path / "p.npy", quiet=True, limit=limit)
    assert images.kept == {None: 5, 0: 0}.get(limit, 2)
    batch = images.batch(np.array([3, 0, 4, 1]))
    for row, index in zip(batch, (3, 0, 4, 1), strict=True):
        assert np.array_equal(row.permute(1, 2, 0), read_image(paths[index]))
    before = [p.stat().st_mtime_ns for p in tmp_path.iterdir()]
    ImageStore(paths, 48, tmp_path / "p.npy", quiet=True)
    assert [p.stat().st_mtime_ns for p in tmp_path.iterdir()] == before


def test_an_unreadable_image_that_is_not_kept_is_reported_and_black(tmp_path, paths):
    (tmp_path / "bad.png").write_bytes(b"no image")
    images = ImageStore([*paths, str(tmp_path / "bad.png")], 48, tmp_path / "p.npy", quiet=True, limit=0)
    assert list(images.failed) == [5]
    assert images.batch(np.array([5])).sum() == 0


def uniform(n, **columns):
    draws = torch.full((n, 16), 0.5)
    for name, value in columns.items():
        draws[:, int(name[1:])] = value
    return draws


def test_flips_and_turns_give_each_of_the_eight_symmetries_of_the_square():
    image = torch.arange(9, dtype=torch.uint8).reshape(1, 1, 3, 3)
    views = {tuple(row.flatten().tolist()) for row in flips_and_turns(image.repeat(200, 1, 1, 1), torch.rand(200, 3))}
    turned = [torch.rot90(base, k, (2, 3)) for base in (image, image.flip(-1)) for k in range(4)]
    assert views == {tuple(t.flatten().tolist()) for t in turned}
    views = {tuple(row.flatten().tolist())
            for row in flips_and_turns(image.repeat(200, 1, 1, 1), torch.rand(200, 3), flips=False)}  # fmt: skip
    assert views == {tuple(torch.rot90(image, k, (2, 3)).flatten().tolist()) for k in range(4)}


def test_an_image_is_augmented_in_the_same_way_whatever_its_batch():
    augment = Augmentation(Recipe(augment="strong"))
    images = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    draws = augment.draws(6, seed=3, epoch=2)
    whole = augment(images, draws)
    assert whole.shape == images.shape
    assert whole.min() >= 0
    assert whole.max() <= 255
    for part in ([0, 1], [5], [4, 2, 0]):
        assert torch.allclose(augment(images[part], draws[part]), whole[part], atol=2e-2)
    assert torch.equal(draws, augment.draws(6, seed=3, epoch=2))
    assert not torch.equal(draws, augment.draws(6, seed=3, epoch=3))


def test_each_change_is_what_it_says():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (1, 3, 33, 33)).astype(np.float32))

    def changed(draws, **keys):
        return Augmentation(with_values(Recipe(augment="none"), keys))(image, draws)

    assert Augmentation(Recipe(augment="none")).is_empty
    assert torch.equal(changed(uniform(1)), image)
    quarter = changed(uniform(1, c6=1.0), rotation=90.0)
    assert torch.allclose(quarter, torch.rot90(image, 1, (2, 3)), atol=0.1) or torch.allclose(
        quarter, torch.rot90(image, -1, (2, 3)), atol=0.1
    )
    moved = changed(uniform(1, c3=1.0), shift=3 / 33)
    assert torch.allclose(moved[..., 3:], image[..., :-3], atol=0.1)
    assert torch.allclose(moved[..., :3], image[..., :3].flip(-1), atol=0.1)  # reflected
    nearest = changed(uniform(1, c3=1.0), shift=3 / 33, fill="nearest")
    assert torch.allclose(nearest[..., :3], image[..., :1].expand(-1, -1, -1, 3), atol=0.1)
    near = changed(uniform(1, c5=1.0), zoom=0.5)
    assert torch.allclose(near[..., 16, 16], image[..., 16, 16], atol=0.1)
    assert torch.allclose(near[..., 16, 19], image[..., 16, 18], atol=0.1)
    assert torch.allclose(changed(uniform(1, c9=0.0), brightness=0.2), 0.8 * image, atol=1e-3)
    flat = Augmentation(Recipe(augment="full"))(torch.full((8, 3, 32, 32), 100, dtype=torch.uint8), torch.rand(8, 16))
    assert flat.std((2, 3)).max() < 1e-3  # reflected borders: a flat image stays flat, times the brightness
    assert 80 - 1e-3 <= flat.min() <= flat.max() <= 120 + 1e-3


# `warp_affine` of kornia 0.9, with the matrix of `get_affine_matrix2d` about the centre, first and last row
@pytest.mark.parametrize(
    ("fill", "first", "last"),
    [
        (
            "reflection",
            [141.6736, 113.1555, 94.5147, 79.216, 66.7309],
            [99.5296, 134.9406, 175.2729, 218.3769, 250.6229],
        ),
        ("border", [139.8228, 113.1555, 94.5147, 79.216, 66.7309], [199.9502, 212.2494, 224.7818, 237.5798, 250.6229]),
    ],
)
def test_warping_gives_the_numbers_of_kornia(fill, first, last):
    images = torch.arange(25, dtype=torch.float64).reshape(1, 1, 5, 5) ** 1.5 * 255 / 24**1.5
    draws = torch.full((1, 16), 0.5, dtype=torch.float64)
    draws[0, 3:9] = torch.tensor([0.9, 0.1, 0.7, 0.65, 0.8, 0.1])
    augment = Augmentation(Recipe(augment="none", shift=0.4, zoom=0.2, rotation=60.0, shear=0.2))
    moved = warp(images, augment._inverse_matrices(draws), 2 * augment.shift * (2 * draws[:, 3:5] - 1), fill)[0, 0]
    assert moved[0].tolist() == pytest.approx(first, abs=1e-3)
    assert moved[4].tolist() == pytest.approx(last, abs=1e-3)


def test_stains_are_changed_in_absorbance_and_the_background_stays():
    stains = np.array(STAINS) / np.linalg.norm(STAINS, axis=1, keepdims=True)
    amounts = np.array([0.8, 0.4, 0.05])
    pixel = 256 * np.exp(-(amounts @ stains)) - 1
    image = torch.tensor(pixel, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    draws = torch.tensor([[1.0, 0.0, 0.5, 0.5, 0.75, 0.5]])
    gains, offsets = np.array([1.2, 0.8, 1.0]), np.array([0, 0.01, 0])
    expected = 256 * np.exp(-((amounts * gains + offsets) @ stains)) - 1
    assert np.allclose(change_stains(image, 0.1, draws)[0, :, 0, 0], expected, atol=0.01)
    assert torch.allclose(change_stains(image, 0.1, torch.full((1, 6), 0.5)), image, atol=0.01)
    white = torch.full((1, 3, 2, 2), 255.0)
    assert torch.allclose(change_stains(white, 0.1, torch.tensor([[1.0, 0, 1, 0.5, 0.5, 0.5]])), white, atol=0.01)
