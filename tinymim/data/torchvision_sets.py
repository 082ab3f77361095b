"""The image sets of torchvision: their splits, where their files lie, and what each is opened with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from tinymim.errors import TinymimError, first_few
from tinymim.near_names import nearest

IDX = ("MNIST", "FashionMNIST", "KMNIST")
"""Sets whose files are read as IDX, whatever folder they lie in."""

SYSTEM_PLACES = {"FashionMNIST": (Path("/usr/share/datasets/fashion-mnist"),)}
"""Folders where packages of the system put a set: Debian's ``dataset-fashion-mnist``."""

OTHER_KINDS = {
    "detection": ("CocoDetection", "Kitti", "VOCDetection", "WIDERFace"),
    "segmentation": ("Cityscapes", "SBDataset", "VOCSegmentation"),
    "captioning": ("CocoCaptions", "Flickr8k", "Flickr30k", "SBU"),
    "video": ("HMDB51", "Kinetics", "MovingMNIST", "UCF101"),
    "image pair": ("LFWPairs", "PhotoTour"),
    "optical flow": ("FlyingChairs", "FlyingThings3D", "HD1K", "KittiFlow", "Sintel"),
}
REMEDIES = {
    "detection": "detectors train on ShapesData with data.scene: true",
    "segmentation": "SegmentationFolderData reads images beside masks",
}
NOT_READ = ("DatasetFolder", "ImageFolder", "ImageNet", "LSUN", "LSUNClass", "VisionDataset")
"""What is not read with torchvision: bases; ImageNet, whose class unpacks archives; LSUN, which unpickles an index."""

FLAGS = {"train": {"train": True, "test": False}, "background": {"background": True, "evaluation": False}}
"""Arguments that are a flag, and what its two splits are called."""

SPLITS = {
    "CLEVRClassification": "train val test",
    "CelebA": "train valid test all",
    "Country211": "train valid test",
    "DTD": "train val test",
    "FER2013": "train test",
    "FGVCAircraft": "train val trainval test",
    "Flowers102": "train val test",
    "Food101": "train test",
    "GTSRB": "train test",
    "INaturalist": "2021_train 2021_train_mini 2021_valid 2017 2018 2019",
    "Imagenette": "train val",
    "LFWPeople": "train test 10fold",
    "OxfordIIITPet": "trainval test",
    "PCAM": "train val test",
    "Places365": "train-standard train-challenge val",
    "RenderedSST2": "train val test",
    "STL10": "train test unlabeled train+unlabeled",
    "SVHN": "train test extra",
    "StanfordCars": "train test",
}
"""Splits by name, the one to train on first; sets with a flag have its two, and sets without either one split, all."""

HOLDS: dict[str, dict[str, tuple[str, ...]]] = {
    "CelebA": {"all": ("train", "valid", "test")},
    "FGVCAircraft": {"trainval": ("train", "val")},
    "INaturalist": {"2021_train": ("2021_train_mini",)},
    "LFWPeople": {"10fold": ("train", "test")},
    "Places365": {"train-challenge": ("train-standard",)},
    "STL10": {"train+unlabeled": ("train", "unlabeled")},
}
"""Splits that are in another of the same set."""

UNLABELLED = {"CLEVRClassification": ("test",), "STL10": ("train+unlabeled", "unlabeled")}
"""Splits in which not all images have a label."""

FOLDERS = {
    "CLEVRClassification": "clevr",
    "Caltech101": "caltech101/101_ObjectCategories",
    "Caltech256": "caltech256/256_ObjectCategories",
    "Country211": "country211",
    "DTD": "dtd/dtd",
    "EuroSAT": "eurosat/2750",
    "FER2013": "fer2013",
    "FGVCAircraft": "fgvc-aircraft-2013b",
    "Flowers102": "flowers-102/jpg",
    "Food101": "food-101/images",
    "GTSRB": "gtsrb/GTSRB",
    "Imagenette": "imagenette2",
    "OxfordIIITPet": "oxford-iiit-pet/images",
    "PCAM": "pcam",
    "RenderedSST2": "rendered-sst2",
    "SUN397": "SUN397",
    "StanfordCars": "stanford_cars",
}
"""What a set is unpacked into below the root, where its class does not list its files."""

OWN_ARGUMENTS = ("root", "transform", "target_transform", "transforms", "loader", "download", "train", "background")


