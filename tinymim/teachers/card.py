"""Teacher cards: what a teacher is, whose it is, and where its weights are.

A card is ``teachers/NAME.yaml``. Cards are looked for in ``$TINYMIM_TEACHERS``, ``./teachers`` and the project's own
``teachers/``; a weights file lies beside its card, in any of these folders, or in the Hugging Face hub's cache. It is
written into the user's: an installed package holds no files of its users.
"""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import HFValidationError, validate_repo_id

from tinymim import files
from tinymim.errors import TinymimError
from tinymim.near_names import nearest, strangers
from tinymim.safety import escaping, names, text
from tinymim.teachers import record_schemas
from tinymim.vit.description import Architecture, colour_problem

TIMM = "timm:"
"""Begins the names of weights that timm knows, of which no card is here."""

NEEDED = ("architecture", "file", "licence", "citation", "source")  # fields that a card must have besides its name
RECIPES = {"model", "data", "trainer", "extends"}
"""Keys of which a recipe has one, and a card none."""

NONCOMMERCIAL = re.compile(
    r"\bnc\b|\bby n c\b|\bcc ?by ?nc|non ?commercial|\bno(t for)? commercial use|"
    r"\b(research|academic)( use| purposes?)? only\b"
)
UNSTATED = re.compile(r"none|unknown|un(stated|specified)\b|not (stated|specified|known)\b|no licen[cs]e\b")
"""Begins one of the licences, where nothing was stated."""

PARTS = re.compile(r"[,;:&+/|]|\band\b")  # between licences
SIGNS = "\u2212\u00a9\u00ae"  # minus, copyright and registered: not of ASCII, and like no letter
SHA256_LINE = re.compile(r"^sha256:.*$", flags=re.MULTILINE)
LONGEST = 255  # bytes of a file's name on the file systems in use


@dataclass
class Card:
    """A teacher. ``sha256: null`` means that nobody has recorded it: it is printed on loading and not compared.

    A supervised teacher's classifier, if the file holds one under timm's names, is stated by the architecture:
    ``options: {num_classes: 1000, global_pool: token}``. It is loaded where its logits are distilled, and else left.
    """

    name: str  # of the card
    architecture: Architecture  # with head layout and input normalisation
    file: str  # the weights file here, by name or path, whatever it is called where it comes from
    licence: str  # of the weights; it passes on to students
    citation: str  # the paper
    source: str  # who trained it, on what
    hub: str = ""  # where the file comes from on the Hugging Face hub, as ``owner/repository/file``
    url: str = ""  # where it comes from elsewhere; empty for one this project makes
    page: str = ""  # where a person finds it, if there is no address that a program can fetch
    sha256: str | None = None  # of the file
    target_block: int | None = None  # the block to distil from; ``None`` leaves it to the rule
    labels_seen: bool = False  # whether labels were used in its training
    note: str = ""  # what else a user should know: why that block, native sizes, doubts about the licence
    rebuild: str = ""  # the command that makes it again, if there is one
    path: Path = Path()  # of the card itself

    @property
    def folder(self) -> Path:
        """The folder where its weights file belongs, and what is noted in it: its own, or, of a card that came with the
        package, the user's, so that nothing is written into an installation."""
        packaged = self.path.parent == files.shipped("teachers")
        return folders()[0] if packaged else self.path.parent

    @property
    def place(self) -> Path:
        """The place where its weights file belongs."""
        return self.folder / self.file

    def check_writable(self) -> None:
        """Raise unless its weights may be written: ``file`` is a plain name of weights, in the card's own folder."""
        names.check_weights(self.file, f"teacher card {self.path}: file")

    @property
    def address(self) -> str:
        """Address that a program can fetch; empty where there is none."""
        return hf_hub_url(*self.on_hub) if self.hub else self.url

    @property
    def on_hub(self) -> tuple[str, str]:
        """Repository and file on the Hugging Face hub."""
        owner, repository, file = self.hub.split("/", 2)
        return f"{owner}/{repository}", file

    def weights_path(self) -> Path | None:
        """The weights file, or ``None`` where it is not on this machine.

        Raises:
            TinymimError: a place where it may be cannot be looked at.
        """
        places = [folder / self.file for folder in (self.path.parent, *folders())]
        if self.hub and isinstance(cached := try_to_load_from_cache(*self.on_hub), str):
            places.append(Path(cached))
        try:
            return next((place for place in places if place.is_file()), None)
        except OSError as error:
            raise TinymimError(
                f"teacher card {self.path}: file: {text.brief(self.file)} cannot be looked at ({error.strerror})"
            ) from None

    def how_to_get(self) -> str:
        """Remedy for missing weights: the command, and how to get them by hand."""
        if self.rebuild:
            return f"restore {self.place} from the repository, or make it again with `{self.rebuild}`"
        return f"`tinymim teachers fetch {self.name}`, or {self.by_hand()}" if self.address else self.by_hand()

    def by_hand(self) -> str:
        """Remedy without a command: the page of the weights, and the place to put them."""
        where = escaping.address(self.address) or self.page or "wherever it was"
        return f"download it from {where} and put it at {self.place} (or in the folder $TINYMIM_TEACHERS names)"

    def check_recordable(self) -> None:
        """Raise unless the card's file has a line for the sha256."""
        if not (self.path.is_file() and SHA256_LINE.search(self._written())):
            raise TinymimError(f"card {self.path} has no sha256 line to fill in")

    def _written(self) -> str:
        return text.contents(self.path, f"card {self.path}")

    def record_sha256(self, digest: str) -> Path:
        """Write the weights' sha256 into the card's file, which must have a line for it; of a card that came with the
        package, into a copy in the user's folder, which is found before it. Returns what was written."""
        self.check_recordable()
        path = self.folder / self.path.name
        files.write_text(path, SHA256_LINE.sub(f"sha256: {digest}", self._written()))
        return path


