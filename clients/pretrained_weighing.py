"""How loudly signals speak, learnt on a public table: what a platform's own fit is mixed with.

The mean of twenty fits to validation parts of Amazon Toys (McAuley et al., 2015, 5-core), a quarter
of its shoppers each, as `atoll-sim bench weighing` prints it, in units of a cosine of the default
text encoder. Fifty-six numbers over ages, counts and words, and of no item; NaN is what that table
cannot tell: of the others' sums, and of what was taken lately, since it has no times. Why one
table, and what it is worth on others: docs/decisions/0027-how-to-weigh-is-pretrained.md.
"""

from __future__ import annotations

import numpy as np

from clients.weighing import Weighing

UNKNOWN = [np.nan] * 5

PRETRAINED = Weighing(
    loud=np.array(
        [
            [0.622, 0.459, 0.987, 0.102, 0.106],  # similar, the latest event first
            [3.900, 0.964, -0.147, 0.200, 0.469],  # next
            [-0.226, -0.054, -0.252, -0.131, -0.156],  # likewise
            [0.823, -0.198, 0.189, 0.211, -0.929],  # onward
            [0.069, -0.005, -0.073, -0.018, 0.024],  # twice
            UNKNOWN,  # shared
        ]
    ),
    met=np.array(
        [
            [0.012, 0.024, 0.016, 0.101, 0.057],
            [0.261, 0.222, 0.178, 0.063, 0.049],
            [0.150, 0.059, 0.060, 0.040, 0.046],
            [0.061, 0.069, 0.006, 0.007, 0.028],
            [0.043, 0.002, 0.011, 0.004, 0.043],
            UNKNOWN,
        ]
    ),
    words=np.array([0.644, 0.236, 0.217, 0.247, 0.075]),
    liked=np.array([0.062, np.nan, np.nan]),  # own popularity, lately, the others'
)
