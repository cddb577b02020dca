"""RecBole in an interpreter of its own: what it is given, and the lines that it answers.

    Histories, Questions ─given→ folder ─answers→ one JSON object a line

Catalogue positions stand for items and positions of Histories for shoppers: no identifier is
written.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import ConfigError
from shared.events import Histories, Question
from shared.printable import printable

VERSION = "1.2.1"
SCRIPT = Path(__file__).with_name("sasrec_in_recbole.py")
INSTALL = (
    f"install recbole=={VERSION} in an environment of its own, as docs/log.md says, and name the"
    " interpreter there with --recbole"
)

# How RecBole is to read and split what `given` writes: the last event tests, the one before it
# validates, the rest trains.
READING: dict[str, Any] = {
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "TIME_FIELD": "timestamp",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {
        "split": {"LS": "valid_and_test"},
        "order": "TO",
        "group_by": "user",
        "mode": "full",
    },
    "show_progress": False,
}


def checked(interpreter: Path) -> dict[str, str]:
    """Versions of RecBole and torch there.

    Raises:
        ConfigError: it is no interpreter, or RecBole is missing there or of another version.
    """
    found = next(iter([*answers(interpreter)]), {})
    if "missing" in found or "recbole" not in found:
        why = found.get("missing", "it said nothing")
        raise ConfigError(f"cannot import RecBole: {why}", where=interpreter, todo=INSTALL)
    if found["recbole"] != VERSION:
        raise ConfigError(
            f"has RecBole {found['recbole']}, not {VERSION}", where=interpreter, todo=INSTALL
        )
    return found


def given(
    folder: Path,
    histories: Histories,
    questions: Mapping[str, Question],
    *,
    asked: Mapping[str, Any],
) -> None:
    """Write what `sasrec_in_recbole.py` reads.

    Args:
        folder: an empty one.
        histories: whole; RecBole splits them itself, and its split is checked against ours.
        questions: by part.
        asked: minutes, threads, number of items, settings of RecBole.
    """
    (folder / "atoll").mkdir()
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    order = np.arange(len(histories.items)) - histories.offsets[owner]
    rows = np.stack([owner, histories.items, order], axis=1)
    np.savetxt(
        folder / "atoll" / "atoll.inter",
        rows,
        fmt="%d",
        delimiter="\t",
        header="user_id:token\titem_id:token\ttimestamp:float",
        comments="",
    )
    place = {shopper: user for user, shopper in enumerate(histories.shoppers)}
    for part, question in questions.items():
        np.savez(
            folder / f"{part}.npz",
            users=np.array([place[it] for it in question.contexts.shoppers], np.int64),
            targets=question.targets.astype(np.int64),
            items=question.contexts.items.astype(np.int64),
            offsets=question.contexts.offsets,
        )
    fixed = {"data_path": str(folder), "checkpoint_dir": str(folder / "saved")}
    settings = {**READING, **asked["settings"], **fixed}
    (folder / "asked.json").write_text(
        json.dumps({**asked, "settings": settings}), encoding="utf-8"
    )


def answers(interpreter: Path, *words: str) -> Iterator[dict[str, Any]]:
    """Each line of `sasrec_in_recbole.py`, when it comes; its process ends with the iteration.

    Raises:
        ConfigError: the interpreter cannot be started, fails, or says what is no JSON.
    """
    # -I: no module of ours may stand in for one of theirs because it lies beside the script.
    call = [str(interpreter), "-I", str(SCRIPT), *words]
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                call, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
            )
        except OSError as fault:
            why = fault.strerror or str(fault)
            raise ConfigError(
                f"cannot be started: {why}", where=interpreter, todo=INSTALL
            ) from None
        with process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    yield _told(line, interpreter)
                process.wait()
            finally:
                process.kill()  # which does nothing where it has ended
        if process.returncode:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise ConfigError(
                f"ended with {process.returncode}: {printable(last)}",
                where=interpreter,
                todo=INSTALL,
            )


def _told(line: bytes, interpreter: Path) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError("answers no lines of JSON", where=interpreter, todo=INSTALL)
    return found
