"""A folder with 3 broken images of 1000 trains, and names the 3."""

import logging
import os

import lightning.pytorch as pl
import pytest
import torch

from tests.data.images import write
from tinymim.data.folder import ImageFolderData


class Mean(pl.LightningModule):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = 0

    def training_step(self, batch, batch_idx):
        images = batch["image"]
        assert images.dtype == self.weight.dtype
        assert 0 <= images.min() <= images.max() <= 1
        self.seen += len(images)
        return (images.mean() - self.weight) ** 2

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_fit__three_broken_of_a_thousand(tmp_path, capfd, precision):
    first = write(tmp_path / "images/train/000.jpg")
    for i in range(1, 1000):
        os.link(first, tmp_path / f"images/train/{i:03}.jpg")
    write(tmp_path / "images/val/0.jpg")
    broken = {"007.jpg": first.read_bytes()[:300], "500.jpg": b"", "999.jpg": b"not an image"}
    for name, content in broken.items():
        (tmp_path / "images/train" / name).unlink()
        (tmp_path / "images/train" / name).write_bytes(content)
    data = ImageFolderData(str(tmp_path / "images"), image_size=8, batch_size=50, num_workers=2)
    module = Mean()
    handler = logging.StreamHandler()  # what is logged in a worker goes to standard error
    logging.getLogger("tinymim").addHandler(handler)
    try:
        trainer = pl.Trainer(
            max_epochs=2,
            limit_val_batches=0,
            accelerator="cpu",
            precision=precision,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            use_distributed_sampler=False,
        )
        trainer.fit(module, datamodule=data)
    finally:
        logging.getLogger("tinymim").removeHandler(handler)
    assert module.seen == 2000
    said = capfd.readouterr().err.splitlines()
    named = [line for line in said if line.startswith("skipping ")]
    assert sorted(line.split(":")[0][-7:] for line in named) == sorted(broken)
    (summary,) = [line for line in said if "could not be read" in line]
    assert summary.startswith("3 of 1,001 images could not be read")
    assert all(f"{tmp_path}/images/train/{name}" in summary for name in broken)
