"""The model card of an export: ``README.md``, with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from tinymim import __version__
from tinymim.errors import TinymimError
from tinymim.export.source import Source
from tinymim.safety import text
from tinymim.safety.escaping import fenced, markdown
from tinymim.teachers import card as cards
from tinymim.teachers import record_schemas
from tinymim.teachers.provenance import SCRATCH
from tinymim.training import run_schemas
from tinymim.training.run_folder import RECIPE

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
"""The trainer's settings that say what was trained; the others say how the run was watched."""

TAG = "tinymim"
TEMPLATE = """\
---
{{ card_data }}
---

# {{ title }}

{{ network }}. Made with [tinymim](https://arxiv.org/abs/2301.01296) {{ version }}.

{% if restriction %}> [!WARNING]
> **{{ restriction }}.** The licence is inherited: {{ licence }}.

{% endif %}## Use

{{ snippet }}
{% for note in notes %}- {{ note }}
{% endfor %}
## Where it comes from

{{ origin }}
{% if figures %}## Figures

At the end of the run, on held-out images:

{{ figures }}
{% endif %}{% if bench %}## Size and speed

{{ bench }}
{% endif %}{% if recipe %}## Recipe and data

{{ recipe }}
{% endif %}## Checked

Read again, its outputs differ from the network's own by at most: {{ differences }}.

## Versions

{{ versions }}
"""
"""Jinja's; whatever a file said of itself is escaped before it gets here, for Markdown has no escaping of its own."""


@dataclass
class ExportedForm:
    """An export in some form, for its card."""

    library: str  # that opens it, as the hub calls it
    snippet: str  # Python that opens it and reads ``image.jpg``, run from inside the folder
    notes: list[str]  # what a user must know of its inputs and outputs
    differences: dict[str, float]  # largest difference from the network's own outputs, by output
    packages: list[str]  # that wrote it or open it

    def shown_differences(self) -> str:
        """The differences, for people."""
        return ", ".join(f"{name} {value:.1e}" for name, value in self.differences.items())


def model_card(source: Source, form: ExportedForm, bench: Path | None = None) -> str:
    """The text of ``README.md``; its table of size and speed is of ``bench``, which is the run's by default."""
    config = _saved_recipe(source)
    licence = source.provenance.licence
    restriction = cards.restriction(licence)
    rendered = ModelCard.from_template(
        _front_matter(source, form, config),
        template_str=TEMPLATE,
        title=markdown(source.name),
        network=markdown(source.backbone.describe()),
        version=__version__,
        restriction=restriction and f"{restriction[0].upper()}{restriction[1:]}",
        licence=markdown(licence),
        snippet=fenced(form.snippet.strip(), "python"),
        notes=[*form.notes, *_network_notes(source)],
        origin=_table(("", ""), _origin(source)),
        figures=_figures(source),
        bench=_bench(bench or _of_run(source, "bench.json")),
        recipe=_recipe(config),
        differences=form.shown_differences(),
        versions=_table(("package", "trained with", "exported with"), _versions(source, form)),
    )
    return f"{rendered}\n"


def _front_matter(source: Source, form: ExportedForm, config: dict[str, Any]) -> ModelCardData:
    teacher, data = _teacher_card(source), _hub_data(config)
    licence, licence_name = _hub_licence(source.provenance.licence)
    return ModelCardData(
        license=licence,
        license_name=licence_name,
        library_name=form.library,
        pipeline_tag="image-classification" if source.backbone.classes else "image-feature-extraction",
        tags=[TAG, "masked-image-modeling", "distillation", "vision-transformer"],
        base_model=teacher.on_hub[0] if teacher and teacher.hub else None,
        datasets=[data] if data else None,
    )


def _hub_licence(licence: str) -> tuple[str, str | None]:
    """The hub's identifier of a licence, and the name of one that it has none for."""
    name = re.sub(r"[^a-z0-9.]+", "-", text.folded(licence.replace(SCRATCH, ""))).strip("-")[:80] or "unknown"
    return (name, None) if name in HUB_LICENCES or name == "unknown" else ("other", name)


