"""A folder that ``timm.create_model("local-dir:FOLDER", pretrained=True)`` opens, with nothing of this project."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import save_file
from timm.data import resolve_model_data_config
from timm.models import VisionTransformer
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from torch import Tensor, nn

from tinymim.errors import TinymimError, misfit
from tinymim.export.model_card import ExportedForm
from tinymim.export.source import WEIGHTS, Source, difference, resized_side, sample
from tinymim.files import write_atomically, write_json
from tinymim.teachers.weights import FOREIGN, RECORD, State
from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone
from tinymim.vit.classifier_head import Head
from tinymim.vit.taps import LOGITS, Tap

MOST = 1e-5  # largest difference allowed between timm's outputs and ours


def write(source: Source, folder: Path) -> ExportedForm:
    """Fill ``folder`` with ``config.json`` and ``model.safetensors``, and open it with timm alone."""
    network = as_timm(source.backbone)
    record = {"backbone": network.record(), "prefix": "", **source.kept()}
    write_weights(network.vit.state_dict(), folder, {RECORD: json.dumps(record)})
    write_json(folder / "config.json", _config(source, network))
    return ExportedForm(
        library="timm",
        snippet=SNIPPET.format(
            block=network.output_block, index=network.output_block - 1, last=LAST[bool(network.classes)]
        ),
        notes=_notes(source.backbone, network),
        differences=_check(source.backbone, network, folder),
        packages=["timm"],
    )


def as_timm(backbone: Backbone) -> Backbone:
    """The same network with a classifier of timm's own, or none, so that timm's arguments say all of it.

    Raises:
        TinymimError: timm cannot express its head layout or its classifier.
    """
    if len(set(backbone.heads)) > 1:
        raise TinymimError(_uneven(backbone))
    options, head = _classifier(backbone)
    stored = backbone.record()["architecture"]
    architecture = Architecture(**{**stored, "options": stored["options"] | options})
    network = Backbone(architecture, backbone.output_block, backbone.trained_qkv, initialise=False)
    whole = backbone.vit.state_dict()
    encoder = {key: value for key, value in whole.items() if not key.startswith(FOREIGN)}
    if backbone.classes and not backbone.classifier:
        encoder = whole
    untrained = {key: value for key, value in network.vit.state_dict().items() if key.startswith(("norm.", "fc_norm."))}
    try:
        network.vit.load_state_dict(untrained | encoder | _named(backbone, head, network))
    except RuntimeError as error:
        raise TinymimError(f"timm's {architecture.arch} does not take these weights: {misfit(error)}") from None
    return network.eval()


def _uneven(backbone: Backbone) -> str:
    same = next(i for i, heads in enumerate(backbone.heads) if heads != backbone.heads[0])
    if backbone.classes:
        remedy = "fine-tune again with --model.head_layout uniform"
    elif same >= backbone.output_block:
        remedy = "--blocks trained leaves out the last block, which was not trained whole and is what differs"
    else:
        remedy = f"--blocks {same} keeps those before it changes"
    return (
        f"head layout: the blocks have {', '.join(map(str, backbone.heads))} heads, and timm and Hugging Face have one "
        f"number for all; {remedy}; --to onnx and --to torch-export keep any layout"
    )


def _classifier(backbone: Backbone) -> tuple[dict[str, Any], State]:
    """timm's arguments for the classifier, and its weights under the names of :class:`Head`."""
    vit, head = backbone.vit, backbone.classifier
    pool = {} if backbone.distilled else {"global_pool": "avg"}  # timm's with two tokens has one way to pool, its own
    if head is None:
        return ({} if backbone.classes else {"num_classes": 0, **pool, **(_unnormed(vit) or {})}), {}
    form = head.form
    if form.neck:
        raise TinymimError(
            f"classifier: timm has no neck, and this one has {form.neck} channels; --no-classifier exports the "
            "backbone alone, and --to onnx or --to torch-export the whole"
        )
    if backbone.distilled and form.pool != "cls_dist":
        raise TinymimError(
            f"classifier: beside a distillation token timm has one on each of CLS and distillation token, and this one "
            f"pools {form.pool}; --no-classifier exports the backbone alone"
        )
    if form.pool == "cls":
        pool = {"global_pool": "token"}
    norm = _normed(vit) if form.norm == "layer" else _unnormed(vit)
    if norm is None:
        raise TinymimError(
            f"classifier: {backbone.architecture.arch} normalises before its classifier, and this one does not; "
            "--no-classifier exports the backbone alone"
        )
    return {"num_classes": form.classes, **pool, **norm}, _folded(head)


def _normed(vit: nn.Module) -> dict[str, Any]:
    """timm's arguments for a norm of what is pooled alone, so that tokens are given out as they are."""
    if isinstance(vit, VisionTransformerDistilled):
        return {"final_norm": True, "fc_norm": False}
    if isinstance(vit, VisionTransformer):
        return {"final_norm": True, "fc_norm": True}
    return {"use_fc_norm": True, "use_post_transformer_norm": False} if isinstance(vit, Eva) else {}


def _unnormed(vit: nn.Module) -> dict[str, Any] | None:
    """timm's arguments for no norm after the last block, or ``None`` where it always has one."""
    if isinstance(vit, VisionTransformer):
        return {"final_norm": False}
    return {"use_fc_norm": False, "use_post_transformer_norm": False} if isinstance(vit, Eva) else None


