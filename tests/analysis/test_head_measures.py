"""Attention distance, entropy and diversity against values worked out by hand, and against another formula."""

import itertools
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance as scipy_distance
from scipy.stats import entropy as scipy_entropy

from tests.analysis.test_attention_maps import SWIN, swin
from tests.vit.test_backbone import shaken
from tinymim.analysis import heads
from tinymim.analysis.heads import HeadMeasures, HeadOptions
from tinymim.analysis.layers import Layer, distances, layers

GRID = (14, 14)


def made(maps, grid=GRID, patch=16.0, prefix=0, allowed=None):
    """A layer with these attention maps, ``(B, W, H, Q, K)``, in no network."""
    logs = torch.as_tensor(maps, dtype=torch.float32).log()
    tokens = torch.zeros(len(logs), prefix + math.prod(grid), 1)
    between = distances(grid, (patch, patch))
    return Layer(1, logs.shape[2], prefix, grid, patch, tokens, between, lambda images: logs[images], allowed)


def measured(layer, **options):
    measures = HeadMeasures(HeadOptions(**options))
    measures.add(layer)
    return measures.records()


def rows(*heads):
    """One image, one window, these heads' maps."""
    return torch.stack([torch.as_tensor(head, dtype=torch.float64) for head in heads])[None, None]


def test_uniform_attention__is_as_far_and_as_broad_as_computed_by_hand():
    (record,) = measured(made(torch.full((2, 1, 1, 196, 196), 1 / 196)))
    assert record["distance_px"] == pytest.approx(116.5, abs=0.02)
    assert record["entropy_nats"] == pytest.approx(math.log(196), abs=1e-5)
    assert record["distance_ratio"] == pytest.approx(1, abs=1e-5)
    assert record["entropy_ratio"] == pytest.approx(1, abs=1e-5)
    assert (record["distance_px_sd"], record["images"], record["prefix_mass"]) == (0, 2, 0)
    assert math.isnan(record["diversity_kl"])  # of one head
    assert math.isnan(record["diversity_js"])


def test_distances__of_a_corner_and_of_the_middle():
    between = distances(GRID, (16.0, 16.0))
    assert between[0].mean().item() == pytest.approx(161.0, abs=0.05)
    assert between[6 * 14 + 6].mean().item() == pytest.approx(86.0, abs=0.05)
    assert distances((16, 16), (14.0, 14.0)).mean().item() == pytest.approx(116.6, abs=0.05)


def test_identity_attention__looks_nowhere_else():
    (record,) = measured(made(rows(torch.eye(196))))
    assert record["distance_px"] == record["entropy_nats"] == record["distance_ratio"] == 0


def test_a_neighbourhood__of_nine_patches():
    between = distances(GRID, (16.0, 16.0))
    interior = torch.arange(196).view(GRID)[1:-1, 1:-1].flatten()
    attention = (between < 24).double()  # the patch and the eight around it
    attention /= attention.sum(-1, keepdim=True)
    values = heads.measure(attention[interior].log().float()[None, None, None], between[interior], 0, HeadOptions())[
        0, 0
    ]
    assert values[0].item() == pytest.approx(16 * (4 + 4 * 2**0.5) / 9, abs=1e-4)
    assert values[0].item() == pytest.approx(17.2, abs=0.05)
    assert values[1].item() == pytest.approx(math.log(9), abs=1e-5)


def test_diversity__of_equal_heads_is_zero():
    head = torch.rand(4, 4, dtype=torch.float64).softmax(-1)
    for record in measured(made(rows(head, head, head), (2, 2))):
        assert record["diversity_kl"] == pytest.approx(0, abs=1e-6)
        assert record["diversity_js"] == pytest.approx(0, abs=1e-6)


