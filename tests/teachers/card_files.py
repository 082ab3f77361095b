"""Cards and weights that tests write."""

import torch
import yaml

from tinymim.vit.architecture import Architecture
from tinymim.vit.backbone import Backbone

OPTIONS = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 3}
CARD = {
    "name": "small",
    "architecture": {"options": OPTIONS, "heads": [3, 3, 6]},
    "file": "small.pth",
    "url": "https://example.org/small.pth",
    "sha256": None,
    "licence": "MIT",
    "citation": "nobody",
    "source": "a test",
}


def write(folder, fields=None):
    """A card named after its ``name``."""
    card = {name: value for name, value in (CARD | (fields or {})).items() if value is not ...}
    folder.mkdir(exist_ok=True)
    path = folder / f"{card['name']}.yaml"
    path.write_text(yaml.safe_dump(card))
    return path


def publish(folder, heads=(3, 3, 6)):
    """Weights for the card in MAE's format; gives back the network they came from."""
    torch.manual_seed(0)
    backbone = Backbone(Architecture(options=OPTIONS, heads=list(heads))).eval()
    state = {**backbone.vit.state_dict(), "decoder_embed.weight": torch.rand(2, 2), "mask_token": torch.rand(1)}
    torch.save({"model": state}, folder / "small.pth")
    return backbone
