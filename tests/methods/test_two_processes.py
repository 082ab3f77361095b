"""Two real processes over gloo: a teacher they share, and an evaluation whose images do not go round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import Forked, free_port
from tests.conftest import write_teacher
from tests.methods.pair import VARIANTS, Uneven, counted, distiller, figures, probe, relating, relations
from tests.methods.test_distillation import trainer
from tinymim.ops import relation_kl

Found = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``tiny_teacher``."""
    folder = tmp_path_factory.mktemp("pair")
    write_teacher(folder)
    return folder


@pytest.fixture(scope="module")
def both(teacher: Path) -> list[dict[str, Any]]:
    """What each of the two processes wrote."""
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "TINYMIM_TEACHERS": str(teacher)}
    processes = [
        Forked(teacher, module="tests.methods.pair", log=teacher / f"{rank}.txt", LOCAL_RANK=str(rank), **together)
        for rank in range(2)
    ]
    for process in processes:
        code, said = process.ended()
        assert code == 0, said
    return [torch.load(teacher / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture
def ranks(both: list[dict[str, Any]]) -> list[Found]:
    """What each of them found."""
    return [one["found"] for one in both]


@pytest.fixture
def found(ranks: list[Found], teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Found:
    """What the first process found."""
    monkeypatch.setenv("TINYMIM_TEACHERS", str(teacher))
    return ranks[0]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("variant", VARIANTS)
def test_shared_teacher__teaches_what_the_whole_one_does(variant: str, found: Found) -> None:
    whole, shared = found[f"{variant}, whole"], found[f"{variant}, shared"]
    assert same(whole["weights"], shared["weights"])
    assert whole["figures"] == shared["figures"]
    assert not any("teacher" in name for name in shared["weights"])
    assert not shared["training"]


def test_shared_teacher__a_process_holds_its_share_of_the_blocks_that_are_not_tapped(ranks: list[Found]) -> None:
    block = 12 * 24**2 + 13 * 24  # qkv, proj and MLP; biases and norms
    for found in ranks:
        whole, shared = found["plain, whole"], found["plain, shared"]
        assert whole["held"] == whole["of"] == shared["of"]
        assert shared["held"] == shared["of"] - block // 2
        assert f"shared by 2 processes, {shared['held']:,} weights in each" in shared["summary"]


def test_processes__end_with_the_same_weights_and_figures(ranks: list[Found]) -> None:
    for name in ranks[0]:
        assert same(ranks[0][name]["weights"], ranks[1][name]["weights"]), name
        assert ranks[0][name]["figures"] == ranks[1][name]["figures"], name


@pytest.mark.parametrize("name", ["probe", *(f"{variant}, shared" for variant in VARIANTS)])
def test_evaluation__counts_each_image_once_however_they_are_shared(name: str, found: Found, tmp_path: Path) -> None:
    module = probe() if name == "probe" else distiller(**VARIANTS[name.removesuffix(", shared")])
    runner = trainer(tmp_path, max_epochs=0)
    runner.fit(module, datamodule=Uneven())
    module.load_state_dict(found[name]["weights"])
    runner.validate(module, datamodule=Uneven(), verbose=False)
    assert found[name]["figures"] == pytest.approx(figures(runner), rel=1e-5)
    assert {"val/loss", "val/knn_top1"} < found[name]["figures"].keys()


def test_named_sets__are_counted_once_however_they_are_shared(ranks: list[Found], tmp_path: Path) -> None:
    expected = counted(tmp_path)
    assert [expected["all"]["images"], expected["one"]["images"], expected["one"]["unreadable"]] == [16, 8, 1]
    assert expected["one"]["top1"] == 1.0, "one class alone may be answered"
    assert [found["probe"]["counted"] for found in ranks] == [expected, expected]


def test_blocked__gradients_under_ddp_are_the_whole_batchs(both: list[dict[str, Any]]) -> None:
    tq, tk, sq, sk = relations()
    student = relating()
    relation_kl(tq, tk, student(sq), student(sk), form="blocked").backward()
    for one in both:
        torch.testing.assert_close(one["gradient"], student.weight.grad)


def test_probe__its_batch_norm_sees_the_images_of_all_processes(found: Found, tmp_path: Path) -> None:
    class Whole(Uneven):
        def prepare(self) -> None:
            super().prepare()
            self.batch_size = 8

    module, runner = probe(), trainer(tmp_path, max_epochs=1)
    runner.fit(module, datamodule=Whole())
    for name, value in module.state_dict().items():
        if name != "model.norm.num_batches_tracked":
            torch.testing.assert_close(found["probe"]["weights"][name], value, rtol=1e-4, atol=1e-5, msg=name)