def test_diversity__of_two_heads_by_hand():
    a, b = [[0.5, 0.5], [0.5, 0.5]], [[0.9, 0.1], [0.5, 0.5]]
    ab = (0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)) / 2  # the second query's is 0
    ba = (0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)) / 2
    js = (
        0.5 * math.log(0.5 / 0.7) + 0.5 * math.log(0.5 / 0.3) + 0.9 * math.log(0.9 / 0.7) + 0.1 * math.log(0.1 / 0.3)
    ) / 4
    layer = made(rows(a, b), (1, 2))
    for kl, expected in (("forward", (ab, ba)), ("reverse", (ba, ab)), ("both", ((ab + ba) / 2,) * 2)):
        records = measured(layer, kl=kl)
        assert [record["diversity_kl"] for record in records] == pytest.approx(expected, abs=1e-6)
        assert [record["diversity_js"] for record in records] == pytest.approx([js, js], abs=1e-6)


def test_diversity__of_heads_that_share_no_key_is_the_greatest_there_is():
    first, second = measured(made(rows([[1, 0], [1, 0]], [[0, 1], [0, 1]]), (1, 2)))
    assert first["diversity_js"] == second["diversity_js"] == pytest.approx(math.log(2))
    assert first["entropy_nats"] == 0
    assert first["diversity_kl"] > 1e30  # KL has no bound, and no epsilon gives it one


def by_another_formula(maps, between, prefix, cls):
    """Means over the images, head by head and pair by pair in float64, with SciPy's entropies."""
    maps = maps.numpy()
    found = {name: [] for name in heads.MEASURES}
    for image in maps:
        patches = image[:, :, prefix:, prefix:]
        patches = patches / patches.sum(-1, keepdims=True)
        kept = image if cls == "keep" else patches
        H = image.shape[1]
        found["distance_px"].append([(patches[:, h] * between.numpy()).sum(-1).mean() for h in range(H)])
        found["entropy_nats"].append([scipy_entropy(kept[:, h], axis=-1).mean() for h in range(H)])
        found["prefix_mass"].append(image[:, :, prefix:, :prefix].sum(-1).mean((0, 2)))
        kl, js = np.zeros((2, H, H))
        for h, g in itertools.permutations(range(H), 2):
            kl[h, g] = scipy_entropy(kept[:, h], kept[:, g], axis=-1).mean()
            js[h, g] = (scipy_distance.jensenshannon(kept[:, h], kept[:, g], axis=-1) ** 2).mean()
        found["diversity_kl"].append(kl.sum(1) / (H - 1))
        found["diversity_js"].append(js.sum(1) / (H - 1))
    return {name: (np.mean(values, 0), np.std(values, 0, ddof=1)) for name, values in found.items()}


def agree(network, images, cls):
    measures = HeadMeasures(HeadOptions(cls=cls, kl="forward"))
    for layer in layers(network, images):
        measures.add(layer)
    for layer in layers(network, images):
        expected = by_another_formula(layer.maps(slice(None)).double().exp(), layer.distances, layer.prefix, cls)
        for record in measures.records():
            if record["block"] == layer.block:
                for name, (mean, sd) in expected.items():
                    assert record[name] == pytest.approx(mean[record["head"] - 1], rel=1e-4, abs=1e-5), name
                    assert record[f"{name}_sd"] == pytest.approx(sd[record["head"] - 1], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("cls", ["drop", "keep"])
def test_measures__of_a_vit_with_registers_and_of_a_swin_by_another_formula(cls):
    agree(shaken({"reg_tokens": 2}), torch.rand(3, 3, 16, 16), cls)
    agree(swin(SWIN), torch.rand(3, 3, 32, 32), cls)


def test_prefix__dropped_and_scaled_away_or_kept():
    inner = torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64)
    whole = torch.full((4, 4), 0.25, dtype=torch.float64)  # CLS, a register and two patches
    whole[2:] = torch.cat([torch.tensor([[0.3, 0.1], [0.4, 0.0]]), 0.6 * inner], dim=1)
    (dropped,), (kept,), (alone,) = (
        measured(made(rows(whole), (1, 2), prefix=2)),
        measured(made(rows(whole), (1, 2), prefix=2), cls="keep"),
        measured(made(rows(inner), (1, 2))),
    )
    assert dropped["prefix_mass"] == kept["prefix_mass"] == pytest.approx(0.4)
    assert alone["prefix_mass"] == 0
    for name in ("distance_px", "distance_ratio", "entropy_nats", "entropy_ratio"):
        assert dropped[name] == pytest.approx(alone[name], abs=1e-6)
    assert kept["distance_px"] == dropped["distance_px"] == pytest.approx((4 + 8) / 2)
    expected = scipy_entropy(whole.numpy(), axis=-1).mean()
    assert kept["entropy_nats"] == pytest.approx(expected, abs=1e-6)
    assert kept["entropy_ratio"] == pytest.approx(expected / math.log(4), abs=1e-6)


