"""Devices as commands name them: usable, or refused in one line."""

from __future__ import annotations

import pytest
import torch

from tinymim.device import usable_device
from tinymim.errors import TinymimError


def test_usable__the_cpu_and_what_is_best() -> None:
    assert usable_device("cpu") == torch.device("cpu")
    assert usable_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


REFUSED = {
    "cpu:5": "device: cpu:5: there is one cpu",
    "cuda:99": "device: cuda:99",
    **{
        name: f"device: {name!r} is no device; cpu, cuda, cuda:1"
        for name in ("", "0", "gpu", "CPU", "cuda:-1", "cuda:x")
    },
    **{name: f"device: {name} cannot be used here (" for name in ("meta", "hpu", "privateuseone", "vulkan", "mkldnn")},
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused__in_one_short_line(name: str, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(TinymimError) as caught:
        usable_device(name)
    assert REFUSED[name] in str(caught.value)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)
    assert not recwarn


def test_refused__a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TinymimError, match="device: cuda:9: there are 2 here, from cuda:0 on"):
        usable_device("cuda:9")
