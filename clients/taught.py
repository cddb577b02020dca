"""How loudly signals speak, as others found it who protect nobody.

what each platform found alone ─Σ by public weight→ Taught ─less what one sent→ the others' mean

F  features, as of clients.weighing
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from clients.weighing import FEATURES, Weighing, weighing_of
from shared.files import made_folder, replacing
from shared.tables.policy import Policy
from shared.tensor_files import check_header


@dataclass(frozen=True)
class Taught:
    """How loudly signals speak on all platforms, where they let that out.

    Attributes:
        total: [F] weighted sum of what each of them sent.
        sent: [F] times its public weight, what this platform has in it; 0 if it is not among them.
    """

    total: NDArray[np.float64]
    sent: NDArray[np.float64]

    @property
    def others(self) -> Weighing | None:
        """The others' weighted mean; None if there is nobody else."""
        left = self.total - self.sent
        # The first number is 1 on every platform, so what is left of it is the others' weight.
        return weighing_of(left) if left[0] > 1e-4 * max(self.sent[0], 1.0) else None


def keep_sent(policy: Policy, run: str, flat: NDArray[np.float32]) -> None:
    """Write down what is sent in this run, so that it can be taken out again when rows are others.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    path = sent_path(policy)
    made_folder(path.parent)
    with replacing(path, private=True) as part:
        save_file({"weighing": flat}, part, metadata={"run": run})


def sent(policy: Policy, run: str) -> NDArray[np.float64] | None:
    """[F] what was sent in this run; None if nobody knows any more."""
    try:
        check_header(sent_path(policy))
        with safe_open(sent_path(policy), framework="np") as file:
            if (file.metadata() or {}).get("run") != run:
                return None
            flat = np.asarray(file.get_tensor("weighing"), np.float64)
    # The last three: a header that is too long, types of number that numpy lacks.
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError):
        return None
    return flat if flat.shape == (FEATURES,) else None


def sent_path(policy: Policy) -> Path:
    """Where it is written down what a platform without a Plan sent of how it weighs."""
    return policy.ledger.with_name(f"{policy.ledger.name}.weighing")