def test_masked_windows__are_measured_without_nan_and_against_what_they_may_see():
    allowed = torch.tensor([[[True, True], [True, True]], [[True, False], [False, True]]])
    maps = (allowed / allowed.sum(-1, keepdim=True)).double()[None, :, None].expand(2, 2, 3, 2, 2)
    for record in measured(made(maps, (1, 2), allowed=allowed)):
        assert all(math.isfinite(value) for value in record.values())
        assert record["distance_px"] == pytest.approx(4)  # half of the windows see 0 and 16 px, half 0 alone
        assert record["entropy_nats"] == pytest.approx(math.log(2) / 2)
        assert record["distance_ratio"] == record["entropy_ratio"] == pytest.approx(1)
        assert record["diversity_kl"] == pytest.approx(0, abs=1e-7)


def test_one_patch__has_no_ratio():
    (record,) = measured(made(rows([[1.0]]), (1, 1)))
    assert math.isnan(record["distance_ratio"])
    assert math.isnan(record["entropy_ratio"])


@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, 8)), elements=st.sampled_from([1, 100, 2**20]))
def test_accumulation__over_batches_of_any_split_equals_one_batch(cuts, elements):
    maps = torch.randn(9, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0)).mul(3).softmax(-1)
    whole, parts = HeadMeasures(), HeadMeasures()
    whole.add(made(maps, (2, 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "ELEMENTS", elements)
        for first, last in itertools.pairwise([0, *sorted(cuts), 9]):
            parts.add(made(maps[first:last], (2, 2)))
    for one, other in zip(whole.records(), parts.records(), strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6, nan_ok=True)
    assert one["images"] == 9


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.floats(0, 60), st.integers(0, 2**16))
def test_bounds__of_any_maps(H, sharpness, seed):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 1, H, 6, 6, generator=generator).mul(sharpness).softmax(-1)
    for record in measured(made(maps, (2, 3))):
        assert -1e-6 <= record["diversity_js"] <= math.log(2) + 1e-6
        assert record["diversity_kl"] >= -1e-6
        assert -1e-6 <= record["entropy_nats"] <= math.log(6) + 1e-5
        assert 0 <= record["distance_px"] <= 16 * 5**0.5 + 1e-3


def test_records__name_what_was_measured_and_how():
    records = measured(made(torch.full((1, 1, 2, 4, 4), 0.25), (2, 2)))
    names = ["distance_px", "distance_ratio", "entropy_nats", "entropy_ratio", "diversity_kl", "diversity_js"]
    values = [key for name in [*names, "prefix_mass"] for key in (name, f"{name}_sd")]
    assert [list(record) for record in records] == [["block", "head", *values, "images"]] * 2
    assert [(record["block"], record["head"]) for record in records] == [(1, 1), (1, 2)]
    assert math.isnan(records[0]["entropy_nats_sd"])  # of one image
    assert asdict(HeadOptions()) == {"cls": "drop", "kl": "both"}
