from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed.tensor import DTensor

from tests.conftest import tiny
from tests.methods.test_distillation import Noise, NoiseData, distiller, trainer
from tests.targets.test_logits import kl_by_hand
from tests.tasks.test_classification import classifier, fit, star
from tinymim import files
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError
from tinymim.targets import Logits
from tinymim.tasks import Classifier
from tinymim.tasks.deit import Deit, deit_loss
from tinymim.teachers import weights
from tinymim.vit.taps import Tap


@pytest.fixture
def taught(teacher_card: Path, tmp_path: Path) -> Path:
    """The card's teacher, fine-tuned on the two classes of the noise."""
    module = classifier(weights="tiny_teacher")
    runner = trainer(tmp_path)
    runner.fit(module, datamodule=NoiseData())
    runner.save_checkpoint(tmp_path / "taught.ckpt")
    return tmp_path / "taught.ckpt"


def student(teacher: Path | str, **options: Any) -> Classifier:
    own = ("kind", "weight", "temperature", "precision", "sharding")
    deit = Deit(str(teacher), **{key: options.pop(key) for key in own if key in options})
    return classifier(**{"architecture": star(), "pool": "cls_dist", "neck": 16, "deit": deit, **options})


def batch() -> dict[str, torch.Tensor]:
    return {"image": torch.rand(6, 3, 16, 16), "label": torch.tensor([0, 1, 0, 1, 1, 0])}


def entropy_by_hand(logits: torch.Tensor, labels: torch.Tensor) -> float:
    x = logits.detach().numpy().astype(np.float64)
    return float((np.log(np.exp(x).sum(-1)) - x[np.arange(len(x)), labels.numpy()]).mean())


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_loss__deits_equations(kind: Any, weight: float) -> None:
    generator = torch.Generator().manual_seed(0)
    cls, dist, teacher = (3 * torch.randn(7, 5, generator=generator) for _ in range(3))
    labels = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    labelled = entropy_by_hand(cls, labels)
    owed = {"hard": entropy_by_hand(dist, teacher.argmax(-1)), "soft": 2.5**2 * kl_by_hand(teacher, dist, 2.5)}
    found = deit_loss(torch.tensor(labelled), dist, teacher, Deit("t", kind, weight, 2.5))  # Eq. 3 and 2
    assert found.item() == pytest.approx((1 - weight) * labelled + weight * owed[kind], rel=1e-5)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_step__labels_for_the_cls_head_and_the_teacher_for_the_other(
    kind: str, mixed: bool, taught: Path, tmp_path: Path
) -> None:
    module = student(taught, kind=kind, weight=0.4)
    fit(module, tmp_path, epochs=0)
    module.eval().log = lambda *args, **kwargs: None  # type: ignore[method-assign, assignment]
    given = batch()
    images, target = given["image"], given["label"]
    if mixed:  # the teacher sees what the student sees
        images, target = torch.rand_like(images), torch.rand(6, 2).softmax(-1)
        module.mix = lambda *_: (images, target)
    loss = module.training_step(given, 0)
    cls, dist = module.net.each(images)
    tap = Tap(3, "logits")
    with torch.no_grad():
        known = weights.load(taught, classifier=True)[0].eval().read(images, [tap])[tap]
    labelled = torch.nn.functional.cross_entropy(cls, target)
    assert module.deit is not None
    torch.testing.assert_close(loss, deit_loss(labelled, dist, known, module.deit))
    loss.backward()
    assert module.net.head_dist is not None
    assert module.net.head.weight.grad is not None
    assert module.net.head_dist.weight.grad is not None


