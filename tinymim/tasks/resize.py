"""A trained backbone for images of another size: the same weights, and positions fitted to the other grid."""

from __future__ import annotations

from tinymim.errors import TinymimError
from tinymim.teachers.weights import from_record
from tinymim.vit.backbone import Backbone


def at_size(backbone: Backbone, size: int) -> Backbone:
    """The backbone for square images of ``size`` pixels; itself where it takes them already.

    Args:
        backbone: with weights, or on the meta device.
        size: a multiple of the patch.

    Raises:
        TinymimError: ``size`` is none.
    """
    rows, columns = backbone.patch
    if size % rows or size % columns:
        raise TinymimError(f"data.image_size: {size} is no multiple of the backbone's {rows}x{columns} px patches")
    if backbone.image_size == (size, size):
        return backbone
    record = backbone.record()
    record["architecture"]["options"]["img_size"] = size
    with next(backbone.parameters()).device:
        other = from_record({"backbone": record})
    other.vit.load_state_dict(other.fit(backbone.vit.state_dict()))
    return other
