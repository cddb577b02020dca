"""A platform's configuration as the TOML text that `load_platform` reads back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict

from shared.tables.config import EventTable, ItemTable, PlatformConfig
from shared.tables.dialect import NULL_WORDS
from shared.tables.draw import WHOLE
from shared.tables.participation import written
from shared.tables.policy import Policy


def dump_platform(config: PlatformConfig) -> str:
    """TOML text that `load_platform` reads back as an equal value."""
    events, items = config.events, config.items
    sections: dict[str, dict[str, object]] = {
        "platform": {"name": config.name, "weight": config.weight},
        "events": {
            "path": events.path,
            "format": events.format,
            "columns": events.columns,
            "min_length": events.min_length,
            "limit": events.limit,
            "part": None if events.part == WHOLE else events.part,
            "draw": events.draw or None,
            **_written(events),
        },
        "items": {
            "path": items.path,
            "format": items.format,
            "columns": items.columns,
            "without_text": items.without_text,
            "part": None if items.part == WHOLE else items.part,
            **_written(items),
        },
        "backbone": dict(path=config.backbone, encoder=config.encoder, cache=config.cache),
        "privacy": _privacy(config.policy),
        "sums": _sums(config.policy),
        "participation": written(config.participation),
        "performance": asdict(config.speed),
        "evaluation": {
            "share_metrics": config.share_metrics,
            "noise_multiplier": config.policy.metrics_noise if config.policy else None,
        },
    }
    blocks = []
    for name, section in sections.items():
        lines = [f"{_key(k)} = {_toml(v)}" for k, v in section.items() if v is not None]
        if lines:
            blocks.append("\n".join([f"[{name}]", *lines, ""]))
    return "\n".join(blocks)


def _written(table: EventTable | ItemTable) -> dict[str, object]:
    """How a table is written; what is detected or a default is left out."""
    dialect = asdict(table.dialect)
    if table.dialect.null_words == NULL_WORDS:
        del dialect["null_words"]
    return {**dialect, "explode": table.explode, "normalise": table.normalise or None}


def _privacy(policy: Policy | None) -> dict[str, object]:
    if policy is None:
        return {}
    numbers: dict[str, object] = {"unprotected": True}
    if policy.plan is not None:
        numbers = {name: it for name, it in policy.plan.public().items() if name != "unit"}
    kept = ("dataset", "ledger", "head", "key", "answer_seconds")
    return {**numbers, **{name: getattr(policy, name) for name in kept}}


def _sums(policy: Policy | None) -> dict[str, object]:
    if policy is None or policy.pairs is None:
        return {}
    return {"pairs": policy.pairs, "noise_multiplier": policy.sums_noise}


def _toml(value: object) -> str:
    """A value in TOML's notation."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case Mapping():
            return "{ " + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + " }"
        case tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case _:
            # JSON's escapes are TOML's, less the one control character that JSON lets stand.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)
