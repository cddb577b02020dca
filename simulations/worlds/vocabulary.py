"""The words of the embedded world, read from vocabulary.toml and numbered.

A need is one product type of one department ("tent" in camping); needs are numbered over all
departments in the file's order. `follows` is the law of journeys: the need that comes after each.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Department:
    """One department: product types in the order of the journey, and words that fit all of them.

    Attributes:
        price: typical price, in the world's one currency.
        types: product types; each leads to the next, the last to the first.
        finishes: colours, scents or shades.
    """

    price: float
    types: tuple[str, ...]
    finishes: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """All words, by department and style.

    Attributes:
        styles: the adjectives of each style.
        departments: by name, in the file's order.
        brands: first and second parts of brand names.
    """

    styles: dict[str, tuple[str, ...]]
    departments: dict[str, Department]
    brands: tuple[tuple[str, ...], tuple[str, ...]]

    @cached_property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """[needs] (department, product type) of each need."""
        return tuple((name, t) for name, dep in self.departments.items() for t in dep.types)

    @cached_property
    def department_of(self) -> NDArray[np.int64]:
        """[needs] department number of each need."""
        sizes = [len(department.types) for department in self.departments.values()]
        return np.repeat(np.arange(len(sizes)), sizes)

    @cached_property
    def follows(self) -> NDArray[np.int64]:
        """[needs] the need after each need; a permutation that stays within departments."""
        place = np.arange(len(self.needs))
        return np.concatenate(
            [np.roll(place[self.department_of == d], -1) for d in range(len(self.departments))]
        )


@cache
def load_vocabulary() -> Vocabulary:
    """The vocabulary that ships beside this module."""
    words = tomllib.loads(Path(__file__).with_name("vocabulary.toml").read_text(encoding="utf-8"))
    return Vocabulary(
        styles={name: tuple(adjectives) for name, adjectives in words["styles"].items()},
        departments={
            name: Department(float(d["price"]), tuple(d["types"]), tuple(d["finishes"]))
            for name, d in words["departments"].items()
        },
        brands=(tuple(words["brands"]["first"]), tuple(words["brands"]["second"])),
    )
