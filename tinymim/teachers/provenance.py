"""Provenance of loaded weights: name, file, sha256, form and licence, and which keys found their place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinymim.errors import TinymimError
from tinymim.safety import names
from tinymim.teachers import weights_summary
from tinymim.teachers.weights_file import IN_FOLDER

OURS = "tinymim"  # the form of this project's own files


ORIGINS = ("start", "teacher", "deit")
"""Fields of a checkpoint's record that name what its weights were made from."""

PLANS = ("plan.json", "chain.json")
"""Files of a folder of many runs: a study's, a comparison's, a chain's."""

DEPTH = 5
"""Folders from a run's own up in which one is looked for."""

SCRATCH = "of whoever trained it"
"""Licence of weights that were made from no others and state none: nobody else's terms are in them."""


def licence_of(record: dict[str, Any]) -> str:
    """The licence in the record of a checkpoint of ours: ``unknown`` is that of weights of others alone.

    Pre-training states none, and a classifier names what it started from; other tasks state a licence and name nothing.
    """
    licence, alone = str(record.get("licence", "unknown")), "licence" not in record or "classifier" in record
    return SCRATCH if licence == "unknown" and alone and not any(record.get(key) for key in ORIGINS) else licence


def run_name(folder: Path) -> str:
    """Name of a run by its folder, an absolute path: of a chain, study or comparison with that of the whole, since
    stages have the same names in all of them."""
    for whole in folder.parents[: DEPTH - 1]:
        if any((whole / name).is_file() for name in PLANS):
            return folder.relative_to(whole.parent).as_posix()
    return folder.name


@dataclass
class Provenance:
    """Origin of loaded weights, for the log line and for checkpoints; ``verified`` names what states the same sha256,
    or is empty."""

    name: str
    path: str
    sha256: str
    verified: str
    matched: int
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    licence: str = "unknown"
    form: str = OURS

    def __str__(self) -> str:
        check = f"as {self.verified} says" if self.verified else "no recorded sha256 to compare with"
        extra = f" ({weights_summary.by_meaning(self.unexpected)})" if self.unexpected else ""
        return (
            f"weights {self.name}: {names.followed(Path(self.path))}, sha256 {self.sha256[:12]} ({check}), "
            f"form {self.form}, keys matched {self.matched}, "
            f"missing {len(self.missing)}, unexpected {len(self.unexpected)}{extra}, licence {self.licence}"
        )

    @property
    def title(self) -> str:
        """Their name for people: a card's; of a checkpoint its run's, since they are all called ``last.ckpt``; and of
        an exported file its folder's likewise."""
        path = Path(self.path).absolute()
        if self.name == path.name and path.parent.name == "checkpoints":
            return f"run {run_name(path.parents[1])}"
        return path.parent.name if self.name == path.name and self.name in IN_FOLDER else self.name

    def identity(self) -> dict[str, str]:
        """Title and sha256, which a checkpoint keeps of a teacher with these weights."""
        return {"name": self.title, "sha256": self.sha256}

    def check_same(self, stored: dict[str, str], how: str) -> None:
        """Raise unless the identity ``stored`` in a checkpoint is that of these weights; ``how`` begins the error."""
        if stored.get("sha256") != self.sha256:
            raise TinymimError(
                f"{how} {stored['name']} (sha256 {stored.get('sha256')}), and the recipe names {self.title} "
                f"(sha256 {self.sha256}); resume with the same teacher"
            )