def test_teacher__frozen_in_eval_mode_and_out_of_module_and_checkpoint(taught: Path, tmp_path: Path) -> None:
    module = student(taught)
    runner = trainer(tmp_path)
    runner.fit(module, datamodule=NoiseData())
    teacher = module.teacher
    assert teacher is not None
    module.train()
    assert not any(inner.training for inner in teacher.modules() if not list(inner.children()))
    assert not any(inner is teacher for inner in module.modules())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    before = weights.load(taught, classifier=True)[0].state_dict()
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    runner.save_checkpoint(tmp_path / "star.ckpt")
    content = torch.load(tmp_path / "star.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in content["state_dict"]} == {"model"}
    record = content[weights.RECORD]
    assert record["deit"] == {"teacher": {"name": "taught.ckpt", "sha256": files.sha256(taught)}, "kind": "hard"}
    assert record["licence"] == "Apache-2.0", "the teacher's, for the student started from scratch"
    again = weights.load(tmp_path / "star.ckpt", classifier=True)[0].eval()
    images, tap = torch.rand(2, 3, 16, 16), Tap(3, "logits")
    with torch.no_grad():
        assert torch.equal(again.read(images, [tap])[tap], module.eval()(images))
    said = dict(module.summary())
    assert said["DeiT teacher"].startswith("hard distillation, weight 0.5: vit_tiny")
    assert said["classifier"].endswith("CLS and distillation token, neck of 16 channels, 2 classes")


def test_distillation_head__comes_closer_to_the_teacher_without_any_labels_loss(taught: Path, tmp_path: Path) -> None:
    images = torch.stack([Noise()[Draw(0, index)]["image"] for index in range(16)])
    tap, gaps = Tap(3, "logits"), {}
    for epochs in (0, 25):
        module = student(taught, kind="soft", weight=1.0, temperature=1.0)
        fit(module, tmp_path, epochs)
        with torch.no_grad():
            known = weights.load(taught, classifier=True)[0].eval().read(images, [tap])[tap]
            gaps[epochs] = kl_by_hand(known, module.eval().net.each(images)[1], 1.0)
    assert gaps[25] < 0.8 * gaps[0], gaps


def test_resume__with_another_teacher_is_refused(taught: Path, tmp_path: Path) -> None:
    module = student(taught)
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(module, datamodule=NoiseData())
    runner.save_checkpoint(tmp_path / "star.ckpt")
    content = torch.load(taught, weights_only=True)
    content["state_dict"]["model.head.bias"] += 1
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(TinymimError, match=r"deit.teacher: .*taught by taught\.ckpt .*other\.ckpt"):
        trainer(tmp_path).fit(
            student(tmp_path / "other.ckpt"), datamodule=NoiseData(), ckpt_path=tmp_path / "star.ckpt"
        )


def test_problems__each_with_its_remedy(taught: Path, teacher_card: Path) -> None:
    mistakes = {
        r"deit\.teacher: tiny_teacher has no classifier": student("tiny_teacher"),
        r"deit\.teacher: .* knows 2 classes, and the data has 3": student(taught),
        r"deit\.teacher: no card 'nowhere'": student("nowhere"),
        r"deit\.teacher: none is named": student(""),
        r"deit\.weight: 2": student(taught, weight=2),
        r"deit\.temperature: 0": student(taught, temperature=0),
        r"deit: .*pool is mean; set pool: cls_dist": student(taught, pool="mean"),
        r"deit: .*no distillation token": student(taught, pool="mean", architecture=tiny(24, 3)),
    }
    for words, module in mistakes.items():
        found = module.problems(16, SimpleNamespace(num_classes=3) if "knows" in words else None)
        assert len(found) == 1, found
        assert re.match(words, found[0]), found
    assert student(taught).problems(16, SimpleNamespace(num_classes=2)) == []


def test_classes__other_than_the_datas_are_refused_before_training(taught: Path, tmp_path: Path) -> None:
    data = NoiseData()
    data.num_classes = 3  # type: ignore[misc]
    with pytest.raises(TinymimError, match=r"taught\.ckpt knows 2 classes, and the data has 3"):
        trainer(tmp_path, max_epochs=0).fit(student(taught), datamodule=data)


def test_checkpoint__without_a_record_of_its_classifier_has_none(taught: Path, tmp_path: Path) -> None:
    """As those of versions that recorded no classifier."""
    content = torch.load(taught, weights_only=True)
    del content[weights.RECORD]["classifier"]
    torch.save(content, tmp_path / "old.ckpt")
    assert weights.load(tmp_path / "old.ckpt")[0].depth == 3
    assert "has no classifier" in student(tmp_path / "old.ckpt").problems(image_size=16)[0]
    module = classifier(weights="tiny_teacher")
    trainer(tmp_path, max_epochs=3).fit(module, datamodule=NoiseData(), ckpt_path=tmp_path / "old.ckpt")
    assert module.global_step == 6, "and it can be gone on with"


def test_logits__from_a_fine_tuned_checkpoint(taught: Path, tmp_path: Path) -> None:
    module = distiller(Logits(temperature=2.0), Logits(cls=True, weight=0.5))
    module.source = str(taught)
    trainer(tmp_path, max_epochs=1).fit(module, datamodule=NoiseData())
    images, tap = torch.rand(4, 3, 16, 16), Tap(3, "logits")
    assert module.teacher.classes == 2
    known = weights.load(taught, classifier=True)[0].eval()
    with torch.no_grad():
        assert torch.equal(module.teacher.read(images, [tap])[tap], known.read(images, [tap])[tap])
    losses = module.losses({"image": images})
    torch.testing.assert_close(losses["loss"], losses["loss_logits"] + 0.5 * losses["loss_logits_2"])
    assert module.backbone.output_block == 3
    with pytest.raises(TinymimError, match=r"logits: the teacher, .*has no classifier"):
        trainer(tmp_path).fit(distiller(Logits()), datamodule=NoiseData())


def test_teacher__of_its_own_precision_and_whole_in_one_process(taught: Path, tmp_path: Path) -> None:
    module = student(taught, precision="bfloat16", sharding=True)
    trainer(tmp_path, max_epochs=1).fit(module, datamodule=NoiseData())
    assert module.teacher is not None
    assert {block.mlp.fc1.weight.dtype for block in module.teacher.vit.blocks} == {torch.bfloat16}
    assert not any(isinstance(parameter, DTensor) for parameter in module.teacher.parameters())
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    images = batch()["image"]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        tap = Tap(module.teacher.depth, "logits")
        expected = weights.load(taught, classifier=True)[0].eval().read(images, [tap])[tap]
    assert module._deit is not None
    assert torch.equal(module._deit.logits(images), expected.float())
    with pytest.raises(TinymimError, match=r"deit.precision: float32 goes with .* and it is bf16-true; use auto"):
        trainer(tmp_path, precision="bf16-true").fit(student(taught, precision="float32"), datamodule=NoiseData())
