"""What first weights are worth: `init: published` against `init: timm`, in every way of training a small ViT.

    python benchmarks/init.py                                # every row, three seeds, into runs/init; takes hours
    python benchmarks/init.py --only digits_4 scratch_digits_20 --seeds 0 1 2
    python benchmarks/init.py --only shapes_4 --teacher_epochs 20
    python benchmarks/init.py --show                         # the table of what is done, and nothing is run

Each cell is a row, a rule and a seed: pre-training, where the row has one, then a linear probe with 10-NN and
fine-tuning from its last weights, or training on labels from scratch. Both rules see the same images in the same order,
as draws are functions of seed and step. What is done is kept, and the same command goes on where it was cut off. The
rows on shapes make their teacher first, once for all of them.

The table is Markdown: per cent of held-out images, mean ± standard deviation over seeds, and for the difference the
mean and deviation of the seeds' own differences.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from tinymim.experiments.plan import CHECKPOINT
from tinymim.experiments.questions import FIGURES, Figure
from tinymim.files import write_text
from tinymim.training import fit

RULES = ("timm", "published")
LATER = ("probe", "finetune")
LABELS = {"trained on labels": Figure("finetune", "val/top1")}
TEACHER = "teacher_shapes"


@dataclass(frozen=True)
class Row:
    """A way to train the tiny student.

    Args:
        title: for the table.
        data: ``digits`` or ``shapes``.
        recipe: to train by.
        epochs: of it.
        scratch: it trains on labels, and nothing comes after it.
        taught: by the teacher that is made here.
    """

    title: str
    data: str
    recipe: str
    epochs: int
    scratch: bool = False
    taught: bool = False

    @property
    def figures(self) -> dict[str, Figure]:
        """What is measured of it."""
        return LABELS if self.scratch else FIGURES

    def fits(self, rule: str, place: Path, root: Path, shared: list[str]) -> dict[str, list[str]]:
        """The recipe and overrides of each fit of a cell, by its folder there."""
        own = [*shared, f"--trainer.max_epochs={self.epochs}", f"--model.init_args.init={rule}"]
        if self.scratch:
            return {"finetune": [self.recipe, *own]}
        if self.taught:
            own.append(f"--model.init_args.teacher={root / TEACHER / CHECKPOINT}")
        start = [f"--model.init_args.weights={place / 'pretrain' / CHECKPOINT}", "--model.init_args.architecture=null"]
        later = {stage: [f"{stage}_{self.data}", *shared, *start] for stage in LATER}
        return {"pretrain": [self.recipe, *own], **later}


ROWS = {
    "digits_4": Row("relations, digits, 4 epochs", "digits", "relation_digits", 4),
    "digits_30": Row("relations, digits, 30 epochs", "digits", "relation_digits", 30),
    "shapes_4": Row("relations, shapes, 4 epochs", "shapes", "relation_shapes", 4, taught=True),
    "shapes_30": Row("relations, shapes, 30 epochs", "shapes", "relation_shapes", 30, taught=True),
    "mae_digits_30": Row("MAE, digits, 30 epochs", "digits", "mae_student_digits", 30),
    "mae_shapes_20": Row("MAE, shapes, 20 epochs", "shapes", "mae_student_shapes", 20),
    "simmim_digits_30": Row("SimMIM, digits, 30 epochs", "digits", "simmim_student_digits", 30),
    "demo_digits_20": Row("labels, digits, 20 epochs, finetune_digits", "digits", "finetune_digits", 20, scratch=True),
    "scratch_digits_20": Row("labels, digits, 20 epochs", "digits", "supervised_digits", 20, scratch=True),
    "scratch_digits_40": Row("labels, digits, 40 epochs", "digits", "supervised_digits", 40, scratch=True),
    "scratch_shapes_20": Row("labels, shapes, 20 epochs", "shapes", "supervised_shapes", 20, scratch=True),
    "scratch_shapes_40": Row("labels, shapes, 40 epochs", "shapes", "supervised_shapes", 40, scratch=True),
}


def run_fit(recipe: str, overrides: list[str], seed: int, place: Path) -> None:
    """Run a fit, or go on with it, unless it is done."""
    if not (place / "results.json").is_file():
        begun = ["--ckpt_path", "last"] if place.exists() else []
        fit.run("fit", ["--config", recipe, *overrides, f"--seed_everything={seed}", f"--run_dir={place}", *begun])


def teach(root: Path, epochs: int | None, shared: list[str]) -> None:
    """Make the teacher of the shapes, unless it is there."""
    own = [f"--trainer.max_epochs={epochs}"] if epochs else []
    run_fit("mae_shapes", [*shared, *own], 0, root / TEACHER)


def run(row: Row, name: str, rule: str, seed: int, root: Path, shared: list[str]) -> None:
    """Run what is not yet done of a cell."""
    place = root / name / rule / f"seed{seed}"
    for stage, (recipe, *overrides) in row.fits(rule, place, root, shared).items():
        run_fit(recipe, overrides, seed, place / stage)


def figures(row: Row, name: str, rule: str, seed: int, root: Path) -> dict[str, float] | None:
    """What a cell measured; ``None`` where it is not done."""
    place = root / name / rule / f"seed{seed}"
    files = {stage: place / stage / "results.json" for stage in row.fits(rule, place, root, [])}
    if not all(path.is_file() for path in files.values()):
        return None
    metrics = {stage: json.loads(path.read_text())["metrics"] for stage, path in files.items()}
    return {title: metrics[figure.stage][figure.metric] for title, figure in row.figures.items()}


def table(names: list[str], seeds: list[int], root: Path) -> str:
    """The table, of the seeds for which both rules are done."""
    lines = ["| training | figure | timm | published | difference | seeds |", "|---|---|---:|---:|---:|---:|"]
    for name in names:
        row = ROWS[name]
        both = [[figures(row, name, rule, seed, root) for rule in RULES] for seed in seeds]
        done = [(one, other) for one, other in both if one and other]
        for title, figure in row.figures.items():
            if done:
                old, new = [one[title] for one, _ in done], [other[title] for _, other in done]
                change = [100 * (b - a) for a, b in zip(old, new, strict=True)]
                spread = f" ± {statistics.stdev(change):.1f}" if len(change) > 1 else ""
                shown = f"{figure.shown(old)} | {figure.shown(new)} | {statistics.mean(change):+.1f}{spread}"
                lines.append(f"| {row.title} | {title} | {shown} | {len(done)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the cells that are asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=[*ROWS], metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--root", type=Path, default=Path("runs/init"), help="folder of all runs, and of table.md")
    parser.add_argument("--precision", help="of every fit, in place of the recipes'")
    parser.add_argument("--teacher_epochs", type=int, help="of the shapes' teacher, in place of its recipe's")
    parser.add_argument("--show", action="store_true", help="run nothing")
    asked = parser.parse_args()
    shared = ["--trainer.enable_progress_bar=false"]
    shared += [f"--trainer.precision={asked.precision}"] if asked.precision else []
    if not asked.show:
        if any(ROWS[name].taught for name in asked.only):
            teach(asked.root, asked.teacher_epochs, shared)
        for seed in asked.seeds:  # so that a run that is cut off has whole rows of few seeds
            for name in asked.only:
                for rule in RULES:
                    run(ROWS[name], name, rule, seed, asked.root, shared)
    text = table(asked.only, asked.seeds, asked.root)
    if not asked.show:
        write_text(asked.root / "table.md", text)
    print(f"torch {torch.__version__}, CPU {torch.backends.cpu.get_cpu_capability()}\n\n{text}")


if __name__ == "__main__":
    main()
