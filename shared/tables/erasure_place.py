"""Find an erasure list that a changed platform file would leave behind.

    lists in the folders of TOML file and ledger ─→ this platform's, but not in use: refused

By default the list is NAME.erased beside the ledger, or beside the TOML file without [privacy]. A
renamed platform, a moved ledger or a new [privacy] changes that place. A list that is left behind
would be read as "nobody was erased". Where the TOML file says `erased = …`, nothing is looked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from shared.errors import ConfigError
from shared.tables.erasure_list import list_in

LEFT_BEHIND = (".erased", ".erasures", ".erasing", ".derived")  # suffixes beside a list


def check_place(in_use: Path, *, name: str, file: Path, folders: Iterable[Path]) -> None:
    """Refuse a default place of the list if files of an erasure lie in another place.

    Args:
        in_use: the list that would be read.
        name: of the platform.
        file: its TOML file.
        folders: where other lists may lie.

    Raises:
        ConfigError: there are such files.
    """
    used = in_use.parent.resolve() / in_use.stem
    for folder in dict.fromkeys(Path(os.path.abspath(it)) for it in folders):
        for path in _found(folder):
            if folder.resolve() / path.stem == used:
                continue
            if _belongs(path, name=name, file=file):
                raise ConfigError(
                    f"{path} seems to be of this platform, but the list is read at {in_use}",
                    where=f"{file}: events",
                    todo=f'set erased = "{path.with_suffix(".erased")}" under [events], or another'
                    " path if that file is not of this platform",
                )


def _found(folder: Path) -> list[Path]:
    try:
        return sorted(it for it in folder.iterdir() if it.suffix in LEFT_BEHIND)
    except OSError:  # it is not there, or this user may not look into it
        return []


def _belongs(path: Path, *, name: str, file: Path) -> bool:
    """Whether a file is this platform's, by the TOML file that its list names, else by its name."""
    listed = list_in(path.with_suffix(".erased"))
    if listed is None or not listed.platform:
        return path.stem == name
    owner = Path(os.path.abspath(path.parent / listed.platform))
    beside_file = path.parent == Path(os.path.abspath(file.parent))
    return owner in (file.resolve(), Path(os.path.abspath(file))) or (
        beside_file and not owner.exists()  # the TOML file itself was renamed
    )
