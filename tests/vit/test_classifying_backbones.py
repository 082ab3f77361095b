import json

import pytest
import torch

from tests.vit.test_backbone import EVERYWHERE, STAR, near, pictures, shaken, tiny, trained_by
from tinymim.errors import TinymimError
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone, skeleton
from tinymim.vit.classifier_head import Head, HeadForm
from tinymim.vit.taps import Tap

SUPERVISED = {
    "token": ({"num_classes": 5, "global_pool": "token"}, "vit_tiny_patch16_224"),
    "avg, fc_norm": ({"num_classes": 5, "global_pool": "avg", "reg_tokens": 1}, "vit_tiny_patch16_224"),
    "distilled": ({"num_classes": 5}, STAR),
}


@pytest.fixture(params=SUPERVISED.values(), ids=SUPERVISED.keys())
def supervised(request):
    options, arch = request.param
    return shaken(options, arch=arch)


@torch.no_grad()
def test_logits__are_timms(supervised):
    backbone, tap = supervised, Tap(3, "logits")
    assert backbone.classes == 5
    inner = [Tap(3, "ffn_post"), Tap(3, "v"), Tap(1, "q")]
    read = backbone.read(pictures(), [tap, *inner])
    assert near(read[tap], backbone.vit(backbone.normalise(pictures())))
    assert read[tap].shape == (2, 5)
    for other in inner:
        assert near(read[other], backbone.read(pictures(), [other])[other])


def test_logits__reached_is_what_they_train(supervised):
    assert supervised.reached([Tap(3, "logits")]) == trained_by(supervised, [Tap(3, "logits")])
    assert supervised.reached([Tap(3, "logits"), Tap(3, "q")]) == trained_by(
        supervised, [Tap(3, "logits"), Tap(3, "q")]
    )
    assert supervised.last_trained_block([Tap(3, "logits")]) == 3


@torch.no_grad()
def test_logits__of_a_head_of_this_project():
    backbone = shaken()
    backbone.classifier = Head(24, 1, HeadForm(7, neck=8)).eval()
    read = backbone.read(pictures(), [Tap(3, "logits"), Tap(3, "ffn_post")])
    assert backbone.classes == 7
    assert torch.equal(read[Tap(3, "logits")], backbone.classifier(read[Tap(3, "ffn_post")]))
    with torch.enable_grad():
        assert backbone.reached([Tap(3, "logits")]) == trained_by(backbone, [Tap(3, "logits")])


def test_logits__come_after_the_last_block_of_a_network_with_a_classifier(supervised):
    with pytest.raises(TinymimError, match="after the last block, 3; block 2 has none"):
        supervised.read(pictures(), [Tap(2, "logits")])
    with pytest.raises(TinymimError, match=r"has no classifier.*num_classes"):
        shaken().read(pictures(), [Tap(3, "logits")])
    assert shaken().classes is None


@torch.no_grad()
def test_star__tokens_are_cls_then_distillation_then_patches():
    backbone = skeleton(Architecture(STAR, heads=12, pos_embed="sincos"))
    assert (backbone.prefix, backbone.distilled, backbone.heads) == (2, True, [12] * 12)
    assert backbone.vit.pos_embed.shape == (1, 198, 192)
    small = shaken(arch=STAR)
    assert not shaken().distilled
    vit = small.vit
    patches = vit.patch_embed(small.normalise(pictures()))
    rows = [vit.cls_token.expand(2, -1, -1), vit.dist_token.expand(2, -1, -1), patches]
    assert near(small.embed(pictures()), torch.cat(rows, 1) + vit.pos_embed)
    assert not near(vit.cls_token, vit.dist_token)


def test_star__sincos_leaves_the_rows_of_both_tokens_zero():
    positions = Backbone(tiny(arch=STAR, pos_embed="sincos")).vit.pos_embed
    assert not positions.requires_grad
    assert positions.shape == (1, 18, 24)
    assert not positions[0, :2].any()
    assert torch.equal(positions[0, 2:], Backbone(tiny(pos_embed="sincos")).vit.pos_embed[0, 1:])


@pytest.mark.parametrize("option", [{"reg_tokens": 1}, {"no_embed_class": True}])
def test_star__options_that_timms_class_would_ignore_or_break_on(option):
    with pytest.raises(TinymimError, match=f"{next(iter(option))} cannot be combined with the distillation token"):
        skeleton(tiny(option, arch=STAR))


@torch.no_grad()
def test_star__record_rebuilds_it():
    backbone = shaken(arch=STAR, heads=[3, 6, 12])
    record = json.loads(json.dumps(backbone.record()))
    again = Backbone(Architecture(**record["architecture"]), record["output_block"]).eval()
    again.load_state_dict(backbone.state_dict())
    for tap in EVERYWHERE:
        assert torch.equal(again.read(pictures(), [tap])[tap], backbone.read(pictures(), [tap])[tap])
