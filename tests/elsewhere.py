"""``tinymim`` as on a system that is not POSIX's, with the core alone installed: what is lacking there is hidden from
its code, and from its code only. As a module it runs a fit, its page and the rest of the fit, in the working folder.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import io
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tinymim.extras import EXTRAS

LACKING = {
    "": "fcntl resource pwd grp termios tty pty posix syslog",
    "os": """fork forkpty setsid setpgid getpgid getpgrp killpg nice getuid geteuid getgid uname getloadavg mkfifo
        sched_getaffinity sched_setaffinity sysconf pread preadv pwrite pwritev posix_fallocate statvfs sync chroot
        O_NONBLOCK O_CLOEXEC O_NOFOLLOW O_DIRECTORY O_SYNC SEEK_DATA SEEK_HOLE WNOHANG""",
    "signal": """SIGUSR1 SIGUSR2 SIGHUP SIGXCPU SIGKILL SIGCHLD SIGALRM SIGQUIT SIGPIPE SIGSTOP SIGCONT SIG_BLOCK
        SIG_UNBLOCK SIG_SETMASK setitimer ITIMER_REAL alarm pause pthread_sigmask pthread_kill sigwait""",
    "multiprocessing": "",
    "multiprocessing.context": "ForkProcess ForkServerProcess",
}
ATTRIBUTES = {module: set(names.split()) for module, names in LACKING.items()}
"""Attributes that modules lack on Windows, and modules that are not there; macOS lacks fewer."""

MODULES = {*ATTRIBUTES.pop(""), *EXTRAS, "sklearn", "webdataset"}
"""Modules that are hidden: those, and those of extras and of the tests."""


class Lacking(ModuleType):
    """A module as it is there."""

    def __init__(self, module: ModuleType):
        super().__init__(module.__name__)
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        whole = f"{self.__name__}.{name}"
        if name in ATTRIBUTES[self.__name__]:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = OTHERWISE.get(whole) or getattr(self.__dict__["_module"], name)
        return Lacking(value) if whole in ATTRIBUTES else value


def _open(path: Any, *rest: Any, **options: Any) -> int:
    """Windows opens no folder."""
    if isinstance(path, str | os.PathLike) and Path(path).is_dir():
        raise PermissionError(13, "Permission denied", str(path))
    return os.open(path, *rest, **options)


OTHERWISE = {"os.open": _open}


def hide() -> None:
    """Hide it in this process, for good; the package is imported anew."""
    imported, opened, spec = builtins.__import__, io.open, importlib.util.find_spec

    def bring(name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] = (), level: int = 0) -> Any:
        ours = str((globals or {}).get("__name__")).partition(".")[0] == "tinymim"
        if ours and not level and name.partition(".")[0] in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = imported(name, globals, locals, fromlist, level)
        return Lacking(module) if ours and module.__name__ in ATTRIBUTES else module

    def read(file: Any, *rest: Any, **options: Any) -> Any:
        if str(file).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(2, "No such file or directory", str(file))
        return opened(file, *rest, **options)

    def link(*_: Any, **options: Any) -> None:
        raise OSError(1314, "A required privilege is not held by the client")

    for name in [name for name in sys.modules if name.partition(".")[0] == "tinymim"]:
        del sys.modules[name]
    builtins.__import__, io.open, os.symlink = bring, read, link  # type: ignore[assignment]
    importlib.util.find_spec = lambda name, package=None: None if name in MODULES else spec(name, package)


def unavailable() -> set[str]:
    """Modules of the package that cannot be imported, and the name that they lack."""
    lacking = set()
    package = importlib.import_module("tinymim")
    for module in pkgutil.walk_packages(package.__path__, "tinymim."):
        try:
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        except ImportError as error:
            lacking.add(f"{module.name.split('.')[1]} without {error.name}")
    return lacking


if __name__ == "__main__":
    hide()
    print("lacking:", *sorted(unavailable()), sep="\n- ", flush=True)
    main = importlib.import_module("tinymim.cli.main").main
    short = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.enable_progress_bar=false"]
    for words in (
        ["fit", "--config", "relation_digits", "--run_dir", "run", "--trainer.max_epochs=1", *short],
        ["report", "run"],
        ["resume", "run", "--trainer.max_epochs=2"],
        ["export", "run/checkpoints/last.ckpt", "student.safetensors"],
        ["cache", "list"],
        ["analyze", "digits_mae", "--data", "digits"],
    ):
        print(f"$ tinymim {' '.join(words)}", flush=True)
        print("exit code", main(words), flush=True)
