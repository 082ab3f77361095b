"""Class paths in recipes: which classes plain data names, whether they are the project's, and their import.

Within :func:`own_only` no classes but the project's are imported: so are recipes read that nobody has said to trust.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tinymim.near_names import nearest

OWN = "tinymim."
"""Beginning of the names of the project's own modules."""

_strangers: ContextVar[bool] = ContextVar("strangers", default=True)


@contextmanager
def own_only() -> Iterator[None]:
    """Within it, a class path that leads out of the project is a mistake, and nothing of it is imported."""
    token = _strangers.set(False)
    try:
        yield
    finally:
        _strangers.reset(token)


def takes_strangers() -> bool:
    """Whether classes of others than the project may be imported now."""
    return _strangers.get()


def in_full(part: str, name: str) -> str:
    """The path of a class of the project that is named alone, as ``data: HFData``; of others the name itself."""
    package = f"{OWN}{'data' if part == 'data' else 'modules'}"
    return f"{package}.{name}" if name.isidentifier() and name in importlib.import_module(package).__all__ else name


def is_own(class_path: str) -> bool:
    """Whether a class path stays within the project."""
    return bool(re.fullmatch(r"tinymim(\.[a-z]\w*)*\.[A-Z]\w*", class_path, re.ASCII))


def same_class(path: str, other: str) -> bool:
    """Whether two paths name one class, as ``tinymim.modules.Distiller`` and ``tinymim.methods.Distiller`` do: no two
    classes of the project have one name."""
    both_own = is_own(path) and is_own(other)
    return path == other or (both_own and path.rpartition(".")[2] == other.rpartition(".")[2])


def classes_in(node: Any, path: str = "") -> dict[str, str]:
    """Every class that plain data names, by its place in it."""
    classes: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [(path, node)]
    while waiting:
        place, value = waiting.pop(0)
        if isinstance(value, dict):
            if "class_path" in value:
                classes[place] = str(value["class_path"])
            waiting += [(f"{place}.{key}".lstrip("."), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{place}[{number}]", inner) for number, inner in enumerate(value)]
    return classes


def import_class(class_path: str) -> Any:
    """Import a class, or a function that makes one.

    Raises:
        ImportError, AttributeError, ValueError: there is none, or it is a stranger's within :func:`own_only`.
    """
    if not _strangers.get() and not is_own(class_path):
        raise ImportError("it is none of tinymim's own, and this file is only looked at; --trust takes it as your own")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", class_path):
        raise ValueError("it is no path such as package.module.Class")
    module, _, name = class_path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    if not _strangers.get() and not str(getattr(cls, "__module__", "")).startswith(OWN):
        raise ImportError("it is none of tinymim's own")
    return cls


def initialisers(cls: Any) -> list[Any]:
    """Functions that take a class's options: its own ``__init__`` and those above it; or the function itself."""
    if not inspect.isclass(cls):
        return [cls]
    return [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]


def options_of(class_path: str) -> set[str]:
    """Names of a class's options; none where it cannot be imported."""
    try:
        functions = initialisers(import_class(class_path))
    except (ImportError, AttributeError, ValueError):
        return set()
    names: set[str] = set()
    for function in functions:
        parameters = inspect.signature(function).parameters
        names |= {*parameters}
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break  # options of the classes above are not passed on
    return names


def nearest_class(class_path: str) -> str:
    """End of a message: a class of the project, or of what is imported already, that may have been meant."""
    module, _, name = class_path.rpartition(".")
    while module:
        try:
            imported = sys.modules.get(module) or (module.startswith(OWN) and importlib.import_module(module))
        except ImportError:
            imported = None
        if imported:
            classes = [attribute for attribute in dir(imported) if attribute[:1].isupper()]
            if f"{module}.{name}" == class_path and name in classes:
                return ""  # it is there, and is none that may be taken
            names = nearest(name, classes, 1)
            return f"; did you mean {module}.{names[0]}?" if names else ""
        module = module.rpartition(".")[0]
    own = [other for part in ("data", "modules") for other in importlib.import_module(f"{OWN}{part}").__all__]
    names = nearest(name, own, 1) if name == class_path else []
    return f"; did you mean {names[0]}?" if names else ""