def _hub_data(config: dict[str, Any]) -> str | None:
    data = config.get("data") or {}
    if not str(data.get("class_path")).endswith("HFData"):
        return None
    options = (data.get("init_args") or {}).values()
    return next((v for v in options if isinstance(v, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", v)), None)


def _network_notes(source: Source) -> list[str]:
    network = source.backbone
    depth, block = network.depth, network.output_block
    if block < depth:
        trained = (
            f"**Blocks after {block} of {depth} were not trained whole** "
            f"({', '.join(network.trained_qkv) or 'nothing'} of "
            f"block {block + 1} at most): features are read at block {block}, and the others serve fine-tuning alone."
        )
    else:
        trained = f"The output block is {block}, the last here: features are its mean patch token."
    height, width = network.image_size
    mean, std = (
        ", ".join(f"{value:g}" for value in values) for values in (network.architecture.mean, network.architecture.std)
    )
    return [
        trained,
        *([source.left_out] if source.left_out else []),
        f"Attention heads of the blocks: {', '.join(map(str, network.heads))}. They are part of the weights.",
        f"Images of {height}x{width} px; mean {mean}, standard deviation {std}.",
    ]


def _teacher(source: Source) -> dict[str, Any] | None:
    """The teacher's name and sha256, of this network or of the one it was fine-tuned from."""
    record = source.record
    return record.get("teacher") or (record.get("start") or {}).get("teacher")


def _teacher_card(source: Source) -> cards.Card | None:
    """The card of the teacher or, where there is none, of the weights it started from, if there is one."""
    if source.card:
        return source.card
    named = _teacher(source) or source.record.get("start")
    try:
        return cards.find(named["name"]) if named else None
    except TinymimError:
        return None


def _origin(source: Source) -> list[tuple[str, ...]]:
    provenance, record = source.provenance, source.record
    rows: list[tuple[str, ...]] = [
        ("weights", f"{markdown(Path(provenance.path).name)}, sha256 `{provenance.sha256}`"),
        ("licence", markdown(provenance.licence)),
    ]
    if teacher := _teacher(source):
        rows.append(("teacher", _weights(teacher)))
    if start := record.get("start"):
        rows.append(("started from", _weights(start)))
    if init := record.get("init") or (record.get("start") or {}).get("init"):
        rows.append(("first weights", f"{markdown(init)}, see `tinymim/vit/initialise.py`"))
    if card := _teacher_card(source):
        labels = "seen" if card.labels_seen else "not seen"
        rows.append((markdown(card.name), markdown(f"{card.source}; labels {labels}; licence {card.licence}")))
        rows.append(("citation", markdown(card.citation)))
        if address := card.address or card.page:
            rows.append(("address", markdown(address)))
    return rows


def _weights(identity: dict[str, str]) -> str:
    digest = re.sub(r"[^0-9a-f]", "", identity.get("sha256", ""))
    return f"{markdown(identity['name'])}, sha256 `{digest or 'unknown'}`"


def _figures(source: Source) -> str:
    path = _of_run(source, "results.json")
    if not path:
        return ""
    metrics = record_schemas.fit(text.read_json(path, str(path)), run_schemas.Results, str(path)).metrics
    says = {name: value for name, value in metrics.items() if run_schemas.says(name, [value])}
    rows = [(markdown(name), f"{value:.4f}") for name, value in says.items() if name.startswith(("val/", "test/"))]
    return _table(("figure", "value"), rows)


def _of_run(source: Source, name: str) -> Path | None:
    """A file of the run that a checkpoint is of, where there is one."""
    path = source.run / name if source.run else Path()
    return path if path.is_file() else None


def _bench(path: Path | None) -> str:
    """What `tinymim bench` has measured, as a table."""
    if not path:
        return ""
    content = text.mapping(text.read_json(path, str(path)), str(path))
    bench = record_schemas.fit(content, run_schemas.Bench, str(path))
    shares = sorted({name for row in bench.networks for name in row.quality})
    heads = ("network", "form", "parameters", "GMACs", "MB", "ms of one image, p50", "p95", "images/s", "times")
    rows = [
        (
            *(markdown(words) for words in (row.name, row.form)),
            *(f"{row.parameters:,}", f"{row.gmacs:.2g}", f"{row.size_mb:.1f}"),
            *(f"{row.latency_p50_ms:.3g}", f"{row.latency_p95_ms:.3g}", f"{row.images_per_second:.4g}"),
            f"{row.times_the_first:.3g}",
            *(f"{row.quality[name]:.1%}" if name in row.quality else "-" for name in shares),
        )
        for row in bench.networks
    ]
    of = f"; {', '.join(map(markdown, shares))} on held-out images of {markdown(bench.data)}" if bench.data else ""
    about = f"`tinymim bench` on {markdown(bench.machine)}; images/s of {bench.batch} at once, and times the first{of}."
    return f"{about}\n\n{_table((*heads, *map(markdown, shares)), rows)}"


def _saved_recipe(source: Source) -> dict[str, Any]:
    if not source.run:
        return {}
    path = source.run / RECIPE
    saved = text.mapping(text.read_yaml(path, str(path)) or {}, str(path))
    record_schemas.fit(saved, run_schemas.Recipe, str(path))
    return saved


def _recipe(config: dict[str, Any]) -> str:
    """The recipe of the run as YAML; of paths on that machine, the last part."""
    if not config:
        return ""
    settings = config.get("trainer") or {}
    trainer = {name: settings[name] for name in TRAINER if settings.get(name) is not None}
    kept = {"name": config.get("name"), "seed_everything": config.get("seed_everything"), "trainer": trainer}
    kept |= {name: config.get(name) for name in ("data", "model")}
    return fenced(yaml.safe_dump(_without_folders(kept), sort_keys=False), "yaml")


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return f".../{Path(value).name}"
    return value


def _versions(source: Source, form: ExportedForm) -> list[tuple[str, ...]]:
    path = source.run / "environment.json" if source.run else Path()
    environment = text.read_json(path, str(path)) if path.is_file() else {}
    trained = record_schemas.fit(environment, run_schemas.Environment, str(path)).packages
    here = {"tinymim": __version__} | {name: metadata.version(name) for name in form.packages}
    return [
        (markdown(name), markdown(trained.get(name, "-")), here.get(name, "-"))
        for name in dict.fromkeys([*here, *trained])
    ]


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
