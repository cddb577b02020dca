from __future__ import annotations

import pytest
import torch

from shared.device import Use, pick_device


@pytest.mark.parametrize(
    ("use", "with_one", "without"),
    [("auto", "cuda", "cpu"), ("never", "cpu", "cpu"), ("always", "cuda", "cpu")],
)
def test_a_gpu_is_used_where_there_is_one_unless_it_never_is(
    use: Use, with_one: str, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(use).type == with_one
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device(use).type == without
