import json

import pytest
import torch

from tests.methods.test_distillation import NoiseData, trainer
from tinymim.cli.main import main
from tinymim.errors import TinymimError
from tinymim.evaluation.knn import knn_top1
from tinymim.tasks import Knn
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
    assert main(["fit", *recipe]) == 1
    assert "Knn trains nothing; use it with `tinymim test`" in capsys.readouterr().err


def test_knn_module__without_weights_or_with_none_to_vote():
    assert "--model.weights" in Knn().problems(image_size=16)[0]
    assert "k, temperature: 0" in Knn("digits_mae", k=0).problems(image_size=32)[0]


def test_knn_module__of_images_without_labels_is_refused(teacher_card, tmp_path):
    data = NoiseData()
    data.num_classes = None
    with pytest.raises(TinymimError, match="these images have no labels, and nearest neighbours vote on them"):
        trainer(tmp_path).test(Knn("tiny_teacher"), datamodule=data, verbose=False)
