"""How loudly signals speak, as others found it who protect nobody, and how much of that to take.

what each platform found alone ─Σ by public weight→ Taught ─less what one sent→ the others' mean
own fit, the others' mean ─mixed→ Weighing      by halves that neither was fitted to

F  features, as of clients.weighing
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from clients.weighing import FEATURES, Field, Weighing, best_way, fitted, reached, weighing_of
from shared.files import made_folder, replacing
from shared.tables.policy import Policy

OF_OWN = (1.0, 0.75, 0.5, 0.25, 0.0)  # shares of the own fit: of equals the larger


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
    path = _place(policy)
    made_folder(path.parent)
    with replacing(path, private=True) as part:
        save_file({"weighing": flat}, part, metadata={"run": run})


def sent(policy: Policy, run: str) -> NDArray[np.float64] | None:
    """[F] what was sent in this run; None if nobody knows any more."""
    try:
        with safe_open(_place(policy), framework="np") as file:
            if (file.metadata() or {}).get("run") != run:
                return None
            flat = np.asarray(file.get_tensor("weighing"), np.float64)
    except (OSError, SafetensorError):
        return None
    return flat if flat.shape == (FEATURES,) else None


def _place(policy: Policy) -> Path:
    return policy.ledger.with_name(f"{policy.ledger.name}.weighing")


def mixed(field: Field, others: Weighing) -> tuple[Weighing, float]:
    """The Weighing for these shoppers, and its mean NDCG@10 where it was not fitted.

    What halves found by themselves is mixed with what the others found, and judged by the half that
    it has not seen; how much of either is best there is taken of the fit to all.

    Args:
        field: of this platform's shoppers.
        others: fitted to none of them.
    """
    halves, way = best_way(field)
    gains = [
        float(reached([between(it, others, share) for it in halves], field).sum())
        for share in OF_OWN
    ]
    place = int(np.argmax(gains))
    found = between(fitted(field, way), others, OF_OWN[place])
    return found, gains[place] / max(field.asked, 1)


def between(own: Weighing, others: Weighing, share: float) -> Weighing:
    """So large a share of the one, and the rest of the other."""
    return weighing_of(share * own.flat + (1 - share) * others.flat)
