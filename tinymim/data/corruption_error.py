"""Corruption error (Hendrycks & Dietterich, arXiv 1903.12261 section 4.1): errors under corruption against another
classifier's."""

from __future__ import annotations

from statistics import mean

from tinymim.data.named_sets import Figures, percent

Errors = dict[str, dict[int, float]]
"""Top-1 error by corruption and severity."""

ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Mean error of AlexNet over the five severities of ImageNet-C, as its authors publish it with their code."""

EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Corruptions of ImageNet-C that are meant for validation and count in no mean."""


def mean_errors(errors: Errors) -> dict[str, float]:
    """The mean over severities of each corruption."""
    return {name: mean(by_severity.values()) for name, by_severity in errors.items()}


def corruption_errors(errors: Errors, baseline: dict[str, float]) -> dict[str, float]:
    """CE of each corruption that ``baseline`` has a mean error of: the sum of errors over severities, divided by the
    baseline's. Infinite where the baseline makes none."""
    means = mean_errors(errors)
    return {
        name: means[name] / expected if (expected := baseline[name]) else float("inf")
        for name in means
        if name in baseline
    }


def errors_of(figures: dict[str, Figures]) -> Errors:
    """Top-1 errors by corruption and severity, from figures of sets that are named ``corruption/severity``."""
    errors: Errors = {}
    for name, by_set in figures.items():
        corruption, _, severity = name.partition("/")
        errors.setdefault(corruption, {})[int(severity)] = by_set.error
    return errors


def corruption_table(errors: Errors, more: dict[str, dict[str, float]]) -> tuple[str, list[str], list[list[str]]]:
    """Tabulate errors in per cent by corruption and severity, and their mean; ``more`` are further columns by title."""
    severities = sorted({severity for by_severity in errors.values() for severity in by_severity})
    means = mean_errors(errors)
    rows = [
        [name, *(percent(by_severity.get(s)) for s in severities), percent(means[name])]
        + [percent(column.get(name)) for column in more.values()]
        for name, by_severity in errors.items()
    ]
    return "error by corruption and severity", ["corruption", *map(str, severities), "mean", *more], rows
