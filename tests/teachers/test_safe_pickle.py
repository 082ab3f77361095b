"""Objects that authors leave beside their weights are stood in for, and what would run code is refused."""

import argparse
import collections
import os
import pathlib
import sys
import types

import numpy
import pytest
import torch

from tinymim.errors import TinymimError
from tinymim.teachers import safe_pickle, weights

STATE = {"blocks.0.norm1.weight": torch.arange(3.0)}


@pytest.fixture
def CfgNode(monkeypatch):  # noqa: N802
    """What SimMIM's files hold: a dict with fields, of a package that need not be installed."""
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):
        def __init__(self, content):
            super().__init__(content)
            self.__dict__["__immutable__"] = True

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return CfgNode


def test_load__metadata_of_published_files_is_stood_in_for(tmp_path, CfgNode, monkeypatch):
    args = argparse.Namespace(lr=1e-3, device=torch.device("cpu"), output_dir=pathlib.Path("x"), betas=(0.9, 0.95))
    config = CfgNode({"MODEL": CfgNode({"TYPE": "vit", "DEPTHS": [2, 2]}), "AMP_OPT_LEVEL": "O1"})
    beside = {"args": args, "config": config, "max_accuracy": numpy.float64(83.8), "history": numpy.arange(3)}
    for form in (True, False):
        torch.save({"model": STATE, **beside}, tmp_path / "x.pth", _use_new_zipfile_serialization=form)
        with monkeypatch.context() as absent:
            absent.delitem(sys.modules, "yacs.config")
            loaded = safe_pickle.load(tmp_path / "x.pth")
        assert loaded["model"].keys() == STATE.keys()
        assert torch.equal(loaded["model"]["blocks.0.norm1.weight"], torch.arange(3.0))
        assert {type(loaded[key]) for key in beside} == {collections.OrderedDict, safe_pickle.Called}
        assert loaded["config"]["MODEL"]["TYPE"] == "vit"
        assert torch.equal(weights.read(tmp_path / "x.pth").state["blocks.0.norm1.weight"], torch.arange(3.0))


class Runs:
    """Unpickled, it calls ``function`` on ``arguments``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Hostile:
    """A class whose state sets it off."""

    def __setstate__(self, state):
        pathlib.Path(state["mark"]).mkdir()


def hostile(mark):
    thing = Hostile()
    thing.mark = mark
    return thing


def marked(path):
    """Something to run that leaves a mark."""
    return f"__import__('os').mkdir({str(path)!r})"


MALICIOUS = {
    "os.system": lambda mark: {"model": STATE, "epoch": Runs(os.system, f"mkdir {mark}")},
    "eval": lambda mark: {"model": STATE, "epoch": Runs(eval, marked(mark))},
    "exec in the state dict": lambda mark: {"model": {**STATE, "pos_embed": Runs(exec, marked(mark))}},
    "in args": lambda mark: {"model": STATE, "args": argparse.Namespace(lr=hostile(str(mark)))},
    "in a key": lambda mark: {"model": {Runs(eval, marked(mark)): 1}},
    "getattr": lambda mark: {"model": STATE, "args": Runs(getattr, Runs(__import__, "os"), "mkdir")},
    "alone": lambda mark: Runs(eval, marked(mark)),
}


@pytest.mark.parametrize("name", MALICIOUS)
@pytest.mark.parametrize("zipped", [True, False])
def test_load__what_would_run_code_is_refused_and_not_run(tmp_path, name, zipped):
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    torch.save(MALICIOUS[name](mark), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        TinymimError, match=r"evil\.pth is no plain state dict: .* run code \(\S+\), which is never done"
    ):
        weights.read(path)
    assert not mark.exists()


def test_load__a_stand_in_called_with_anything_does_nothing(tmp_path, monkeypatch):
    """A name that is allowed gives its stand-in, not the class of that name, whatever a file does with it."""
    mark = tmp_path / "mark"

    class Namespace:
        def __init__(self, *arguments):
            mark.mkdir()

        def __reduce__(self):
            return argparse.Namespace, (str(mark),)

    torch.save({"model": STATE, "args": Namespace.__new__(Namespace)}, tmp_path / "x.pth")
    monkeypatch.setattr(argparse, "Namespace", Namespace)
    assert weights.read(tmp_path / "x.pth").state.keys() == STATE.keys()
    assert not mark.exists()


def test_load__stand_ins_are_gone_afterwards(tmp_path):
    torch.save({"model": STATE, "args": argparse.Namespace(lr=1)}, tmp_path / "x.pth")
    before = torch.serialization.get_safe_globals()
    safe_pickle.load(tmp_path / "x.pth")
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_load__names_of_other_versions(tmp_path):
    """numpy 2 and Python 3.13 moved what others' files name where it was, and the other way round."""
    path = tmp_path / "x.pth"
    content = {"model": STATE, "accuracy": numpy.float64(1), "history": numpy.arange(3), "folder": pathlib.Path("x")}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    names = {b"numpy._core.": b"numpy.core.", b"cpathlib\nPosixPath": b"cpathlib._local\nPosixPath"}
    for ours, theirs in names.items():
        assert ours in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(ours, theirs))
        assert weights.read(path).state.keys() == STATE.keys()


def test_load__a_program_is_named_without_pytorchs_advice(tmp_path, recwarn):
    path = tmp_path / "program.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    recwarn.clear()
    with pytest.raises(TinymimError) as refused:
        safe_pickle.load(path)
    assert "weights_only" not in str(refused.value)
    assert not recwarn.list


def test_load__a_changed_bit_is_found_where_no_checksum_is_noted(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"a": torch.arange(5000.0), "b": torch.ones(3)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:])
    with pytest.raises(TinymimError, match=r"x\.pth is damaged: .* does not have its checksum; take another copy"):
        safe_pickle.load(path, mapped=True)
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        torch.save({"a": torch.arange(5000.0)}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    assert len(safe_pickle.load(path)["a"]) == 5000
