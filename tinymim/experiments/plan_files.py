"""The kind of file that a name is of: chain, study, scaling study, program or recipe; a file shows it by its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinymim.config import recipe, spec
from tinymim.errors import TinymimError
from tinymim.log import say
from tinymim.near_names import near

KEYS = {"questions": "study", "objectives": "scaling study", "parts": "program"}
"""A key of each kind that no other has."""


def find(name: str, kinds: tuple[str, ...]) -> tuple[str, dict[str, Any], Path]:
    """The kind, content and path of a file that lists fits, or of a recipe, whose content is left out.

    Args:
        name: of a file in the folders of ``recipes``, or a path.
        kinds: that are looked for, as :data:`tinymim.config.spec.FOLDERS` has them.

    Raises:
        TinymimError: none of that name.
    """
    listed = f"{', '.join(kinds)} or recipe"
    if Path(name).is_file():
        content = spec.read(Path(name), listed, "rows, stages or model")
        kind = next((kind for key, kind in KEYS.items() if key in content and kind in kinds), "recipe")
        return "chain" if isinstance(content.get("stages"), list) else kind, content, Path(name)
    known: list[str] = []
    paths: dict[str, Path] = {}
    for kind in kinds:
        try:
            paths[kind] = spec.find(kind, name)
        except TinymimError:
            known += [path.stem for base in recipe.folders() for path in (base / spec.FOLDERS[kind]).glob("*.yaml")]
    if name in recipe.names():
        paths["recipe"] = recipe.find(name)
    if not paths:
        *first, last = ["recipe", *kinds]
        raise TinymimError(f"{name!r} is no {', '.join(first)} or {last}{near(name, [*recipe.names(), *known])}")
    (chosen, path), *others = paths.items()
    if others:
        also = ", ".join(f"the {kind} of that name as {place}" for kind, place in others)
        say(f"{name} is a {chosen} here; name {also}")
    return chosen, spec.read(path, chosen, "stages") if chosen != "recipe" else {}, path
