import json

import pytest
import torch

from tests.methods.test_distillation import NoiseData, trainer
from tinymim.cli.main import main
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError
from tinymim.evaluation.knn import knn_top1
from tinymim.methods import Optim
from tinymim.tasks import Classifier, Knn
from tinymim.tasks.base import resized_backbone
from tinymim.teachers import weights


@pytest.mark.parametrize(("k", "blocks"), [(1, "trained"), (3, 2)])
def test_knn_module__tests_weights_and_trains_nothing(k, blocks, teacher_card, tmp_path):
    module = Knn("tiny_teacher", k=k, blocks=blocks)
    assert module.problems(image_size=16) == []
    runner = trainer(tmp_path)
    runner.test(module, datamodule=NoiseData(), verbose=False)
    stored = weights.load(teacher_card.with_suffix(".safetensors"))[0]
    data = NoiseData()
    data.setup("test")
    batches = list(data.test_dataloader()[0])
    with torch.no_grad():
        features = torch.cat([stored.features(batch["image"], 3 if blocks == "trained" else 2) for batch in batches])
    truth = torch.cat([batch["label"] for batch in batches])
    expected = knn_top1(features, truth, features, truth, k=k)
    assert float(runner.callback_metrics["test/knn_top1"]) == pytest.approx(expected)


def test_knn_module__needs_no_checkpoint_and_cannot_be_fitted(tmp_path, capsys):
    recipe = ["--config", "knn_digits", "--model.weights", "digits_mae", "--run_dir", str(tmp_path)]
    small = ["--trainer.limit_test_batches=1", "--data.batch_size=16", "--trainer.enable_progress_bar=false"]
    assert main(["test", *recipe, *small]) == 0
    assert "test/knn_top1" in json.loads((tmp_path / "test.json").read_text())["metrics"]
    assert main(["fit", *recipe[:-1], str(tmp_path / "fit")]) == 1
    assert "Knn trains nothing; use it with `tinymim test`" in capsys.readouterr().err


def test_knn_module__without_weights_or_with_none_to_vote():
    assert "--model.weights" in Knn().problems(image_size=16)[0]
    assert "k, temperature: 0" in Knn("digits_mae", k=0).problems(image_size=32)[0]


def test_knn_module__of_images_without_labels_is_refused(teacher_card, tmp_path):
    data = NoiseData()
    data.num_classes = None
    with pytest.raises(TinymimError, match="these images have no labels, and nearest neighbours vote on them"):
        trainer(tmp_path).test(Knn("tiny_teacher"), datamodule=data, verbose=False)


class LargerNoise(NoiseData):
    """Noise of half as many pixels again on a side as the teacher takes."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size = 24

    def prepare(self) -> None:
        super().prepare()
        images = [{**sample, "image": sample["image"].repeat(1, 2, 2)[:, :24, :24]} for sample in whole(self.held_out)]
        self.train = self.held_out = self.bank = Listed(images)


class Listed(torch.utils.data.Dataset):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, draw):
        return self.samples[draw.index]


def whole(images):
    return [images[Draw(0, index)] for index in range(len(images))]


def test_knn_module__of_larger_images_resamples_positions_and_says_so(teacher_card, tmp_path, capsys):
    module = Knn("tiny_teacher")
    assert module.problems(image_size=24) == []
    assert "18 is no multiple of the backbone's 4x4 px patches" in module.problems(image_size=18)[0]
    runner = trainer(tmp_path)
    runner.test(module, datamodule=LargerNoise(), verbose=False)
    assert "positions: resampled from 4x4 patches to 6x6 for images of 24 px" in capsys.readouterr().err
    expected = resized_backbone(weights.load(teacher_card.with_suffix(".safetensors"))[0], 24)
    assert torch.equal(module.backbone.vit.pos_embed, expected.vit.pos_embed)
    assert module.backbone.image_size == (24, 24)


def test_fine_tuning__of_larger_images_goes_on_from_resampled_positions(teacher_card, tmp_path):
    module = Classifier("tiny_teacher", optim=Optim(base_lr=1e-9, warmup_epochs=0))
    assert module.problems(image_size=24) == []
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(module, datamodule=LargerNoise())
    assert ("positions", "resampled from 4x4 patches to 6x6") in module.summary()
    runner.save_checkpoint(tmp_path / "tuned.ckpt")
    tuned = weights.load(tmp_path / "tuned.ckpt", classifier=True)[0]
    assert tuned.image_size == (24, 24)
    assert tuned.vit.pos_embed.shape[1] == 37
    again = Classifier(str(tmp_path / "tuned.ckpt"))
    assert again.problems(image_size=24) == again.problems(image_size=16) == []
    scratch = Classifier(architecture=module.backbone.architecture).problems(image_size=16)
    told = (
        "data.image_size: 16, but the backbone takes 24; make them equal, with --model.architecture.options.img_size 16"
    )
    assert told in scratch[0]
