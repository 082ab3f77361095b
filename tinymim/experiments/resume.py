"""The resume rule: finished fits are kept; what has changed since is named, and run anew where that is accepted."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tinymim.errors import TinymimError, mistaken, several
from tinymim.experiments import fit_files, old_folders, plan_changes, plan_check, state
from tinymim.experiments.plan import Plan, Stage
from tinymim.experiments.state import State
from tinymim.log import say
from tinymim.training import lock, run_folder

ACCEPT = "--accept-changes runs these again and all that builds on them, and keeps the rest"
LONGEST = 20
"""Lines of what has changed that are shown."""


@contextlib.contextmanager
def opened(
    place: Path,
    plan: Plan | None,
    launch: str | None = None,
    accept: bool = False,
    keys: Iterable[str] | None = None,
    tried: dict[str, tuple[Stage, dict[str, Any]]] | None = None,
    going_on: bool = True,
) -> Iterator[State]:
    """The state of a plan in its folder, begun or to go on with, checked and written.

    The folder is locked meanwhile; a mistake in a new plan leaves no folder.

    Args:
        place: the folder.
        plan: what is to be run there; ``None`` is what the folder holds, with the recipes as they may have been edited.
        launch: put before each fit's command; ``None`` leaves it as it was.
        accept: changes since it was run last.
        keys: of the fits that are to run; the others, and what they were, are left alone. By default all.
        tried: as :func:`tinymim.experiments.old_folders.read` takes them.
        going_on: a chain may be there already.

    Raises:
        TinymimError: mistakes in what is left to run, changes that are not accepted, or a folder of other things.
    """
    if plan is None:
        state.load(place)  # before a lock is laid into a folder that is none
        with lock.hold(place, "folder"):
            yield _prepared(place, state.as_edited(state.load(place)), launch, accept, keys)
        return
    keeps_state = plan.kind in ("chain", "scaling study")  # others may be of a version that kept none
    if keeps_state:
        _check_fresh(place, going_on)
    with lock.hold(place, "run_dir"):
        if keeps_state:
            _check_fresh(place, going_on)
        yield _prepared(place, plan, launch, accept, keys, tried)


def _check_fresh(place: Path, going_on: bool) -> None:
    """Raise where a folder holds something else than a plan, or a plan unless it is to go on."""
    inside = sorted(path.name for path in place.iterdir() if path.name != lock.NAME) if place.is_dir() else []
    if state.holds(place) and not going_on:
        raise TinymimError(
            f"run_dir: {place} holds a chain already. Go on with it: --resume. Begin another: --run-dir ANOTHER_FOLDER"
        )
    if inside and not state.holds(place):
        raise TinymimError(f"run_dir: {place} holds other files ({', '.join(inside[:4])}); give a new folder")


def _prepared(
    place: Path,
    plan: Plan,
    launch: str | None,
    accept: bool,
    keys: Iterable[str] | None,
    tried: dict[str, tuple[Stage, dict[str, Any]]] | None = None,
) -> State:
    """The state of ``plan`` in a folder whose lock is held; the arguments are those of :func:`opened`."""
    wanted = set(plan.fits) if keys is None else plan.with_sources(keys)
    old = state.load(place) if state.holds(place) else old_folders.read(place, plan, tried)
    if old is None:
        if begun := [key for key in wanted if any((place / key / name).exists() for name in run_folder.KEPT)]:
            names = ", ".join(sorted(begun)[:4])
            if not accept:
                raise TinymimError(
                    f"{place} holds runs of which nothing shows that they are the same: {names}. {ACCEPT}"
                )
        _check(plan, [plan.fits[key].stage for key in wanted])
        return _written(state.begin(place, plan, launch or ""), wanted)
    known = set(old.entries) if state.holds(place) else set[str]()
    plan = plan_changes.keep_precision(old.plan, plan)
    changed = plan_changes.between(old.plan, plan)
    if keys is not None:  # a part of the plan alone is run: keep what else the folder holds, and what it was
        stages = {plan.fits[key].stage for key in wanted}
        left = old.plan.with_descendants(set(changed) & old.plan.stages.keys()) - stages
        stages_now = {
            name: old.plan.stages.get(name, stage) if name in left else stage for name, stage in plan.stages.items()
        }
        plan = dataclasses.replace(plan, stages=old.plan.stages | stages_now, fits=old.plan.fits | plan.fits)
        changed = {name: lines for name, lines in changed.items() if name in stages and name in old.plan.stages}
    for key, fit in plan.fits.items():
        if key in old.plan.fits and (then := old.plan.fits[key]) != fit:
            changed.setdefault(fit.stage, []).append(f"{key}: seed {then.seed}, now {fit.seed}")
    again = plan.with_descendants(changed)
    kept = {key for key, fit in plan.fits.items() if key in old.entries and fit.stage not in again}
    ahead = wanted - {key for key in kept if old.entries[key].state == "done"}
    needed = {source for key in ahead for source in plan.sources(key).values()}
    altered = fit_files.altered(old, [key for key in old.entries if keys is None or key in wanted], needed)
    lines = [line for changes in (*changed.values(), *altered.values()) for line in changes]
    if lines and not accept:
        more = [f"and {len(lines) - LONGEST} more"] if len(lines) > LONGEST else []
        heading = (
            f"{place} has changed since it was run. Undo it, or: {ACCEPT}; or keep all of it: --run-dir ANOTHER_FOLDER"
        )
        raise several(f"{heading}. It differs", [*lines[:LONGEST], *more])
    old.forget(set(altered))
    for key in old.follow(plan, changed):
        say(f"{key} is no longer part of the {plan.kind}; {place / key} is left as it is")
    old.launch = old.launch if launch is None else launch
    _check(plan, [plan.fits[key].stage for key in wanted if old.entries[key].state != "done"])
    return _written(old, wanted, known)


def _check(plan: Plan, stages: Iterable[str]) -> None:
    """Raise where one of ``stages`` cannot run."""
    wanted = set(stages)
    promises = plan_check.check(plan, wanted)
    if errors := plan_check.problems(plan, promises, [name for name in promises if name in wanted]):
        raise mistaken(f"{plan.kind} {plan.name}", errors)


def _written(current: State, wanted: set[str], known: Iterable[str] = ()) -> State:
    current.ask(wanted, known)
    current.save()
    current.write_recipes()
    return current
