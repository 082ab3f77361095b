"""What distilling bought, measured here: networks in any written form beside each other, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tinymim.errors import TinymimError
from tinymim.export import graphs, network_runs
from tinymim.export.judge import Judge, Run
from tinymim.export.source import Outputs
from tinymim.safety import text
from tinymim.teachers import locate, record_schemas, weights
from tinymim.teachers.provenance import run_name
from tinymim.vit.backbone import Backbone

BATCH = 32
"""Images of a batch whose speed is measured."""

ROUND, LEAST = 0.25, 5
"""Seconds of a network's turn, and the fewest runs of the first."""


@dataclass
class Network:
    """A network to measure.

    Args:
        name: for people.
        form: what runs it.
        run: the function.
        skeleton: its sizes, with its classifier where it has one.
        size: bytes of its weights; of a written graph, of its files.
    """

    name: str
    form: str
    run: Run
    skeleton: Backbone
    size: int


@dataclass
class Measured:
    """What was measured of a network: GMACs of one image, MB, milliseconds of one image, images a second of
    :data:`BATCH`, their ratio to the first network's, and shares of the held-out images that were right."""

    name: str
    form: str
    parameters: int
    gmacs: float
    size_mb: float
    latency_p50_ms: float
    latency_p95_ms: float
    images_per_second: float
    times_the_first: float = 1.0
    quality: dict[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Its fields in plain types."""
        return asdict(self)


def find(source: str) -> Network:
    """A network by the path of a checkpoint or an export, a card's name, or ``timm:NAME``.

    Raises:
        TinymimError: nothing there, or an export in a form that is not measured.
    """
    folder = Path(source)
    file = next((folder / name for name in (graphs.ONNX, graphs.OPENVINO[0]) if (folder / name).is_file()), None)
    if folder.suffix in (".onnx", ".xml") and folder.is_file():
        file, folder = folder, folder.parent
    if file:
        return _graph(file, folder)
    if (folder / graphs.FILE).is_file():
        raise TinymimError(f"{source}: torch.export runs it as PyTorch does; give the checkpoint it was made of")
    located = locate.locate(source)
    backbone, _ = located.load(classifier=bool(located.classes))
    size = sum(weight.nbytes for weight in backbone.parameters())
    return Network(_name(source), "torch", network_runs.torch_run(backbone), located.skeleton, size)


def _name(source: str) -> str:
    """A short name: of a checkpoint in a run, the run's."""
    path = Path(source).absolute()
    if path.parent.name == "checkpoints":
        return run_name(path.parents[1])
    return path.name if path.exists() else source


def _graph(file: Path, folder: Path) -> Network:
    what = str(folder / "config.json")
    config = record_schemas.record({"prefix": "", **text.mapping(text.read_json(Path(what), what), what)}, what)
    with torch.device("meta"):
        skeleton = weights.from_record(config, classifier=True)
    data = file.with_suffix(".bin")
    size = file.stat().st_size + (data.stat().st_size if data.is_file() else 0)
    if file.suffix == ".xml":
        return Network(
            folder.name, "openvino", network_runs.openvino_run(file, torch.get_num_threads()), skeleton, size
        )
    kind = "int8" if b"DequantizeLinear" in file.read_bytes() else "float32"
    run = network_runs.onnx_run(file, torch.get_num_threads())
    return Network(folder.name, f"onnx {kind}", run, skeleton, size)


def measure(networks: Sequence[Network], seconds: float = 2.0, judge: Judge | None = None) -> list[Measured]:
    """Measure networks, one image or batch of each in turn, so that what else the machine does hits all alike.

    Args:
        networks: the first is what the others are compared with.
        seconds: of each network's part, single images and batches each.
        judge: images to compute 10-NN and top-1 on.
    """
    rows = []
    each = zip(networks, _in_turn(networks, 1, seconds), _in_turn(networks, BATCH, seconds), strict=True)
    for network, latencies, times in each:
        latencies.sort()
        rows.append(
            Measured(
                network.name,
                network.form,
                sum(parameter.numel() for parameter in network.skeleton.parameters()),
                macs(network.skeleton) / 1e9,
                network.size / 1e6,
                1e3 * statistics.median(latencies),
                1e3 * latencies[int(0.95 * (len(latencies) - 1))],
                BATCH / statistics.median(times),
            )
        )
    if judge:
        readings = [judge.read(network.run) for network in networks]
        for row, reading in zip(rows, readings, strict=True):
            row.quality = dict(reading.figures)
    for row in rows:
        row.times_the_first = row.images_per_second / rows[0].images_per_second
    return rows


def _in_turn(networks: Sequence[Network], images: int, seconds: float) -> list[list[float]]:
    """Seconds of each network for a batch, over rounds of :data:`ROUND` seconds each.

    The first run of a round is not counted: threads of the network before may still spin, and caches hold its weights.
    """
    batches = [torch.rand(images, 3, *network.skeleton.image_size) for network in networks]
    times: list[list[float]] = [[] for _ in networks]
    end = time.perf_counter() + seconds * len(networks)
    while len(times[0]) < LEAST or time.perf_counter() < end:
        for network, batch, taken in zip(networks, batches, times, strict=True):
            network.run(batch)
            begun, done = time.perf_counter(), 0
            while not done or time.perf_counter() - begun < ROUND:
                start = time.perf_counter()
                network.run(batch)
                taken.append(time.perf_counter() - start)
                done += 1
    return times


def macs(skeleton: Backbone) -> int:
    """Multiplications with their additions for one image, products of matrices and convolutions alone, of a network on
    the meta device."""
    outputs = Outputs(skeleton)
    with torch.device("meta"):
        images = torch.rand(1, 3, *skeleton.image_size)
        with sdpa_kernel(SDPBackend.MATH), torch.inference_mode(), FlopCounterMode(display=False) as counter:
            outputs(images)
    return int(counter.get_total_flops()) // 2
