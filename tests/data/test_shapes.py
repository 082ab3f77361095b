import math

import numpy as np
import pytest
import torch

from tinymim.data.sampler import Draw
from tinymim.data.scenes import COLORS, KINDS, MOST, TURN, Scene, Shape, box, render, scene
from tinymim.data.shapes import CLASSES, ShapesData, targets_of


def one(kind: str, angle: float = 0.0, x: float = 0.5, y: float = 0.5, size: float = 0.5, depth: float = 0.0) -> Scene:
    """A white shape on black, without texture, shade or noise."""
    shape = Shape(KINDS.index(kind), 0, x, y, size, angle, depth, (255, 255, 255))
    return Scene((shape,), np.zeros((2, 3)), np.zeros((4, 3)), np.array([1.0, 0, 0]), 0.0, (0, 0))


def prepared(**options) -> ShapesData:
    data = ShapesData(**{"train_images": 40, "held_out_images": 20, "batch_size": 8} | options)
    assert data.problems() == []
    data.setup("fit")
    return data


# Scenes


def test_scene__is_a_function_of_seed_and_index():
    assert scene(3, 5).shapes == scene(3, 5).shapes
    assert (render(scene(3, 5), 32).image == render(scene(3, 5), 32).image).all()
    different = {scene(*key).shapes for key in [(3, 5), (3, 6), (4, 5), (3, -6), (5, 3)]}
    assert len(different) == 5


def test_scene__kinds_colors_and_numbers_are_all_there_and_the_first_is_the_largest():
    scenes = [scene(0, index) for index in range(400)]
    kinds = np.bincount([s.shapes[0].kind for s in scenes], minlength=len(KINDS))
    colors = np.bincount([s.shapes[0].color for s in scenes], minlength=len(COLORS))
    assert kinds.min() > 400 / len(KINDS) / 2
    assert colors.min() > 400 / len(COLORS) / 2
    assert {len(s.shapes) for s in scenes} == set(range(2, MOST + 1))
    for s in scenes:
        main, *others = s.shapes
        assert main.size > 1.4 * max(shape.size for shape in others)
        assert min(main.x, main.y) - main.size / 2 >= -1e-9
        assert max(main.x, main.y) + main.size / 2 <= 1 + 1e-9
        assert all(0 <= shape.angle <= TURN[shape.kind] and 0 <= shape.depth <= 1 for shape in s.shapes)


AREAS = {  # of a shape of diameter 1, from plane geometry
    "circle": math.pi / 4,
    "ring": math.pi / 4 * (1 - 0.55**2),
    "half": math.pi / 8,
    "triangle": 3 * math.sqrt(3) / 16,
    "square": 0.5,
    "bar": 0.94 * 0.34,
    "cross": (4 * 0.32 * math.sqrt(1 - 0.32**2) * 2 - 4 * 0.32**2) / 4,
    "star": 10 * 0.5 * 0.42 * math.sin(math.pi / 5) / 4,
}


@pytest.mark.parametrize("kind", KINDS)
def test_render__draws_the_kind_it_says_wherever_it_is(kind):
    for angle, size in ((0.0, 200), (0.3, 200), (0.3, 64)):
        picture = render(one(kind, angle, x=0.45, y=0.55, size=0.6), size)
        share = (picture.image[:, :, 0] / 255).mean()
        assert share == pytest.approx(AREAS[kind] * 0.6**2, rel=0.04)
        assert (picture.mask == 1 + KINDS.index(kind)).mean() == pytest.approx(share, rel=0.04)
        assert set(np.unique(picture.mask)) == {0, 1 + KINDS.index(kind)}


@pytest.mark.parametrize("kind", KINDS)
def test_render__a_turn_by_the_kinds_own_angle_changes_nothing(kind):
    turn = TURN[KINDS.index(kind)] or 1.0
    first, turned, half = (
        render(one(kind, angle), 96).image.astype(int) for angle in (0.2, 0.2 + turn, 0.2 + turn / 2)
    )
    assert np.abs(first - turned).mean() < 1
    if TURN[KINDS.index(kind)]:
        assert np.abs(first - half).mean() > 5


def test_render__angles_go_clockwise():
    mask = render(one("half", math.pi / 2), 64).mask > 0  # at 0 its round side is to the right
    assert mask[33:].sum() > 10 * mask[:31].sum()


