"""The comparison of a plan's finished fits: their figures, and the tables of its questions."""

from __future__ import annotations

from typing import Any

from tinymim.errors import TinymimError
from tinymim.experiments import changes, question, tables
from tinymim.experiments.artefacts import promised
from tinymim.experiments.plan import Plan
from tinymim.experiments.question import Comparison, Question
from tinymim.experiments.state import State, read_json
from tinymim.experiments.tables import Records
from tinymim.files import write_json, write_text
from tinymim.report.document import Section


def records(state: State, compared: Comparison, plan: Plan | None = None) -> Records:
    """How each row went under each seed, and the figures of those that are done.

    Args:
        state: of the plan.
        compared: its rows and figures.
        plan: as its file has it today; what has another definition in ``state`` is left out.

    Raises:
        TinymimError: a finished fit did not measure one of the figures.
    """
    changed = set(changes.between(state.plan, plan)) if plan else set()
    stale = state.plan.with_descendants(changed)
    found: Records = {row: {} for row in compared.rows}
    for row, stages in compared.rows.items():
        if stale.intersection(stages.values()):
            continue
        seeds = dict.fromkeys(fit.seed for fit in state.plan.fits.values() if fit.stage in stages.values())
        for seed in seeds:
            keys = {role: key for role, stage in stages.items() if (key := state.plan.key(stage, seed))}
            if record := _record(state, keys, compared):
                found[row][seed or 0] = record
    return found


def _record(state: State, keys: dict[str, str], compared: Comparison) -> dict[str, Any] | None:
    """Of a row under a seed, whose fits are ``keys`` by what they stand for; ``None`` while nothing can be told."""
    needed = state.plan.with_sources(keys.values())
    errors = {key: entry.error for key in needed if (entry := state.entries[key]).state == "failed"}
    if errors:
        return {"status": "failed", "error": "; ".join(f"{key}: {error}" for key, error in sorted(errors.items()))}
    if any(state.entries[key].state != "done" for key in keys.values()):
        return {"status": "started"} if any(state.entries[key].state != "waiting" for key in keys.values()) else None
    results = {role: _results(state, key) for role, key in keys.items()}
    figures = {}
    for title, figure in compared.figures.items():
        metrics = results.get(figure.stage, {}).get("metrics", {})
        if figure.metric in metrics:
            figures[title] = metrics[figure.metric]
        elif figure.stage in keys and state.plan.stage(keys[figure.stage]).kind != "test":
            known = ", ".join(sorted(metrics)) or "nothing"
            raise TinymimError(f"figures.{title}.metric: {figure.stage} has no {figure.metric}; it has {known}")
    return {
        "status": "done",
        "figures": figures,
        "parameters": max(result.get("parameters", 0) for result in results.values()),
        "seconds": round(sum({key: results[role].get("seconds", 0) for role, key in keys.items()}.values()), 1),
    }


def _results(state: State, key: str) -> dict[str, Any]:
    """What a finished fit or test measured; the figures of a test as those of a fit are called."""
    results = read_json(state.place / key / promised(state, key)[-1])
    metrics = {name.replace("test/", "val/", 1): value for name, value in (results.get("metrics") or {}).items()}
    return {**results, "metrics": metrics}


def section(compared: Comparison, asked: Question, found: Records) -> Section:
    """The table of a question, and under it the settings of each row."""
    made = tables.section(asked, found, compared.shown(asked))
    made.remarks += compared.remarks(asked)
    return made


def chain_table(state: State) -> str | None:
    """Write the comparison of a chain's finished stages, ``table.md`` and ``table.json``.

    Returns:
        The table, or ``None`` where the chain has none.
    """
    compared = question.of_chain(state.plan)
    if compared is None:
        return None
    found = records(state, compared)
    text = f"{section(compared, compared.questions['table'], found).markdown()}\n{tables.READING}\n"
    write_text(state.place / "table.md", text)
    rows = {
        title: {
            str(seed): {"status": record["status"], "figures": record["figures"]}
            for seed, record in by_seed.items()
            if record["status"] == "done"
        }
        for title, by_seed in found.items()
    }
    write_json(state.place / "table.json", {"chain": state.plan.name, "rows": rows})
    return text
