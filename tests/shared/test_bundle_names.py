"""A bundle that is right but for one name is refused for that name."""

from __future__ import annotations

import pytest

from shared.bundle import LARGEST, MOST, PROJECT, files_of, pack
from shared.errors import BundleError

GOOD = {PROJECT: b"[project]\n", "shared/a.py": b"A = 1\n"}

NAMES = {
    "../x.py": "leads out of its folder",
    "shared/../../x.py": "leads out of its folder",
    "shared/..": "leads out of its folder",
    "/etc/x.py": "leads out of its folder",
    "shared/./b.py": "leads out of its folder",
    "shared//b.py": "leads out of its folder",
    "shared\\..\\x.py": "leads out of its folder",
    "shared/A.py": "comes twice",
    "shared/a.py/b.py": "comes twice",
    "shared/A.py/b.py": "comes twice",
    "shared/\x1b[2J.py": "is no plain name",
    "shared/\u0440\u0430ypal.py": "is no plain name",
    "c:/b.py": "is no plain name",
    "-rf.py": "is no plain name",
    f"shared/{'b' * 200}.py": "is no plain name",
    "shared/b.so": "is no text that can be read",
    "shared/b.pyc": "is no text that can be read",
    "b.pth": "is no text that can be read",
}


@pytest.mark.parametrize("name", NAMES)
def test_one_wrong_name_is_why_a_bundle_is_refused(name: str) -> None:
    assert set(files_of(pack(GOOD), where="offer")) > set(GOOD)
    with pytest.raises(BundleError, match=NAMES[name]):
        files_of(pack({**GOOD, name: b""}), where="offer")


def test_a_bundle_is_refused_for_its_size_before_it_is_opened() -> None:
    with pytest.raises(BundleError, match=r"has [0-9,]+ bytes"):
        files_of(pack({**GOOD, "shared/b.py": b"#" * LARGEST}), where="offer")
    many = {f"shared/{number}.py": b"" for number in range(MOST)}
    with pytest.raises(BundleError, match="has more than"):
        files_of(pack({**GOOD, **many}), where="offer")


def test_bytes_that_are_no_files_are_refused() -> None:
    content = pack(GOOD)
    for other in (b"#!/bin/sh\n" + content, content[:-2] + b"\x02\x00hi"):
        with pytest.raises(BundleError, match="is not packed as ours are"):
            files_of(other, where="offer")
