"""Task: which items one shopper takes together, summed over the shoppers of all platforms.

    History ─→ the pairs and items it holds ─Σ over shoppers→ Update ─Σ over platforms→ Adapter

Here the Adapter holds sums over a public list of pairs, which stands in the Backbone's place, and a
federation is one round. An Update is not averaged but added, each times its public weight, so that
a platform can take its own out of the whole again.

    P  pairs      M  items      F  features
"""

from __future__ import annotations

import numpy as np

from shared.adapter import Adapter
from shared.pairs import Pairs

NAME = "co-visitation"

TOGETHER = "together"  # [P] shoppers with both items
ITEMS = "items"  # [M] shoppers with the item; of bounded sums those whose last one it is
FOLLOWING = "following"  # [P, 2] left then right, right then left; where Pairs are directed
WEIGHING = "weighing"  # [F] how loudly signals speak, each platform's own; where Pairs are directed
VARIANCE = "laplace"  # [1] variance of the noise in each number of the two above
WEIGHT = "weight"  # [1] public weights that were added
FEATURES = 69  # F, what clients/weighing.py has numbers for, the prior's own first


def untrained(pairs: Pairs) -> Adapter:
    """The state every federation of this task starts from: nothing is known."""
    shapes: dict[str, tuple[int, ...]] = {
        TOGETHER: (len(pairs),),
        ITEMS: (len(pairs.items),),
        VARIANCE: (1,),
        WEIGHT: (1,),
    }
    if pairs.directed:
        shapes[FOLLOWING] = (len(pairs), 2)
        shapes[WEIGHING] = (FEATURES,)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return Adapter(tensors, backbone=pairs.digest, task=NAME)
