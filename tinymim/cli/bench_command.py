"""``tinymim bench STUDENT [TEACHER] [EXPORT ...]``: parameters, MACs, size, latency and speed on this machine, and what
the features are worth: what distilling bought."""

from __future__ import annotations

from pathlib import Path

import torch
from rich import box
from rich.table import Table

from tinymim import files
from tinymim.cli.network_command_options import bench as parser
from tinymim.errors import TinymimError, counted, field_called
from tinymim.export import bench, judge
from tinymim.export.source import run_of
from tinymim.safety.console import PlainConsole
from tinymim.safety.text import json_or_empty


def main(arguments: list[str]) -> int:
    """Run ``tinymim bench``."""
    options = parser().parse_args(arguments)
    if not 0 < options.seconds <= 3600:
        raise TinymimError(f"--seconds: {options.seconds} is not between 0 and 3600")
    if options.out:
        files.check_file("out", options.out)
    if options.threads:
        torch.set_num_threads(options.threads)
    with field_called("NETWORK"):
        networks = [bench.find(source) for source in options.networks]
    images = None
    if options.data:
        sizes = {network.skeleton.image_size for network in networks}
        if len(sizes) > 1:
            raise TinymimError(
                f"--data: the networks take images of different sizes, {sorted(sizes)}; measure each alone"
            )
        run = next(filter(None, map(run_of, map(Path, options.networks))), None)
        with field_called("--data", "data.root"), field_called("--data", "data"):
            images = judge.find(options.data, sizes.pop()[0], options.trust, run)
        for network in networks:
            images.check(network.name, network.skeleton.classes, "export it with --no-classifier and bench that")
    rows = bench.measure(networks, options.seconds, images)
    print_table(rows)
    machine = f"{torch.backends.cpu.get_cpu_capability()}, {counted(torch.get_num_threads(), 'thread')}"
    each = f"p50, p95: ms of one image; images/s: {bench.BATCH} at once; ratio: to the first; in turn, on {machine}"
    print(each + (f"; held-out images of {images.what}" if images else ""))
    if images and any(row.quality for row in rows) and (few := images.few()):
        print(few)
    place = options.out or _of_run(options.networks[0])
    if place and not options.out and not images and _has_quality(place):
        print(f"{place} stays as it is: it has accuracies, and this has none; --out FILE writes it elsewhere")
    elif place:
        content = {
            "machine": machine,
            "batch": bench.BATCH,
            "data": options.data,
            "networks": [r.record() for r in rows],
        }
        with files.writing("out", place):
            files.write_json(place, content)
        print(f"wrote {place}")
    return 0


def print_table(rows: list[bench.Measured]) -> None:
    """Print a row a network; what features are worth stands in a table of its own, for which any terminal has room."""
    table = _table("params", "GMACs", "MB", "p50", "p95", "images/s", "ratio")
    for row in rows:
        sizes = (f"{_brief(row.parameters / 1e6)}M", _brief(row.gmacs), _brief(row.size_mb))
        times = (_brief(row.latency_p50_ms), _brief(row.latency_p95_ms), _brief(row.images_per_second))
        table.add_row(row.name, row.form, *sizes, *times, _brief(row.times_the_first))
    PlainConsole().print(table)
    if names := sorted({name for row in rows for name in row.quality}):
        table = _table(*names)
        for row in rows:
            quality = (f"{row.quality[name]:.1%}" if name in row.quality else "-" for name in names)
            table.add_row(row.name, row.form, *quality)
        PlainConsole().print(table)


def _brief(value: float) -> str:
    """Three digits, or the whole ones: no more room than that is there."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _table(*heads: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("network", overflow="fold", min_width=10)
    table.add_column("form", overflow="fold", min_width=8)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _has_quality(place: Path) -> bool:
    """Whether a file of figures has what networks were worth on data."""
    networks = json_or_empty(place).get("networks")
    return isinstance(networks, list) and any(isinstance(row, dict) and row.get("quality") for row in networks)


def _of_run(source: str) -> Path | None:
    """The file of figures in the folder of the run that a checkpoint is of."""
    folder = run_of(Path(source))
    return folder / "bench.json" if folder else None