def test_render__nearer_shapes_hide_farther_ones_and_distance_fades():
    near, far = one("square", depth=0.2).shapes[0], one("circle", depth=0.8, x=0.6).shapes[0]
    ground = np.full((2, 3), 100.0)
    both = Scene((near, far), ground, np.zeros((4, 3)), np.array([1.0, 0, 0]), 0.0, (0, 0))
    picture = render(both, 64)
    assert picture.mask[32, 38] == 1 + near.kind  # both are there
    assert picture.mask[32, 52] == 1 + far.kind
    assert (picture.depth[32, 38], picture.depth[32, 52], picture.depth[0, 0]) == pytest.approx((0.2, 0.8, 1))
    assert picture.image[32, 38, 0] > picture.image[32, 52, 0] > picture.image[0, 0, 0] == 100
    assert picture.visible.sum() == (picture.mask > 0).sum()
    assert picture.visible[1] < math.pi / 4 * 32**2 < render(one("circle"), 64).visible[0] * 1.05


def test_render__every_size_shows_the_same_scene():
    for index in range(5):
        small = render(scene(1, index), 32).image.astype(float)
        large = render(scene(1, index), 128).image.reshape(32, 4, 32, 4, 3).mean((1, 3))
        assert np.abs(small - large).mean() < 14  # a pixel's noise has at most this deviation
        masks = render(scene(1, index), 32).mask, render(scene(1, index), 128).mask[2::4, 2::4]
        assert (masks[0] == masks[1]).mean() > 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_box__holds_the_shape_and_no_more(kind):
    left, top, right, bottom = box(one(kind, 0.4, x=0.3, size=0.8).shapes[0], 100)
    rows, columns = np.nonzero(render(one(kind, 0.4, x=0.3, size=0.8), 100).mask)
    assert (left, top) == (pytest.approx(columns.min(), abs=1.5), pytest.approx(rows.min(), abs=1.5))
    assert (right, bottom) == (pytest.approx(columns.max() + 1, abs=1.5), pytest.approx(rows.max() + 1, abs=1.5))


@pytest.mark.parametrize("kind", KINDS)
def test_box__of_a_cut_shape_holds_what_is_in_the_picture(kind):
    for x, y, size in ((-0.1, 0.3, 0.5), (0.95, 1.05, 0.6), (0.5, -0.2, 0.7), (0.4, 0.5, 2.2)):
        cut = one(kind, 0.3, x=x, y=y, size=size)
        rows, columns = np.nonzero(render(cut, 600, supersample=1).mask)  # as fine as that, or slivers are missed
        seen = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert box(cut.shapes[0], 600) == pytest.approx(seen, abs=12)


@pytest.mark.parametrize("mirrored", [False, True])
def test_window__shows_that_part_of_the_picture(mirrored):
    for index in range(8):
        whole = scene(2, index)
        part = render(whole.seen_through(0.25, 0.125, 0.5, mirrored), 64)
        expected = render(whole, 128)
        image, mask, depth = (array[16:80, 32:96] for array in expected[:3])
        if mirrored:
            image, mask, depth = image[:, ::-1], mask[:, ::-1], depth[:, ::-1]
        assert (part.mask == mask).mean() > 0.96  # edges fall on other points
        assert np.abs(part.depth - depth).mean() < 0.02
        noise = 2 * whole.noise  # of two pictures of other noise
        assert np.abs(part.image.astype(float) - image).mean() < noise


# Samples


def test_data__what_is_trained_on_and_what_is_held_out_share_no_scene():
    data = prepared()
    assert (len(data.train), len(data.held_out), len(data.bank)) == (40, 20, 40)
    assert not set(data.train.scenes) & set(data.held_out.scenes)
    more = prepared(train_images=50, bank_size=7)
    assert len(more.bank) == 7
    for a, b in ((data.held_out, more.held_out), (data.train, more.train)):
        assert torch.equal(a[Draw(2, 3)]["image"], b[Draw(2, 3)]["image"])


@pytest.mark.parametrize("label", CLASSES)
def test_data__labels_speak_of_the_main_shape(label):
    data = prepared(label=label)
    assert data.num_classes == len(data.classes) == {"shape": 8, "color": 6, "shape_color": 48}[label]
    for index in range(20):
        main = data.held_out.scene(Draw(0, index)).shapes[0]
        words = {"shape": [KINDS[main.kind]], "color": [COLORS[main.color]]}
        words["shape_color"] = words["color"] + words["shape"]
        for loaded, epoch in ((data.held_out, 0), (data.held_out, 3)):
            assert data.classes[loaded[Draw(epoch, index)]["label"]] == " ".join(words[label])


