"""A trained backbone for images of another size: the same weights, and positions resampled to the other grid."""

from __future__ import annotations

from timm.layers import resample_abs_pos_embed

from tinymim.backbones import Backbone
from tinymim.errors import TinymimError
from tinymim.weights import from_record


def at_size(backbone: Backbone, size: int) -> Backbone:
    """The backbone for square images of ``size`` pixels; itself where it takes them already.

    Position embeddings, fixed ones too, are resampled bicubically (antialiased), as timm and the published code do.

    Args:
        backbone: with weights, or on the meta device.
        size: a multiple of the patch.

    Raises:
        TinymimError: ``size`` is none.
    """
    if backbone.image_size == (size, size):
        return backbone
    rows, columns = backbone.patch
    if size % rows or size % columns:
        raise TinymimError(f"data.image_size: {size} is no multiple of the backbone's {rows}x{columns} px patches")
    record = backbone.record()
    record["architecture"]["options"]["img_size"] = size
    other = from_record({"backbone": record})
    state = backbone.vit.state_dict()
    if "pos_embed" in state:
        prefix = 0 if backbone.vit.no_embed_class else backbone.prefix
        grid = list(other.grid)
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid, list(backbone.grid), prefix)
    other.vit.load_state_dict(state)
    return other