def terms(licence: str) -> str:
    """A licence in a sentence, with what it forbids."""
    licence = escaping.one_line(licence)
    forbidden = restriction(licence)
    return f"{licence}: {forbidden}" if forbidden else f"{licence}; it passes on to students"


def restriction(licence: str) -> str | None:
    """Restriction on the use of weights under ``licence``, which may be several joined by "and"; or ``None``.

    Compared by what a reader sees, whatever it is written with. What is not written in ASCII, accents aside, may look
    like any of the words and be none, so that it is not taken for a licence without restrictions.
    """
    seen, words = text.folded(licence), text.words(licence)
    odd = [
        sign for sign in seen if not sign.isascii() and sign not in SIGNS and unicodedata.category(sign)[0] not in "PZ"
    ]
    if NONCOMMERCIAL.search(words):
        return "not for commercial use, and neither are its students"
    if not (words or odd) or any(UNSTATED.match(text.words(part)) for part in PARTS.split(seen)):
        return "no permission was stated: unless it is your own, ask whoever made it before you use it"
    return f"read it before you use it: no licence that is known here is written with {odd[0]!r}" if odd else None


def folders() -> list[Path]:
    """Folders in which cards and weights are looked for, first match wins."""
    users = os.environ.get("TINYMIM_TEACHERS")
    return [*([Path(users)] if users else []), Path("teachers"), files.shipped("teachers")]


def paths() -> dict[str, Path]:
    """The file of every card, by name; it may be unreadable."""
    cards: dict[str, Path] = {}
    for folder in reversed(folders()):
        cards.update({path.stem: path for path in folder.glob("*.y*ml")})
    return dict(sorted(cards.items()))


def find(name: str) -> Card:
    """The card called ``name``, or the card at that path; the error of an unknown name gives the nearest ones."""
    if name.endswith((".yaml", ".yml")):
        return read(Path(name))
    cards = paths()
    if name in cards:
        return read(cards[name])
    if "/" in name or os.sep in name:
        raise TinymimError(
            f"teacher: there is no file or folder {text.brief(name)}; cards' names are those of `tinymim teachers`, "
            "and timm's weights timm:NAME"
        )
    names = nearest(name, cards)
    close = f"; near it: {', '.join(names)}" if names else ""
    raise TinymimError(
        f"teacher: no card {name!r}{close}. `tinymim teachers` lists them; "
        "a checkpoint is named by its path, and timm's weights as timm:NAME"
    )


def read(path: Path) -> Card:
    """Parse one card.

    Raises:
        TinymimError: unreadable, a recipe, or fields missing or unknown.
    """
    what = f"teacher card {path}"
    content = text.mapping(text.read_yaml(path, what), what)
    if RECIPES & content.keys():
        last = path.parent / "checkpoints" / "last.ckpt"
        left = last if last.is_file() else "such as RUN/checkpoints/last.ckpt"
        raise TinymimError(f"teacher: {path} is a recipe, and no teacher card; name the checkpoint of its run, {left}")
    known = {field.name for field in dataclasses.fields(Card)} - {"path"}
    if unknown := sorted(content.keys() - known):
        raise TinymimError(f"{what}: there is no field {strangers(unknown, known)}")
    if missing := [name for name in ("name", *NEEDED) if not content.get(name)]:
        raise TinymimError(f"{what}: {', '.join(missing)} missing or empty")
    record_schemas.fit(content, record_schemas.CardFields, what)
    architecture = record_schemas.architecture(content["architecture"], f"{what}: architecture")
    for name in ("mean", "std"):
        if problem := colour_problem(name, getattr(architecture, name)):
            raise TinymimError(f"{what}: architecture.{problem}")
    content["architecture"] = architecture
    if wrong := _problem(content["file"], content.get("hub") or "", content.get("url") or ""):
        raise TinymimError(f"{what}: {wrong}")
    return Card(**content, path=path)


def _problem(file: str, hub: str, url: str) -> str | None:
    """Why a card's file, place on the hub, or address can be none, or ``None``; their characters are the schema's."""
    for part in file.split("/"):
        if (length := len(os.fsencode(part))) > LONGEST:
            return f"file: {text.brief(part)} has {length} bytes, and a file's name at most {LONGEST}"
    parts, wanted = hub.split("/"), f"hub: {text.brief(hub)} is not owner/repository/file"
    if hub and (len(parts) < 3 or {"", ".", ".."} & {*parts}):
        return wanted
    try:
        if hub:
            validate_repo_id("/".join(parts[:2]))
        if url and urlsplit(url).port is None and urlsplit(url).hostname is None:
            raise ValueError("it names no host")
    except HFValidationError as error:
        return f"{wanted}: {' '.join(str(error).split())}"
    except ValueError as error:
        return f"url: {text.brief(escaping.address(url))} is no address: {escaping.address(str(error))}"
    return None
