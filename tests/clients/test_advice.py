"""What a platform is told to serve with."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.commands.compare import advice
from clients.compare import ON, OWN, SUMS, Comparison, Line
from shared.adapter import Adapter
from shared.metrics import Paired

ADAPTER = Adapter({}, "backbone", "task")


def line(name: str, ndcg: float, difference: float | None = None, p: float = 1.0) -> Line:
    gain = difference and Paired(difference, None, (difference / 2, 2 * difference), p)
    return Line(name, "epoch 2", 0.5, 0.5, ndcg, gain or None)


@pytest.mark.parametrize(
    ("best", "listens", "out", "told"),
    [
        (OWN, False, None, ["recommend -p s.toml --shopper SHOPPER", "Nothing of others did"]),
        (
            SUMS,
            True,
            None,
            [
                "-p s.toml --sums s.sums",
                "+10.0 % (+5.0 to +20.0) over own memory, gain",
                ", gain (p 0.01 among 3",
            ],
        ),
        (
            "a b.safetensors",
            False,
            None,
            ["-p s.toml --adapter 'a b.safetensors'", "−10.0 % (−5.0 to −20.0) over", "no clear"],
        ),
        (ON, True, None, ["trained on here, at home; --out FILE keeps it", ", loss (p 0.02"]),
        (ON, True, "h.st", ["--sums s.sums --adapter h.st --unsigned", ", loss (p 0.02"]),
        (OWN, False, "h.st", ["-p s.toml", "so h.st was not written", "Nothing of others"]),
    ],
)
def test_advice_names_what_to_type_and_what_it_is_worth(
    best: str, listens: bool, out: str | None, told: list[str]
) -> None:
    known = (
        line(OWN, 0.1),
        line(SUMS, 0.11, 0.01, p=0.01),
        line("a b.safetensors", 0.09, -0.01),
        line(ON, 0.09, -0.01, p=0.02),
    )
    found = Comparison(9, known, OWN, best, listens, ADAPTER)
    path = Path(out) if out else None
    how = ["--sums", "s.sums"] if listens else []
    text = "\n".join(advice(found, Path("s.toml"), how=how, out=path))
    for part in told:
        assert part in text


def test_what_was_taken_unsigned_is_advised_so() -> None:
    known = (line(OWN, 0.1), line("a.st", 0.11, 0.01, p=0.01))
    found = Comparison(9, known, OWN, "a.st", False, ADAPTER)
    assert "--adapter a.st --unsigned" in advice(found, Path("s.toml"), unsigned=True)[0]
    assert advice(found, Path("s.toml"))[0].endswith("--adapter a.st --shopper SHOPPER")


def test_one_comparison_is_one_and_of_none_it_is_told_how_to_make_one() -> None:
    known = (line(OWN, 0.1), line("a.st", 0.11, 0.01, p=0.01))
    assert (
        "among 1 comparison)"
        in advice(Comparison(9, known, OWN, "a.st", False, ADAPTER), Path("s.toml"))[1]
    )
    none = Comparison(9, known[:1], OWN, OWN, False, ADAPTER)
    assert advice(none, Path("s.toml"))[1].startswith("Nothing of others was given")
