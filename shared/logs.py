"""Log lines of a daemon: JSON on standard error, or plain text on a terminal.

    {"time": "2026-01-31T12:00:00.123+00:00", "level": "info", "logger": "atoll.server", …}

Extra fields of a record follow. Flower's own lines go the same way, from warnings up.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from shared.printable import tolerate

PLAIN = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
FLOWER = "flwr"


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; what does not fit into it becomes text."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": when,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in PLAIN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def to_stderr(*, as_json: bool | None = None) -> None:
    """Send the log lines of this process to standard error, and nowhere else.

    Args:
        as_json: JSON or text; None is text on a terminal and JSON elsewhere.
    """
    tolerate(sys.stderr)
    handler = logging.StreamHandler(sys.stderr)
    if as_json or (as_json is None and not sys.stderr.isatty()):
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    logging.getLogger("atoll").setLevel(logging.INFO)
    flower = logging.getLogger(FLOWER)
    for old in list(flower.handlers):
        flower.removeHandler(old)
    flower.setLevel(logging.WARNING)
    flower.propagate = True
