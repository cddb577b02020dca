"""Write the seed corpus: `python -m tests.fuzz.make_corpus`. Files that are there stay as they are.

The fuzzer makes its seeds anew at each start. What is written here are seeds of this version, so
that later versions are still tried on them: keys and certificates differ from run to run.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.fuzz.run_fuzz import HERE, MODULES, slug, targets


def write(into: Path) -> int:
    """The seeds of each target, a folder a target; how many are new."""
    new = 0
    for target in (target for module in MODULES for target in targets(module)):
        folder = into / slug(target.name)
        folder.mkdir(parents=True, exist_ok=True)
        for place, seed in enumerate(target.seeds(), start=1):
            path = folder / f"{place:02}"
            if not path.exists():
                path.write_bytes(seed)
                new += 1
    return new


if __name__ == "__main__":
    sys.stdout.write(f"{write(HERE / 'corpus')} new seeds\n")