def test_data__batches():
    batch = next(iter(prepared(image_size=24, masks=True, scene=True, depth=True).train_dataloader()))
    assert (batch["image"].shape, batch["image"].dtype) == ((8, 3, 24, 24), torch.float32)
    assert 0 <= batch["image"].min() < batch["image"].max() <= 1
    assert (batch["mask"].shape, batch["mask"].dtype) == ((8, 24, 24), torch.int64)
    assert (batch["depth"].shape, batch["depth"].dtype) == ((8, 24, 24), torch.float32)
    assert ((batch["depth"] == 1) == (batch["mask"] == 0)).all(), "the ground is the farthest"
    assert batch["targets"]["box"].shape == (8, MOST, 4)
    assert batch["targets"]["angle"].shape == (8, MOST)
    assert {"image", "index", "label"} == set(prepared().train[Draw(0, 0)])


def test_data__augmentation_follows_seed_epoch_and_index():
    def image(seed: int = 0, epoch: int = 1, **options) -> torch.Tensor:
        return prepared(seed=seed, **options).train[Draw(epoch, 5)]["image"]

    assert torch.equal(image(), image())
    assert not torch.allclose(image(), image(epoch=2), atol=0.1)
    assert not torch.allclose(image(), image(seed=1), atol=0.1)
    assert not torch.allclose(image(), image(set_seed=1), atol=0.1)
    held_out = prepared().held_out
    assert torch.equal(held_out[Draw(0, 3)]["image"], held_out[Draw(7, 3)]["image"])
    plain = prepared(scale=(1.0, 1.0), flip=False)
    assert torch.equal(plain.train[Draw(4, 3)]["image"], plain.bank[Draw(0, 3)]["image"])


def test_data__the_main_shape_stays_in_view():
    data = prepared(scale=(0.1, 0.6), train_images=200)
    mirrored = 0
    for index in range(200):
        shown, whole = data.train.scene(Draw(3, index)), scene(0, index)
        main, before = shown.shapes[0], whole.shapes[0]
        assert all(0 <= place <= 1 for place in (main.x, main.y))
        side = before.size / main.size
        assert 0.1**0.5 <= side <= 0.6**0.5
        mirrored += shown.waves[0, 1] * whole.waves[0, 1] < 0
    assert 60 < mirrored < 140


def test_targets__are_what_is_drawn():
    for index in range(20):
        shown = scene(0, index)
        picture = render(shown, 64)
        targets = targets_of(shown, picture)
        count = int((picture.visible > 0).sum())
        assert (targets["kind"] >= 0).sum() == count
        assert targets["kind"][count:].tolist() == [-1] * (MOST - count)
        assert targets["box"][count:].abs().sum() == 0
        main = shown.shapes[0]
        assert (targets["kind"][0], targets["color"][0]) == (main.kind, main.color)
        row = torch.stack([targets[name][0] for name in ("x", "y", "size", "angle", "depth")])
        assert row.tolist() == pytest.approx([main.x, main.y, main.size, main.angle, main.depth], rel=1e-5)
        seen = {1 + kind for kind in targets["kind"][:count].tolist()}
        assert set(np.unique(picture.mask)) == {0, *seen}


def test_targets__leave_out_what_cannot_be_seen():
    hidden, outside = one("circle", size=0.1, depth=0.9).shapes[0], one("star", x=1.4, size=0.1).shapes[0]
    crowd = Scene((one("square").shapes[0], hidden, outside), *list(vars(one("square")).values())[1:])
    assert targets_of(crowd, render(crowd, 64))["kind"].tolist() == [KINDS.index("square"), -1, -1, -1, -1, -1]


WRONG = {
    "image_size": 4,
    "train_images": 0,
    "held_out_images": 0,
    "bank_size": 0,
    "label": "form",
    "scale": (0.5, 0.2),
}


@pytest.mark.parametrize("field", WRONG)
def test_problems__each_names_its_field_and_value(field):
    (problem,) = ShapesData(**{field: WRONG[field]}).problems()
    assert problem.startswith(f"data.{field}: ")
    assert str(WRONG[field]).strip("()") in problem