@dataclass(frozen=True)
class TorchvisionSet:
    """An image classification set of torchvision.

    Args:
        name: of its class.
        argument: that chooses a split; ``None`` where there is one split.
        splits: the argument's value by the split's name, the one to train on first.
    """

    name: str
    argument: str | None
    splits: dict[str, Any]

    @property
    def opener(self) -> Any:
        """torchvision's class."""
        return getattr(datasets, self.name)

    @property
    def options(self) -> list[str]:
        """Arguments of the class that are the user's to give."""
        known = _parameters(self.opener)
        return [name for name in known if name not in (*OWN_ARGUMENTS, self.argument, "kwargs")]

    @property
    def needed(self) -> str:
        """Words on the argument of the class that has no default, and its values; empty where all have one."""
        own = inspect.signature(self.opener.__init__).parameters.values()
        without = [option.name for option in own if option.default is option.empty and option.name in self.options]
        if not without:
            return ""
        values = getattr(self.opener, "splits", ("...",))  # EMNIST's
        known = f", one of {', '.join(values)}" if len(values) > 1 else ""
        return f"{self.name} needs {without[0]}{known}: --data.arguments '{{{without[0]}: {values[0]}}}'"

    @property
    def fetched(self) -> bool:
        """Whether torchvision downloads it."""
        return self.takes("download")

    @property
    def pickled(self) -> bool:
        """Whether its files are pickles."""
        return self.name.startswith("CIFAR")

    def takes(self, argument: str) -> bool:
        """Whether its class has an argument of that name."""
        return argument in _parameters(self.opener)

    def files(self, root: Path) -> Iterator[tuple[Path, str | None]]:
        """The files that its class reads, each with its published md5, or the folder they are in."""
        opener = self.opener
        if hasattr(opener, "train_list"):  # CIFAR and STL10
            for name, md5 in [*opener.train_list, *opener.test_list]:
                yield root / opener.base_folder / name, md5
            if meta := getattr(opener, "meta", None):
                yield root / opener.base_folder / meta["filename"], meta["md5"]
        elif hasattr(opener, "split_list"):  # SVHN and USPS
            for *_, name, md5 in opener.split_list.values():
                yield root / name, md5
        elif self.name in FOLDERS:
            yield root / FOLDERS[self.name], None

    def wrong_file(self, root: Path, split: str | None = None) -> str | None:
        """The first file that is missing or is not the published one, in words. Pickles among them are read by
        torchvision only once their md5 is right."""
        names = getattr(self.opener, "split_list", {}).get(split)
        for path, md5 in self.files(root):
            if names and path.name not in names:
                continue
            if not path.exists():
                return f"{path} is missing"
            if md5 and not check_integrity(str(path), md5):
                return f"{path} is damaged, or not the published file: its md5 is not {md5}"
        return None

    def missing(self, root: Path) -> str | None:
        """Why there is nothing of this set below ``root``, in words; looks at no file's contents."""
        paths = [path for path, _ in self.files(root)]
        if not paths or any(path.exists() for path in paths):
            return None
        return f"{root} has no {self.name}: looked for {first_few([str(path.relative_to(root)) for path in paths], 2)}"


def find(name: str) -> TorchvisionSet:
    """Look up a set by the name of its class.

    Raises:
        TinymimError: torchvision has none of that name, or it is no image classification set; the message gives the
            nearest names, or its kind.
    """
    kinds = {other: kind for kind, others in OTHER_KINDS.items() for other in others}
    kinds |= {other: "stereo matching" for other in datasets.__all__ if "Stereo" in other}
    if name in kinds:
        kind = kinds[name]
        remedy = REMEDIES.get(kind, "TorchvisionData reads image classification sets, such as CIFAR10")
        raise TinymimError(f"data.dataset: {name} is {_article(kind)} {kind} set; {remedy}")
    if name in NOT_READ:
        remedy = (
            "folders of images are read by ImageFolderData (--data tinymim.data.ImageFolderData --data.root FOLDER)"
        )
        raise TinymimError(f"data.dataset: {name} is not read with torchvision; {remedy}")
    known = [other for other in datasets.__all__ if other[0].isupper() and other not in (*kinds, *NOT_READ)]
    if name not in known:
        names = nearest(name, known)
        hint = f"; did you mean {' or '.join(names)}?" if names else ", such as CIFAR10"
        raise TinymimError(f"data.dataset: torchvision has no image classification set {name!r}{hint}")
    parameters = _parameters(getattr(datasets, name))
    if name in SPLITS:
        argument = "version" if name == "INaturalist" else "split"
        return TorchvisionSet(name, argument, {split: split for split in SPLITS[name].split()})
    for argument, splits in FLAGS.items():
        if argument in parameters:
            return TorchvisionSet(name, argument, splits)
    return TorchvisionSet(name, None, {"all": None})


def _article(kind: str) -> str:
    return "an" if kind[0] in "aeiou" else "a"


def _parameters(opener: Any) -> list[str]:
    """Arguments of a class; those that its base takes where it passes the rest on."""
    names: list[str] = []
    for base in inspect.getmro(opener):
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters
        names += [name for name in parameters if name not in (*names, "self", "kwargs", "args")]
        if "kwargs" not in parameters:
            break
    return names
