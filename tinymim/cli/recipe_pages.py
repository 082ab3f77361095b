"""Help pages of the commands over one recipe, or one folder; every option of theirs is one of the recipe."""

from __future__ import annotations

from tinymim.cli.help_page import Page

FURTHER = """\
Any value of a recipe is an option: --trainer.max_epochs 5, --data.root FOLDER.
`tinymim recipes` lists recipes, and `tinymim recipes show NAME` all of one's
values; --model.help tinymim.methods.Distiller lists the options of a class"""

LIGHTNING = ", and\n--help all those of Lightning's Trainer"
CHECKPOINT = "a checkpoint, or `last` of the run's folder"


def _page(command: str, about: str, *examples: str, further: str = f"{FURTHER}{LIGHTNING}.") -> Page:
    page = Page(prog=f"tinymim {command}", description=about, examples=examples, epilog=further)
    page.add_argument("recipe", nargs="?", help="its name or path; more --config lay others over it")
    return page


def fit() -> Page:
    """Page of ``tinymim fit``."""
    page = _page(
        "fit",
        "Train a recipe, in a run folder that keeps all of it.",
        "tinymim fit relation_digits",
        "tinymim fit relation_vitt --data.root photos --data.batch_size 32",
        "tinymim fit relation_digits --trainer.max_epochs 5 --name short",
        "tinymim fit relation_vitt --data.root photos --ckpt_path last   # goes on where it was cut off",
    )
    add = page.add_argument
    add("-v", "--verbose", action="store_true", help="all lines before it begins (summary.txt has them)")
    add("--run_dir", help="its folder, runs/NAME by default")
    add("--ckpt_path", help=CHECKPOINT)
    add("--overwrite", action="store_true", help="start again, and lose the run that is there")
    return page


def validate() -> Page:
    """Page of ``tinymim validate``."""
    return _evaluating("validate", "Validate a checkpoint on its recipe's held-out images.")


def test() -> Page:
    """Page of ``tinymim test``."""
    return _evaluating("test", "Test a checkpoint, and write its figures into its run folder.")


def _evaluating(command: str, about: str) -> Page:
    page = _page(
        command,
        about,
        f"tinymim {command} runs/finetune_digits/config.yaml --ckpt_path last",
        f"tinymim {command} knn_digits --model.weights digits_mae",
    )
    page.add_argument("--ckpt_path", help=CHECKPOINT)
    page.add_argument("--run_dir", help="folder of the run; runs/NAME by default")
    return page


def check() -> Page:
    """Page of ``tinymim check``."""
    return _page(
        "check",
        "Check a recipe before it runs: every mistake at once, or sizes, speed, memory and time. Nothing is written.",
        "tinymim check relation_digits",
        "tinymim check relation_vitt --data.root photos --data.batch_size 32",
        further=f"{FURTHER}.",
    )


def resume() -> Page:
    """Page of ``tinymim resume``."""
    page = Page(
        prog="tinymim resume",
        description="Go on with what a folder holds: a run, a chain, a study, a comparison or another plan.",
        examples=(
            "tinymim resume runs/relation_digits",
            "tinymim resume runs/distill_relation_digits",
            "tinymim resume runs/relation_digits --trainer.max_epochs 60   # for longer",
        ),
        epilog="Further options are those of the command that began it.",
    )
    page.add_argument("folder", help="of the run or the plan")
    return page