def _folded(head: Head) -> State:
    """A head's weights, a probe's batch norm folded into its linear layer."""
    state = dict(head.state_dict())
    if isinstance(norm := head.norm, nn.BatchNorm1d):
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        state = {"head.weight": head.head.weight * scale}
        state["head.bias"] = head.head.bias - state["head.weight"] @ norm.running_mean
    return state


def _named(backbone: Backbone, head: State, network: Backbone) -> State:
    name = "fc_norm" if isinstance(network.vit.fc_norm, nn.LayerNorm) else "norm"
    theirs, ours = getattr(network.vit, name), backbone.classifier and backbone.classifier.norm
    if isinstance(ours, nn.LayerNorm) and theirs.eps != ours.eps:
        raise TinymimError(
            f"classifier: the norm before it has eps {ours.eps:g}, and in {network.architecture.arch} it has "
            f"{theirs.eps:g}; --no-classifier exports the backbone alone"
        )
    return {key.replace("norm.", f"{name}.") if key.startswith("norm.") else key: value for key, value in head.items()}


def write_weights(state: State, folder: Path, header: dict[str, str]) -> None:
    """``model.safetensors`` in ``folder``; timm and transformers ask for its header to say ``pt``."""
    whole = {key: value.detach().float().contiguous() for key, value in state.items()}
    # by itself safetensors leaves a file that its owner alone may read
    write_atomically(folder / WEIGHTS, lambda file: save_file(whole, file, metadata={"format": "pt", **header}))


def _config(source: Source, network: Backbone) -> dict[str, Any]:
    stored = network.record()["architecture"]
    size, classes = network.image_size, network.classes or 0
    pretrained = {
        "input_size": [3, *size],
        "fixed_input_size": True,
        "interpolation": "bicubic",
        "crop_pct": crop_share(size[0]),
        "crop_mode": "center",
        "mean": list(stored["mean"]),
        "std": list(stored["std"]),
        "num_classes": classes,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": ["head", "head_dist"] if network.distilled else "head",
        "license": source.provenance.licence,
    }
    named = {"label_names": source.classes} if source.classes else {}
    arguments = {**stored["options"], "num_heads": network.heads[0]}
    return {
        "architecture": stored["arch"],
        "num_classes": classes,
        "num_features": network.width,
        "global_pool": stored["options"].get("global_pool", ""),
        **named,
        # without the number of classes, which transformers' TimmWrapper hands to timm beside these
        "model_args": {name: value for name, value in arguments.items() if name != "num_classes"},
        "pretrained_cfg": pretrained,
    }


def crop_share(size: int) -> float:
    """Side of the crop over the side that images are resized to, such that timm, which rounds down, comes to ours."""
    side = resized_side(size)
    share = size / side
    return share if math.floor(size / share) == side else math.nextafter(share, 0)


def _check(backbone: Backbone, network: Backbone, folder: Path) -> dict[str, float]:
    model = cast(Any, timm.create_model(f"local-dir:{folder}", pretrained=True)).eval()
    data = resolve_model_data_config(model)
    mean, std = (torch.tensor(data[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    images = sample(backbone, 2)
    tap = Tap(backbone.output_block, "ffn_post")
    with torch.inference_mode():
        normal = (images - mean) / std
        (tokens,) = model.forward_intermediates(
            normal, indices=[tap.block - 1], output_fmt="NLC", intermediates_only=True
        )
        got = {"features": tokens.mean(dim=1)}
        expected = {"features": backbone.features(images)}
        if backbone.classes:
            got["logits"], expected["logits"] = model(normal), _logits(backbone, images)
    return {name: difference(got[name], expected[name], MOST, f"timm's {name}") for name in got}


def _logits(backbone: Backbone, images: Tensor) -> Tensor:
    last = Tap(backbone.depth, "ffn_post")
    if backbone.classifier:
        return torch.stack(backbone.classifier.each(backbone.read(images, [last])[last])).mean(dim=0)
    logits = Tap(backbone.depth, LOGITS)
    return backbone.read(images, [logits])[logits]


SNIPPET = """\
import timm
import torch
from PIL import Image

folder = "."  # this folder
model = timm.create_model(f"local-dir:{{folder}}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
images = transform(Image.open("image.jpg").convert("RGB")).unsqueeze(0)
with torch.inference_mode():
    tokens = model.forward_intermediates(images, [{index}], output_fmt="NLC", intermediates_only=True)[0]
    features = tokens.mean(dim=1)  # mean patch token of block {block}
{last}"""

LAST = {True: "    probabilities = model(images).softmax(dim=-1)", False: ""}


def _notes(backbone: Backbone, network: Backbone) -> list[str]:
    notes = ["On the hub, `hf-hub:OWNER/NAME` stands in place of `local-dir:FOLDER`."]
    if network.classes:
        notes.append("`model(images)` gives logits.")
        if backbone.classifier and backbone.classifier.form.pool == "cls_dist":
            notes.append(
                "timm averages the logits of the two classifiers; tinymim averages their probabilities, as DeiT's "
                "paper does. The classifiers are the same; the prediction may differ where they disagree."
            )
    elif network.distilled:
        notes.append("`model(images)` is the mean of CLS and distillation token, timm's own pooling.")
    elif _unnormed(network.vit) is None:
        notes.append("`model(images)` passes a last norm that was never trained; read the features as above.")
    elif network.output_block == network.depth:
        notes.append("`model(images)` gives the same features.")
    return notes
