"""Python runs this first in every process that has this folder on its path: kill a chain at a chosen file operation.

TORTURE is ``WHO MOMENT``: in the command WHO (``chain`` or ``fit``), the MOMENT-th rename, link, removal or flush
is the last; an odd one is left undone. The chain and its stage die by SIGKILL; of ``fit alone MOMENT`` the stage alone.
"""

import os
import signal
import sys
from pathlib import Path

_who, _, _rest = os.environ.get("TORTURE", "").partition(" ")
_moment = int(_rest.split()[-1]) if _rest else 0
_alone = "alone" in _rest
_count = 0


def _die() -> None:
    others = [] if _alone else [int(os.environ["TORTURE_CHAIN"])]
    if _who == "chain":
        others = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    for pid in others:
        os.kill(pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def _counted(function):
    def call(*arguments, **options):
        global _count
        ours = sys.argv[1:2] == [_who]
        _count += ours
        if ours and _count == _moment and _moment % 2:
            _die()
        result = function(*arguments, **options)
        if ours and _count == _moment:
            _die()
        return result

    return call


if _moment:
    for _name in ("replace", "fsync", "symlink", "unlink"):
        setattr(os, _name, _counted(getattr(os, _name)))
