"""A folder that Hugging Face's ``ViTModel.from_pretrained(FOLDER)`` opens, or ``ViTForImageClassification``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from timm.layers import Mlp
from timm.layers.attention import Attention
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tinymim.errors import TinymimError
from tinymim.export.model_card import ExportedForm
from tinymim.export.source import Outputs, Source, difference, resized_side, sample
from tinymim.export.timm_folder import MOST, as_timm, write_weights
from tinymim.files import write_json
from tinymim.teachers.weights import State
from tinymim.vit.backbone import Backbone

CLASSIFIER, ENCODER = "ViTForImageClassification", "ViTModel"

PREPROCESSOR = {"image_processor_type": "BitImageProcessor", "do_convert_rgb": True, "do_resize": True, "resample": 3}
"""ViT's own processor would squeeze an image into a square; this one resizes and crops, as the project does."""

ROUNDING = (
    "The processor resizes with torchvision, which may round a pixel to the next grey level where PIL does not, and "
    "cuts half a pixel off a margin that others round: a quarter of images that are not square lies a pixel aside."
)
RESAMPLING = (
    "On images of another size (`interpolate_pos_encoding=True`) transformers resamples positions without "
    "antialiasing, so that its outputs differ from tinymim's and timm's there."
)


def write(source: Source, folder: Path) -> ExportedForm:
    """Fill ``folder`` with ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``, and open it with
    transformers alone."""
    network = as_timm(source.backbone)
    if lacking := problems(network):
        raise TinymimError(
            f"hf: {ENCODER} cannot express {network.architecture.arch} ({'; '.join(lacking)}); "
            "--to timm, --to onnx and --to torch-export can"
        )
    write_weights(published(network), folder, {})
    write_json(folder / "config.json", _config(source, network))
    size = network.image_size[0]
    write_json(
        folder / "preprocessor_config.json",
        {
            **PREPROCESSOR,
            "size": {"shortest_edge": resized_side(size)},
            "do_center_crop": True,
            "crop_size": {"height": size, "width": size},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(network.architecture.mean),
            "image_std": list(network.architecture.std),
        },
    )
    kind = CLASSIFIER if network.classes else ENCODER
    untrained = (
        "`last_hidden_state` has passed a LayerNorm that was never trained (weight 1, bias 0); read as above. "
        "`AutoModel` adds a pooler of its own with random weights: its `pooler_output` means nothing."
    )
    return ExportedForm(
        library="transformers",
        snippet=SNIPPET.format(
            kind=kind,
            options="" if network.classes else ", add_pooling_layer=False",
            block=network.output_block,
            last="probabilities = outputs.logits.softmax(dim=-1)\n" if network.classes else "",
        ),
        notes=[*([] if network.classes else [untrained]), ROUNDING, RESAMPLING],
        differences=_check(source.backbone, kind, folder),
        packages=["transformers"],
    )


def problems(network: Backbone) -> list[str]:
    """Parts of a network in timm's form that ``ViTModel`` lacks."""
    vit: Any = network.vit
    lacking = []
    if type(vit) is not VisionTransformer:
        return [f"timm's {type(vit).__name__} is another kind of network"]
    if not network.has_cls or network.prefix != 1 or vit.no_embed_class:
        lacking.append("tokens other than a CLS token with a position, then patches")
    if vit.pos_embed is None:
        lacking.append("no position embedding")
    if not isinstance(vit.norm_pre, nn.Identity):
        lacking.append("a norm before the blocks")
    if not all(_plain(block) for block in vit.blocks):
        lacking.append("blocks other than pre-norm attention and a GELU MLP without layer scale")
    if len(set(network.image_size)) > 1 or len(set(network.patch)) > 1:
        lacking.append("images or patches that are not square")
    if network.classes and vit.global_pool != "token":
        lacking.append("a classifier of the mean patch token, where Hugging Face's reads CLS: add --no-classifier")
    elif network.classes and not any(isinstance(norm, nn.LayerNorm) for norm in (vit.norm, vit.fc_norm)):
        lacking.append("a classifier without a norm before it: add --no-classifier")
    return lacking


