"""A platform's items: readable titles out of a style, a product type and a finish.

The brand is a column of its own and no part of the title. Platforms carry different brands, so a
brand's name says nothing that another platform could learn from; it would only blur the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from shared.errors import ConfigError
from simulations.worlds.journeys import Wares
from simulations.worlds.vocabulary import Vocabulary

# How platforms word their titles. {style} is one of the adjectives of the item's style.
TEMPLATES = (
    "{style} {type}, {finish}",
    "{type} - {style}, {finish}",
    "{type} in {finish}: {style}",
    "{style} {type} in {finish}",
    "{finish} {type}, {style} style",
)
BRANDS = 4  # brands a platform carries in each department
PRICE_SPREAD = 0.4  # standard deviation of the logarithm of the price within a department


def draw_items(
    platform: str,
    items: int,
    departments: Mapping[str, float],
    *,
    template: int,
    popularity: float,
    words: Vocabulary,
    rng: np.random.Generator,
) -> tuple[pl.DataFrame, Wares]:
    """The catalogue of one platform.

    Args:
        platform: its name, which starts every item identifier.
        items: N; at least one for each product type sold.
        departments: share of the catalogue of each department.
        template: place in TEMPLATES.
        popularity: exponent of Zipf's law; popularity is dealt to items at random.
        words: the vocabulary.
        rng: the platform's stream.

    Returns:
        A table [N] of item, title (unique), category, brand and price; and what the law needs.

    Raises:
        ConfigError: there are not enough words for so many different titles.
    """
    names = list(words.departments)
    weights = np.array([departments.get(name, 0.0) for name in names])
    sold = np.flatnonzero(weights[words.department_of] > 0)  # needs
    share = weights[words.department_of[sold]]
    # Every product type has an item; the rest fall where the platform's weight lies.
    more = rng.choice(sold, size=items - len(sold), p=share / share.sum())
    need = rng.permutation(np.concatenate([sold, more]))
    styles = list(words.styles.values())
    style = rng.integers(len(styles), size=items)
    brands = {name: _brands(words, rng) for name in names if name in departments}

    # Titles not yet given, for each need and style, in random order.
    left: dict[tuple[int, int], list[tuple[str, str]]] = {}
    rows: list[tuple[str, str, str, str, float]] = []
    for place, (n, s) in enumerate(zip(need.tolist(), style.tolist(), strict=True)):
        category, kind = words.needs[n]
        department = words.departments[category]
        if (n, s) not in left:
            pairs = [
                (adjective, finish) for adjective in styles[s] for finish in department.finishes
            ]
            left[n, s] = [pairs[k] for k in rng.permutation(len(pairs))]
        if not left[n, s]:
            raise ConfigError(
                f"{items} items are more than there are different titles for {kind!r}",
                where=f"platform {platform!r} of the world",
                todo="ask for fewer items or more departments",
            )
        adjective, finish = left[n, s].pop()
        title = TEMPLATES[template].format(style=adjective, type=kind, finish=finish)
        brand = str(rng.choice(brands[category]))
        price = max(1, round(department.price * rng.lognormal(0.0, PRICE_SPREAD))) - 0.01
        rows.append(
            (f"{platform}-{place:05d}", title[0].upper() + title[1:], category, brand, price)
        )
    table = pl.DataFrame(rows, schema=["item", "title", "category", "brand", "price"], orient="row")
    rank = rng.permutation(items) + 1.0
    return table, Wares(need, style, (rank**-popularity).astype(np.float32))


def _brands(words: Vocabulary, rng: np.random.Generator) -> list[str]:
    """Names such as "Harrow & Finch"."""
    first, second = words.brands
    pairs = rng.choice(len(first) * len(second), size=BRANDS, replace=False)
    return [f"{first[pair // len(second)]} & {second[pair % len(second)]}" for pair in pairs]
