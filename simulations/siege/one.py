"""One row in a process of its own: one.py NAME FOLDER FILE; what was found is written to FILE."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from simulations.siege.every import row_of
from simulations.siege.rows import Finding


def main() -> None:
    """Run the row; whatever it raises is a row that failed."""
    name, folder, file = sys.argv[1:]
    try:
        finding = row_of(name).run(Path(folder))
    except Exception as fault:
        line = " ".join(str(fault).split())[:300]
        finding = Finding(f"the attack could not be run: {type(fault).__name__}: {line}", False)
    Path(file).write_text(json.dumps(asdict(finding)), encoding="utf-8")


if __name__ == "__main__":
    main()
