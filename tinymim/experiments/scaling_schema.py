"""What may stand in the file of a scaling study (see ``scaling_grid.py``), and every mistake in it."""

from __future__ import annotations

from typing import Any

from tinymim.config import recipe as recipes
from tinymim.config.spec import near, seed_mistakes, texts, unknown
from tinymim.errors import TinymimError

Written = dict[str, Any]

KEYS = {
    "": {
        *("about", "objectives", "sizes", "fractions", "lengths", "warmup", "seeds", "mask_seeds", "evaluations"),
        *("finetune", "set", "quick"),
    },
    "objectives": {"recipe", "set", "sizes", "fractions", "lengths"},
    "sizes": {"width", "depth", "heads"},
    "finetune": {"recipe", "set", "of"},
}
TUNED = "-ft"
"""Ends the name of a cell's fine-tuning."""

SETTLED = (
    *("data.fraction", "trainer.max_epochs", "trainer.max_steps", "trainer.check_val_every_n_epoch"),
    *("trainer.val_check_interval", "model.optim.warmup_steps", "model.train_loss", "model.mask_seeds"),
)
"""Keys of a cell's recipe that the grid settles."""

NEEDED = ("objectives", "sizes", "fractions", "lengths")


def resolved(recipe: str | list[str], settings: dict[str, Any] | None = None) -> recipes.Config:
    """A recipe, or several laid over each other, and settings over them."""
    listed = recipe if isinstance(recipe, list) else [recipe]
    return recipes.resolve([*(text for one in listed for text in ("--config", one)), *texts(settings)])[0]


def mistakes(content: Written) -> list[str]:
    """What is wrong with the text of a study."""
    found = unknown(content, "", KEYS[""])
    found += [f"{key}: missing or empty" for key in NEEDED if not content.get(key)]
    if found:
        return found
    for part in ("objectives", "sizes"):
        if not isinstance(content[part], dict):
            return [f"{part}: {content[part]!r} is not a mapping of ids to {', '.join(sorted(KEYS[part]))}"]
    found += _list_mistakes("fractions", content["fractions"]) + _list_mistakes("lengths", content["lengths"])
    found += seed_mistakes(content["seeds"], "seeds")
    for key in ("mask_seeds", "evaluations"):
        if type(content[key]) is not int or content[key] < 1:
            found.append(f"{key}: {content[key]!r} is not a whole number from 1")
    if not isinstance(content["warmup"], (int, float)) or not 0 <= content["warmup"] <= 1:
        found.append(f"warmup: {content['warmup']!r} is not a share of the steps, from 0 to 1")
    content["sizes"] = {str(id): size for id, size in content["sizes"].items()}
    for id, size in content["sizes"].items():
        found += _size_mistakes(f"sizes.{id}", size)
    for id, objective in content["objectives"].items():
        found += _objective_mistakes(f"objectives.{id}", objective, content)
    found += _finetune_mistakes(content.get("finetune"))
    if not isinstance(content.get("about") or "", str):
        found.append(f"about: {content['about']!r} is no text")
    if not isinstance(content.get("set") or {}, dict):
        found.append(f"set: {content['set']!r} is not a mapping such as {{data.batch_size: 64}}")
    for path, node in {"": content, **{f"objectives.{id}.": one for id, one in content["objectives"].items()}}.items():
        settings = (node.get("set") if isinstance(node, dict) else None) or {}
        found += [f"{path}set.{key}: {_settled(key)}" for key in settings if key in SETTLED]
    return found


def setting_mistakes(settings: list[str]) -> list[str]:
    """Of ``--set``: what the grid settles cannot be set for all cells, nor for one; a fine-tuning has its own."""
    found = []
    for text in settings:
        key = text.partition("=")[0]
        own = key.partition(".")[2]
        if key in SETTLED or (own in SETTLED and not key.partition(".")[0].endswith(TUNED)):
            found.append(f"--set {text}: {_settled(own if own in SETTLED else key)}")
    return found


def _settled(key: str) -> str:
    return f"{key} is settled by the grid; change its fractions, lengths, warmup, evaluations or mask_seeds"


def _list_mistakes(path: str, values: Any) -> list[str]:
    """Of fractions or lengths."""
    shares = path.endswith("fractions")
    what = "shares of the training images, above 0 and up to 1" if shares else "optimiser steps, whole numbers from 1"
    if not isinstance(values, list) or not values:
        return [f"{path}: {values!r} is not a list of {what}"]

    def good(value: Any) -> bool:
        return type(value) in (int, float) and 0 < value <= 1 if shares else type(value) is int and value >= 1

    found = [f"{path}: {value!r} is not one of {what}" for value in values if not good(value)]
    return found or [f"{path}: {value} twice" for value in dict.fromkeys(values) if values.count(value) > 1]


def _size_mistakes(path: str, size: Any) -> list[str]:
    if not isinstance(size, dict):
        return [f"{path}: {size!r} is not a mapping of width, depth and heads"]
    found = unknown(size, path, KEYS["sizes"]) + [
        f"{path}.{key}: missing" for key in sorted(KEYS["sizes"]) if key not in size
    ]
    for key, value in size.items():
        if key in KEYS["sizes"] and (type(value) is not int or value < 1):
            found.append(f"{path}.{key}: {value!r} is not a whole number from 1")
    return found


def _objective_mistakes(path: str, objective: Any, content: Written) -> list[str]:
    if not isinstance(objective, dict):
        return [f"{path}: {objective!r} is not a mapping of {', '.join(sorted(KEYS['objectives']))}"]
    found = unknown(objective, path, KEYS["objectives"]) + _recipe_mistakes(path, objective)
    for axis in ("fractions", "lengths"):
        if axis in objective:
            found += _list_mistakes(f"{path}.{axis}", objective[axis])
    if "sizes" in objective:
        sizes = objective["sizes"]
        if not isinstance(sizes, list) or not sizes:
            found.append(f"{path}.sizes: {sizes!r} is not a list of sizes, such as {list(content['sizes'])}")
        else:
            found += [
                f"{path}.sizes: no size {size!r}{near(size, [str(id) for id in content['sizes']])}"
                for size in sizes
                if size not in content["sizes"]
            ]
    return found


def _recipe_mistakes(path: str, node: Written) -> list[str]:
    """Of a part that names a recipe: once here, not for each of its cells."""
    if not node.get("recipe"):
        return [f"{path}.recipe: missing"]
    listed = node["recipe"] if isinstance(node["recipe"], list) else [node["recipe"]]
    if not all(isinstance(name, str) for name in listed):
        return [f"{path}.recipe: {node['recipe']!r} is not the name of a recipe, or a list of names"]
    found = []
    if not isinstance(node.get("set") or {}, dict):
        found.append(f"{path}.set: {node['set']!r} is not a mapping such as {{data.batch_size: 64}}")
    try:
        resolved(node["recipe"])
    except TinymimError as error:
        found.append(f"{path}.recipe: {error}")
    return found


def _finetune_mistakes(finetune: Any) -> list[str]:
    if finetune is None:
        return []
    if not isinstance(finetune, dict):
        return [f"finetune: {finetune!r} is not a mapping of recipe, set and of"]
    found = unknown(finetune, "finetune", KEYS["finetune"]) + _recipe_mistakes("finetune", finetune)
    if finetune.get("of", "all") not in ("all", "longest"):
        found.append(f"finetune.of: {finetune['of']!r} is neither all nor longest")
    return found
