"""The held-out images of any data module, under corruptions made on the fly."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from statistics import mean
from typing import cast

import torch
from torch.utils.data import Dataset
from typing_extensions import override

from tinymim.data.corruption_error import corruption_errors, corruption_table, errors_of, mean_errors
from tinymim.data.corruptions import CORRUPTIONS, Corruptions, corrupt
from tinymim.data.data_module import ImageData, Sample
from tinymim.data.device_augment import unit
from tinymim.data.named_sets import Figures, NamedSet, NamedSets, Report, percent
from tinymim.data.sampler import Draw
from tinymim.errors import TinymimError


@dataclass(eq=False)
class Corrupted(Dataset[Sample]):
    """Images under one corruption.

    Args:
        images: as they are.
        name: of the corruption.
        severity: 1 to 5.
    """

    images: Dataset[Sample]
    name: str
    severity: int

    def __len__(self) -> int:
        return len(cast(Sized, self.images))

    @torch.autocast("cpu", enabled=False)
    def __getitem__(self, draw: Draw) -> Sample:
        sample = self.images[draw]
        return {**sample, "image": corrupt(unit(sample["image"]), self.name, self.severity, draw.index)}


class CorruptedData(NamedSets):
    """Held-out images of another data module, as they are and under corruptions.

    Args:
        data: of the recipe.
        corruptions: which, and what to compare with.
    """

    def __init__(self, data: ImageData, corruptions: Corruptions):
        super().__init__(data.image_size, data.batch_size, data.num_workers, data.seed)
        self.data, self.corruptions, self.baseline = data, corruptions, corruptions.baseline
        self.needs_workers = data.needs_workers

    @override
    def prepare(self) -> None:
        # The other data module must have labels, and hold something out.
        self.data.setup("test")
        self.num_classes = self.data.num_classes
        clean = self.data.held_out
        if clean is None or not self.num_classes:
            raise TinymimError("data: corruptions are tested on held-out images with labels, and there are none")
        self.sets = [NamedSet("clean", clean)]
        for name in self.corruptions.names or CORRUPTIONS:
            for severity in self.corruptions.severities:
                self.sets.append(NamedSet(f"{name}/{severity}", Corrupted(clean, name, severity)))

    @override
    def report(self, figures: dict[str, Figures], baseline: dict[str, Figures] | None) -> Report:
        # Clean accuracy, the errors, and corruption errors against the baseline.
        clean, corrupted = figures["clean"], {name: by_set for name, by_set in figures.items() if name != "clean"}
        errors = errors_of(corrupted)
        means = mean_errors(errors)
        report = Report(numbers={"clean": {"top1": clean.top1, "images": clean.images}, "errors": errors})
        report.numbers["mean_error"] = mean(means.values())
        columns = {"clean ↑": clean.top1, "corrupted error ↓": report.numbers["mean_error"]}
        ce: dict[str, dict[str, float]] = {}
        if baseline:
            others = errors_of({name: baseline[name] for name in corrupted})
            ce["CE"] = corruption_errors(errors, mean_errors(others))
            columns["mCE ↓"] = mean(ce["CE"].values())
            columns["baseline clean ↑"] = baseline["clean"].top1
            columns["baseline error ↓"] = mean(mean_errors(others).values())
            report.numbers |= {"baseline_errors": others, "ce": ce["CE"], "mce": columns["mCE ↓"]}
            report.notes.append(
                "mCE: error of each corruption summed over severities, divided by that of the baseline "
                f"{self.baseline}, mean over corruptions"
            )
        rows = [["per cent", *map(percent, columns.values())]]
        report.tables = [("corruptions", ["", *columns], rows), corruption_table(errors, ce)]
        severities = ", ".join(map(str, self.corruptions.severities))
        report.notes.append(
            f"{clean.images:,} held-out images, {len(means)} corruptions made on the fly at severities {severities}; "
            "error is the plain mean of top-1 errors. Not ImageNet-C: figures compare within this data alone"
        )
        return report