def _plain(block: Any) -> bool:
    if type(block) is not Block or type(block.attn) is not Attention or type(block.mlp) is not Mlp:
        return False
    none = (block.ls1, block.ls2, block.attn.q_norm, block.attn.norm, block.mlp.norm)
    return (
        all(isinstance(part, nn.Identity) for part in none)
        and all(isinstance(norm, nn.LayerNorm) for norm in (block.norm1, block.norm2))
        and isinstance(block.mlp.act, nn.GELU)
        and block.mlp.act.approximate == "none"
        and block.attn.proj.bias is not None
    )


def published(network: Backbone) -> State:
    """The weights of a network in timm's form, named as in the published ViT files of Hugging Face."""
    return dict(_published(cast(Any, network.vit)))


def _published(vit: Any) -> Iterator[tuple[str, Tensor]]:
    classifies = isinstance(vit.head, nn.Linear)
    before = "vit." if classifies else ""
    yield f"{before}embeddings.cls_token", vit.cls_token
    yield f"{before}embeddings.position_embeddings", vit.pos_embed
    yield from _both(f"{before}embeddings.patch_embeddings.projection", vit.patch_embed.proj)
    for number, block in enumerate(vit.blocks):
        layer = f"{before}encoder.layer.{number}"
        qkv = block.attn.qkv
        for name, rows in zip(("query", "key", "value"), qkv.weight.chunk(3), strict=True):
            yield f"{layer}.attention.attention.{name}.weight", rows
        if qkv.bias is not None:
            for name, rows in zip(("query", "key", "value"), qkv.bias.chunk(3), strict=True):
                yield f"{layer}.attention.attention.{name}.bias", rows
        yield from _both(f"{layer}.attention.output.dense", block.attn.proj)
        yield from _both(f"{layer}.intermediate.dense", block.mlp.fc1)
        yield from _both(f"{layer}.output.dense", block.mlp.fc2)
        yield from _both(f"{layer}.layernorm_before", block.norm1)
        yield from _both(f"{layer}.layernorm_after", block.norm2)
    norm = next((norm for norm in (vit.norm, vit.fc_norm) if isinstance(norm, nn.LayerNorm)), None)
    yield from _both(f"{before}layernorm", norm or nn.LayerNorm(vit.embed_dim))
    if classifies:
        yield from _both("classifier", vit.head)


def _both(name: str, layer: Any) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", layer.weight
    yield f"{name}.bias", layer.bias


def _config(source: Source, network: Backbone) -> dict[str, Any]:
    block: Any = network.vit.blocks[0]
    names = source.classes or [f"LABEL_{number}" for number in range(network.classes or 0)]
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: number for number, name in enumerate(names)}}
    return {
        "architectures": [CLASSIFIER if network.classes else ENCODER],
        "model_type": "vit",
        "hidden_size": network.width,
        "num_hidden_layers": network.depth,
        "num_attention_heads": network.heads[0],
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "layer_norm_eps": block.norm1.eps,
        "qkv_bias": block.attn.qkv.bias is not None,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "image_size": network.image_size[0],
        "patch_size": network.patch[0],
        "num_channels": 3,
        **(labels if network.classes else {}),
    }


def _check(backbone: Backbone, kind: str, folder: Path) -> dict[str, float]:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    options = {} if backbone.classes else {"add_pooling_layer": False}
    model = getattr(transformers, kind).from_pretrained(folder, **options).eval()
    images = sample(backbone, 2)
    with torch.inference_mode():
        outputs = model(pixel_values=backbone.normalise(images), output_hidden_states=True)
        got = {"tokens": outputs.hidden_states[backbone.output_block]}
        expected = dict(zip(("features", "tokens", "logits"), Outputs(backbone)(images), strict=False))
        if backbone.classes:
            got["logits"] = outputs.logits
    return {name: difference(got[name], expected[name], MOST, f"{kind}'s {name}") for name in got}


SNIPPET = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, {kind}

folder = "."  # this folder, or OWNER/NAME on the hub
processor = AutoImageProcessor.from_pretrained(folder)
model = {kind}.from_pretrained(folder{options}).eval()
inputs = processor(images=Image.open("image.jpg").convert("RGB"), return_tensors="pt")
with torch.inference_mode():
    outputs = model(**inputs, output_hidden_states=True)
features = outputs.hidden_states[{block}][:, 1:].mean(dim=1)  # mean patch token of block {block}
{last}"""
