"""The distillation steps of lightly-train, torchdistill and timm, each built as its own documents do; for ``peers.py``.

All take the same teacher and student, as timm networks with the weights of two files, and the same images, normalised
beforehand. Drop path is timm's, up to 0.1. What a package leaves to its user (the loss in torchdistill, the optimiser
there and in timm, autocast in all three) is what ``step.py`` gives its baseline.
"""

from __future__ import annotations

import argparse
import logging
import math
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from step import DEVICE, Variant, autocast, pictures, relations

from tinymim.vit.architecture import IMAGENET_MEAN, IMAGENET_STD

OPTIMISER: dict[str, Any] = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.05}


def network(options: argparse.Namespace, role: str, **arguments: Any) -> Any:
    """timm's network for ``role``, ``teacher`` or ``student``, with the weights of that file."""
    vit = timm.create_model(getattr(options, role), **arguments)
    missing, unexpected = vit.load_state_dict(load_file(options.folder / f"{role}.safetensors"), strict=False)
    assert not unexpected, unexpected
    assert all(name.startswith(("norm.", "head.")) for name in missing), missing  # as timm makes them: not distilled
    return vit.to(DEVICE)


def normalised(options: argparse.Namespace) -> torch.Tensor:
    """The images as these packages' data loading hands them over."""
    mean, std = (torch.tensor(values, device=DEVICE).view(1, -1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (pictures(options.batch) - mean) / std


def lightly_train(options: argparse.Namespace) -> Variant:
    """``lightly_train.pretrain(method="distillation")``: the parts that it is made of, without its data and trainer.

    Its own loss, optimiser (AdamW, 5e-4 by the root of the batch over 1536), mixup and clipping at 1; a queue of 8192,
    as it chooses for ImageNet.
    """
    from lightly_train._commands import train_helpers
    from lightly_train._methods import method_helpers
    from lightly_train._models import package_helpers
    from lightly_train._optim import optimizer_helpers

    logging.getLogger("lightly_train").setLevel(logging.ERROR)
    teacher = network(options, "teacher", num_classes=0)
    student = package_helpers.get_wrapped_model(
        model=network(options, "student", num_classes=0, drop_path_rate=0.1), num_input_channels=3
    )
    kind = method_helpers.get_method_cls("distillation")
    optimiser = train_helpers.get_optimizer_args(
        optim_type="auto", optim_args=None, method_cls=kind, wrapped_model=student
    )
    method = train_helpers.get_method(
        method_cls=kind,
        method_args=train_helpers.get_method_args(
            method_cls=kind,
            method_args={"teacher": teacher},
            scaling_info=train_helpers.get_scaling_info(dataset_size=1_281_167, epochs=100),
            optimizer_args=optimiser,
            wrapped_model=student,
        ),
        optimizer_args=optimiser,
        embedding_model=train_helpers.get_embedding_model(wrapped_model=student, embed_dim=None),
        global_batch_size=options.batch,
        num_input_channels=3,
    ).to(DEVICE)
    assert type(method).__name__ == "DistillationV3", type(method)
    assert not method.teacher_embedding_model.training
    assert_reads_patches(student)
    optimizer = optimizer_helpers.get_optimizer(
        optim_args=optimiser,
        trainable_modules=method.trainable_modules(),
        lr_scale=math.sqrt(options.batch / method.method_args.reference_batch_size),
    )
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    batch = {"views": [normalised(options)]}

    def step() -> torch.Tensor:
        with autocast(options.precision):
            loss = method.training_step_impl(batch, 0).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss.detach()

    return Variant("lightly-train", step)


def assert_reads_patches(student: Any) -> None:
    """Hold what peers.py says of it: a timm ViT gives the mean of its patch tokens, without the class token."""
    with torch.no_grad():
        images = torch.rand(1, 3, 224, 224, device=DEVICE)
        student.eval()
        read = student.forward_pool(student.forward_features(images))["pooled_features"].flatten(1)
        tokens = student.get_model().forward_features(images)
        student.train()
    torch.testing.assert_close(read, tokens[:, student.get_model().num_prefix_tokens :].mean(1))


def torchdistill(options: argparse.Namespace) -> Variant:
    """A ``DistillationBox`` that hooks the qkv projections of both target blocks, with TinyMIM's loss registered.

    The box is set up from a dictionary as from its YAML files, and stepped as its examples do it. The teacher is put
    into eval mode here: the box leaves it in the mode it was given.
    """
    from torchdistill.core.distillation import get_distillation_box
    from torchdistill.losses.registry import register_mid_level_loss

    logging.getLogger("torchdistill").setLevel(logging.ERROR)
    teacher = network(options, "teacher", num_classes=0).eval()
    student = network(options, "student", num_classes=0, drop_path_rate=0.1)
    heads = teacher.blocks[options.block - 1].attn.num_heads
    read = {"teacher": f"blocks.{options.block - 1}.attn.qkv", "student": f"blocks.{len(student.blocks) - 1}.attn.qkv"}

    @register_mid_level_loss
    class RelationLoss(torch.nn.Module):
        """KL divergence of the softmax of QK and VV (TinyMIM, section 3.1), as one writes it in PyTorch."""

        def forward(self, student_io: dict[str, Any], teacher_io: dict[str, Any], *_: Any, **__: Any) -> torch.Tensor:
            given = relations(teacher_io[read["teacher"]]["output"], heads)
            made = relations(student_io[read["student"]]["output"], heads)
            losses = [
                F.kl_div(s.float().log_softmax(-1), t.float().softmax(-1), reduction="none").sum(-1).mean()
                for t, s in zip(given, made, strict=True)
            ]
            return losses[0] + losses[1]

    term = {"criterion": {"key": "RelationLoss", "kwargs": {}}, "weight": 1.0}
    side = {"forward_proc": "forward_batch_only"}
    box = get_distillation_box(
        teacher,
        student,
        dataset_dict={},
        train_config={
            "num_epochs": 1,
            "teacher": {**side, "forward_hook": {"output": [read["teacher"]]}, "requires_grad": False},
            "student": {**side, "forward_hook": {"output": [read["student"]]}},
            "optimizer": {"key": "AdamW", "kwargs": dict(OPTIMISER)},
            "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"relation": term}}},
        },
        device=DEVICE,
        device_ids=None,
        distributed=False,
        lr_factor=1,
    )
    box.pre_epoch_process(epoch=0)
    images = normalised(options)

    def step() -> torch.Tensor:
        with autocast(options.precision):
            loss = box.forward_process(images, targets=None, supp_dict=None)
        box.post_forward_process(loss=loss)
        return loss.detach()

    return Variant("torchdistill", step)


def timm_task(options: argparse.Namespace) -> Variant:
    """timm's ``FeatureDistillationTask`` with random labels of 1000 classes: it cannot do without."""
    from timm.optim import create_optimizer_v2
    from timm.task import FeatureDistillationTask

    task = FeatureDistillationTask(
        network(options, "student", num_classes=1000, drop_path_rate=0.1),
        network(options, "teacher", num_classes=1000),
        criterion=torch.nn.CrossEntropyLoss(),
        device=DEVICE,
        verbose=False,
    )
    task.to(DEVICE).train()
    optimizer = create_optimizer_v2(task.trainable_module, opt="adamw", **OPTIMISER)
    images = normalised(options)
    labels = torch.randint(1000, (options.batch,), generator=torch.Generator().manual_seed(0)).to(DEVICE)

    def step() -> torch.Tensor:
        with autocast(options.precision):
            loss = task(images, labels)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Variant("timm", step)
