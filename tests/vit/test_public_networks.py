"""Sizes of the public masked-image-modelling networks under timm's names, from skeletons."""

import pytest

from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import skeleton

PUBLIC = {  # depth, width, heads, patch, prefix, side of the grid: SIBLINGS.md C1
    "vit_base_patch16_224": (12, 768, 12, 16, 1, 14),
    "vit_large_patch16_224": (24, 1024, 16, 16, 1, 14),
    "vit_huge_patch14_224": (32, 1280, 16, 14, 1, 16),
    "beit_base_patch16_224": (12, 768, 12, 16, 1, 14),
    "beit_base_patch16_384": (12, 768, 12, 16, 1, 24),
    "beit_large_patch16_224": (24, 1024, 16, 16, 1, 14),
    "beit_large_patch16_512": (24, 1024, 16, 16, 1, 32),
    "beitv2_base_patch16_224": (12, 768, 12, 16, 1, 14),
    "beitv2_large_patch16_224": (24, 1024, 16, 16, 1, 14),
    "eva02_tiny_patch14_224": (12, 192, 3, 14, 1, 16),
    "eva02_small_patch14_224": (12, 384, 6, 14, 1, 16),
    "eva02_base_patch14_224": (12, 768, 12, 14, 1, 16),
    "eva02_large_patch14_224": (24, 1024, 16, 14, 1, 16),
    "eva02_tiny_patch14_336": (12, 192, 3, 14, 1, 24),
    "eva02_base_patch14_448": (12, 768, 12, 14, 1, 32),
    "eva02_large_patch14_448": (24, 1024, 16, 14, 1, 32),
    "eva_giant_patch14_560": (40, 1408, 16, 14, 1, 40),
    "eva_large_patch14_196": (24, 1024, 16, 14, 1, 14),
    "vit_small_patch14_dinov2": (12, 384, 6, 14, 1, 37),
    "vit_base_patch14_dinov2": (12, 768, 12, 14, 1, 37),
    "vit_large_patch14_dinov2": (24, 1024, 16, 14, 1, 37),
    "vit_giant_patch14_dinov2": (40, 1536, 24, 14, 1, 37),
    "vit_small_patch14_reg4_dinov2": (12, 384, 6, 14, 5, 37),
    "vit_base_patch14_reg4_dinov2": (12, 768, 12, 14, 5, 37),
    "vit_giant_patch14_reg4_dinov2": (40, 1536, 24, 14, 5, 37),
    "vit_huge_patch14_gap_224": (32, 1280, 16, 14, 0, 16),
    "vit_huge_patch16_gap_448": (32, 1280, 16, 16, 0, 28),
    "vit_giant_patch16_gap_224": (40, 1408, 16, 16, 0, 14),
    "deit_small_patch16_224": (12, 384, 6, 16, 1, 14),
}


@pytest.mark.parametrize("arch", PUBLIC)
def test_public_networks__sizes(arch):
    network = skeleton(Architecture(arch))
    depth, width, heads, patch, prefix, side = PUBLIC[arch]
    assert all(t.is_meta for t in (*network.parameters(), *network.buffers()))
    assert (network.depth, network.width, network.heads) == (depth, width, [heads] * depth)
    assert (network.patch, network.prefix, network.grid) == ((patch, patch), prefix, (side, side))
    assert network.image_size == (side * patch, side * patch)
    assert network.has_cls == bool(prefix)
