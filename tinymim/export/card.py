"""The model card of an export: ``README.md``, with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from tinymim import __version__
from tinymim.errors import TinymimError
from tinymim.export.source import Source
from tinymim.safety import text
from tinymim.safety.shown import fenced, markdown
from tinymim.teachers import card as cards
from tinymim.teachers import record_schemas
from tinymim.training import run_schemas

HUB_LICENCES = {"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"}
"""Identifiers that the hub knows, of those that teachers have; another one is ``other`` with its name."""

TRAINER = (
    "max_epochs",
    "max_steps",
    "precision",
    "devices",
    "num_nodes",
    "accumulate_grad_batches",
    "gradient_clip_val",
)
"""Those of the trainer's settings that say what was trained; the others say how the run was watched."""

TAG = "tinymim"
PAPER = "https://arxiv.org/abs/2301.01296"


@dataclass
class Contents:
    """What a form wrote, for its card.

    Args:
        library: that opens it, as the hub calls it.
        snippet: Python that opens it and reads ``image.jpg``, run from inside the folder.
        notes: what a user must know of its inputs and outputs.
        differences: largest difference from the network's own outputs, by output.
        packages: that wrote it or open it.
    """

    library: str
    snippet: str
    notes: list[str]
    differences: dict[str, float]
    packages: list[str]


def card(source: Source, contents: Contents) -> str:
    """The text of ``README.md``."""
    config = _saved(source.run / "config.yaml") if source.run else {}
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(source, contents, config), sort_keys=False)}---\n",
        f"# {markdown(source.name)}\n",
        f"{markdown(source.backbone.describe())}. Made with [tinymim]({PAPER}) {__version__}.\n",
        *_warning(source.provenance.licence),
        f"## Use\n\n{fenced(contents.snippet.strip(), 'python')}",
        _list([*contents.notes, *_shape(source)]),
        f"## Where it comes from\n\n{_table(('', ''), _origin(source))}",
        *_figures(source),
        *_recipe(config),
        f"## Checked\n\nRead again, its outputs differ from the network's own by at most: {shown(contents)}.\n",
        f"## Versions\n\n{_table(('package', 'trained with', 'exported with'), _versions(source, contents))}",
    ]
    return "\n".join(parts)


def shown(contents: Contents) -> str:
    """The differences, for people."""
    return ", ".join(f"{name} {value:.1e}" for name, value in contents.differences.items())


def _front_matter(source: Source, contents: Contents, config: dict[str, Any]) -> dict[str, Any]:
    classifies = bool(source.backbone.classes)
    found: dict[str, Any] = _licence(source.provenance.licence)
    found["library_name"] = contents.library
    found["pipeline_tag"] = "image-classification" if classifies else "image-feature-extraction"
    found["tags"] = [TAG, "masked-image-modeling", "distillation", "vision-transformer"]
    teacher = _teacher_card(source)
    if teacher and teacher.hub:
        found["base_model"] = teacher.on_hub[0]
    if data := _hub_data(config):
        found["datasets"] = [data]
    return found


def _licence(licence: str) -> dict[str, str]:
    """``license`` as the hub has it."""
    name = re.sub(r"[^a-z0-9.]+", "-", text.folded(licence)).strip("-")[:80] or "unknown"
    if name in HUB_LICENCES:
        return {"license": name}
    return {"license": "unknown"} if name == "unknown" else {"license": "other", "license_name": name}


