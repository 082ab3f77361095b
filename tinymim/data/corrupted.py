"""The held-out images of any data module, under corruptions made on the fly."""

from __future__ import annotations

from collections.abc import Sized
from statistics import mean
from typing import cast

from torch.utils.data import Dataset

from tinymim.data.batches import unit
from tinymim.data.corruption_error import corruption_errors, mean_errors
from tinymim.data.corruptions import CORRUPTIONS, Corruptions, corrupt
from tinymim.data.module import ImageData, Sample
from tinymim.data.named import Figures, NamedSet, NamedSets, Report, percent
from tinymim.data.robustness import corruption_table, errors_of
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError


class Corrupted(Dataset[Sample]):
    """Images under one corruption.

    Args:
        images: as they are.
        name: of the corruption.
        severity: 1 to 5.
    """

    def __init__(self, images: Dataset[Sample], name: str, severity: int):
        self.images, self.name, self.severity = images, name, severity

    def __len__(self) -> int:
        return len(cast(Sized, self.images))

    def __getitem__(self, draw: Draw) -> Sample:
        sample = self.images[draw]
        return {**sample, "image": corrupt(unit(sample["image"]), self.name, self.severity, draw.index)}


class CorruptedData(NamedSets):
    """What another data module holds out: as it is, and under corruptions.

    Args:
        data: of the recipe.
        corruptions: which, and what to compare with.
    """

    def __init__(self, data: ImageData, corruptions: Corruptions):
        super().__init__(data.image_size, data.batch_size, data.num_workers, data.seed)
        self.data, self.corruptions, self.baseline = data, corruptions, corruptions.baseline

    def prepare(self) -> None:
        """Have the other prepared.

        Raises:
            TinymimError: it has no labels, or holds nothing out.
        """
        self.data.setup("test")
        self.num_classes = self.data.num_classes
        clean = self.data.held_out
        if clean is None or not self.num_classes:
            raise TinymimError("data: corruptions are tested on held-out images with labels, and there are none")
        self.sets = [NamedSet("clean", clean)]
        for name in self.corruptions.names or CORRUPTIONS:
            for severity in self.corruptions.severities:
                self.sets.append(NamedSet(f"{name}/{severity}", Corrupted(clean, name, severity)))

    def report(self, found: dict[str, Figures], baseline: dict[str, Figures] | None) -> Report:
        """Clean accuracy, the errors, and corruption errors against the baseline."""
        clean, shots = found["clean"], {name: figures for name, figures in found.items() if name != "clean"}
        errors = errors_of(shots)
        means = mean_errors(errors)
        report = Report(numbers={"clean": {"top1": clean.top1, "images": clean.images}, "errors": errors})
        report.numbers["mean_error"] = mean(means.values())
        columns = {"clean ↑": clean.top1, "corrupted error ↓": report.numbers["mean_error"]}
        beside = {}
        if baseline:
            others = errors_of({name: baseline[name] for name in shots})
            beside["CE"] = corruption_errors(errors, mean_errors(others))
            columns["mCE ↓"] = mean(beside["CE"].values())
            columns["baseline clean ↑"] = baseline["clean"].top1
            columns["baseline error ↓"] = mean(mean_errors(others).values())
            report.numbers |= {"baseline_errors": others, "ce": beside["CE"], "mce": columns["mCE ↓"]}
            report.notes.append(
                "mCE: error of each corruption summed over severities, divided by that of the baseline "
                f"{self.baseline}, mean over corruptions"
            )
        rows = [["per cent", *map(percent, columns.values())]]
        report.tables = [("corruptions", ["", *columns], rows), corruption_table(errors, beside)]
        severities = ", ".join(map(str, self.corruptions.severities))
        report.notes.append(
            f"{clean.images:,} held-out images, {len(means)} corruptions made on the fly at severities {severities}; "
            "error is the plain mean of top-1 errors. Not ImageNet-C: figures compare within this data alone"
        )
        return report