def _hub_data(config: dict[str, Any]) -> str | None:
    """The data set's name on the hub, where it was read from there."""
    data = config.get("data") or {}
    if not str(data.get("class_path")).endswith("HFData"):
        return None
    given = (data.get("init_args") or {}).values()
    return next((v for v in given if isinstance(v, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", v)), None)


def _warning(licence: str) -> list[str]:
    if not (against := cards.restriction(licence)):
        return []
    return [f"> [!WARNING]\n> **{against[0].upper()}{against[1:]}.** The licence is inherited: {markdown(licence)}.\n"]


def _shape(source: Source) -> list[str]:
    """Output block, head layout and input, which no weights say."""
    network = source.backbone
    lines = []
    depth, block = network.depth, network.output_block
    if block < depth:
        lines.append(
            f"**Blocks after {block} of {depth} were not trained whole** "
            f"({', '.join(network.trained_qkv) or 'nothing'} of "
            f"block {block + 1} at most): features are read at block {block}, and the others serve fine-tuning alone."
        )
    else:
        lines.append(f"The output block is {block}, the last here: features are its mean patch token.")
    lines += [source.left_out] * bool(source.left_out)
    lines.append(f"Attention heads of the blocks: {', '.join(map(str, network.heads))}. They are part of the weights.")
    height, width = network.image_size
    mean, std = network.architecture.mean, network.architecture.std
    lines.append(f"Images of {height}x{width} px; mean {_numbers(mean)}, standard deviation {_numbers(std)}.")
    return lines


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _teacher(source: Source) -> dict[str, Any] | None:
    """The teacher's name and sha256, of this network or of the one it was fine-tuned from."""
    record = source.record
    return record.get("teacher") or (record.get("start") or {}).get("teacher")


def _teacher_card(source: Source) -> cards.Card | None:
    """The card of the teacher or, where there is none, of the weights it started from, if there is one."""
    named = source.card or _teacher(source) or source.record.get("start")
    if not isinstance(named, dict):
        return named
    try:
        return cards.find(named["name"])
    except TinymimError:
        return None


def _origin(source: Source) -> list[tuple[str, ...]]:
    own, record = source.provenance, source.record
    rows: list[tuple[str, ...]] = [
        ("weights", f"{markdown(Path(own.path).name)}, sha256 `{own.sha256}`"),
        ("licence", markdown(own.licence)),
    ]
    if teacher := _teacher(source):
        rows.append(("teacher", _weights(teacher)))
    if start := record.get("start"):
        rows.append(("started from", _weights(start)))
    if init := record.get("init") or (record.get("start") or {}).get("init"):
        rows.append(("first weights", f"{markdown(init)}, see `tinymim/vit/initialise.py`"))
    if found := _teacher_card(source):
        labels = "seen" if found.labels_seen else "not seen"
        rows.append((markdown(found.name), markdown(f"{found.source}; labels {labels}; licence {found.licence}")))
        address = found.address or found.page
        rows += [("citation", markdown(found.citation))] + [("address", markdown(address))] * bool(address)
    return rows


def _weights(identity: dict[str, str]) -> str:
    """Weights by name and sha256."""
    digest = re.sub(r"[^0-9a-f]", "", identity.get("sha256", ""))
    return f"{markdown(identity['name'])}, sha256 `{digest or 'unknown'}`"


def _figures(source: Source) -> list[str]:
    """The metrics of held-out images in the run's ``results.json``."""
    path = source.run / "results.json" if source.run else Path()
    if not path.is_file():
        return []
    metrics = record_schemas.fit(text.read_json(path, str(path)), run_schemas.Results, str(path)).metrics
    rows = [(markdown(name), f"{value:.4f}") for name, value in metrics.items() if name.startswith(("val/", "test/"))]
    return [f"## Figures\n\nAt the end of the run, on held-out images:\n\n{_table(('figure', 'value'), rows)}"]


def _recipe(config: dict[str, Any]) -> list[str]:
    """What was trained on what, from the run's ``config.yaml``; of paths on that machine, the last part."""
    if not config:
        return []
    given = config.get("trainer") or {}
    trainer = {name: given[name] for name in TRAINER if given.get(name) is not None}
    kept = {"name": config.get("name"), "seed_everything": config.get("seed_everything"), "trainer": trainer}
    kept |= {name: config.get(name) for name in ("data", "model")}
    written = yaml.safe_dump(_bare(kept), sort_keys=False)
    return [f"## Recipe and data\n\n{fenced(written, 'yaml')}"]


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_bare(part) for part in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return f".../{Path(value).name}"
    return value


def _versions(source: Source, contents: Contents) -> list[tuple[str, ...]]:
    path = source.run / "environment.json" if source.run else Path()
    told = text.read_json(path, str(path)) if path.is_file() else {}
    trained = record_schemas.fit(told, run_schemas.Environment, str(path)).packages
    here = {"tinymim": __version__} | {name: metadata.version(name) for name in contents.packages}
    return [
        (markdown(name), markdown(trained.get(name, "-")), here.get(name, "-"))
        for name in dict.fromkeys([*here, *trained])
    ]


def _saved(path: Path) -> dict[str, Any]:
    """A run's recipe as it was saved."""
    saved = text.mapping(text.read_yaml(path, str(path)) or {}, str(path))
    record_schemas.fit(saved, run_schemas.Recipe, str(path))
    return saved


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
