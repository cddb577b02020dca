"""The privacy report: what a platform's Ledger and file say, for a data-protection officer, signed.

    file, Ledger, audit ─facts→ dict ─write→ privacy-report.json, privacy-report.html
                                              └─verify→ the same document, or one line

No row, no identifier and no path is read for it: the figures are the Ledger's and the Plan's. The
signature is Ed25519's over the facts as JSON without spaces, keys sorted, ASCII; OpenSSL can check
it too. A signature tells who wrote a report: compare its fingerprint with one had from elsewhere.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import model_validator

from clients.ledger import Balance, Entry
from clients.report_page import UNSTATED, render, words
from clients.report_template import BLANK
from shared.accounting import epsilon
from shared.backbone import load_backbone
from shared.config import Section, parse
from shared.errors import ConfigError, LedgerError
from shared.files import made_folder, replacing, unwritable
from shared.signing import canonical, digest
from shared.strict_parsing import json_value
from shared.tables.config import PlatformConfig

JSON, HTML = "privacy-report.json", "privacy-report.html"
PLATFORMS = (1, 2, 3, 5)  # on how many a shopper may be
NO_ERASURES: Mapping[str, Any] = {"records": 0, "shoppers": 0, "last": None, "not_complete": []}
EXACT = 100  # releases whose ε is told one by one; a longer list is told in so many stretches
_PEM = serialization.Encoding.PEM
_UNSOUND = (InvalidSignature, UnsupportedAlgorithm)
LARGEST = 64 * 2**20  # bytes of a report; each release takes some 300


class Statement(Section):
    """What only people can state; a field left out stays to be stated by the controller."""

    controller: str = ""  # who decides on purpose and means
    officer: str = ""  # who answers for personal information protection
    lawfulness: str = ""  # legal basis; why the processing is legitimate and necessary
    sensitive: str = ""  # whether Histories here tell sensitive things, or are of children
    automated_decisions: str = ""
    recipients: str = ""  # who runs the coordinator, and on what contract
    cross_border: str = ""
    other_impact: str = ""
    rights_and_risks: str = ""
    measures: str = ""  # whether they are lawful, effective and fit the risk
    access_control: str = ""  # who may read the rows, the Ledger and the key
    row_retention: str = ""  # how long the platform keeps its rows
    records: str = ""  # where this report is kept, for three years at least
    erasure_requests: str = ""  # how a shopper asks for erasure, who checks it, by when
    erasure_elsewhere: str = ""  # backups, other copies, processors and recipients
    assessment_needed: str = ""  # whether an impact assessment is needed, and why
    officer_advice: str = ""  # of the data protection officer
    shoppers_views: str = ""  # of shoppers or who speaks for them


class _Audit(Section):
    claim: dict[str, float]
    checks: list[dict[str, bool | str]]
    lower_bound: dict[str, float]
    limits: list[str]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        known = {"epsilon", "delta"} <= self.claim.keys() and "epsilon" in self.lower_bound
        if not (known and all(isinstance(check.get("passed"), bool) for check in self.checks)):
            raise ValueError("attach what atoll-sim audit --json printed")
        return self


def facts(
    config: PlatformConfig,
    *,
    entries: Sequence[Entry],
    balance: Balance | None,
    audit: Mapping[str, Any] | None = None,
    refused: Sequence[str] = (),
    statement: Mapping[str, str] | None = None,
    erasures: Mapping[str, Any] | None = None,
    now: datetime,
) -> dict[str, Any]:
    """All that the report says, fit for JSON. ε are upper bounds; times are UTC.

    Args:
        config: the platform's.
        entries: of its Ledger, all of them; of other data sets only the number is told.
        balance: of its data set; None for an unprotected platform.
        audit: what `atoll-sim audit` printed as JSON, if it was run.
        refused: a line for each request that was refused before it reached the Ledger.
        statement: what the controller states, see Statement.
        erasures: what `clients.erasure_record.erasures` found; None where there were none.
        now: the time the report is made, with a time zone.

    Raises:
        ConfigError: there is no [privacy] section, or audit or statement is not one.
        LedgerError: entries and balance are of two different moments.
        BackboneError: the backbone's file is there and damaged.
    """
    policy = config.policy
    if policy is None:
        raise _no_section(config)
    stated = parse(statement or {}, Statement, "the statement")
    plan = policy.plan
    own = [entry for entry in entries if entry.dataset == policy.dataset]
    released = [entry for entry in own if entry.kind == "release"]
    if (plan is None) != (balance is None) or (balance and balance.releases != len(released)):
        todo = "make the report again"
        raise LedgerError("entries and balance do not agree", where=policy.ledger, todo=todo)
    # Of the two kinds "simulated" is the greater word, and one such entry is enough.
    noise = "none" if plan is None else max((entry.noise for entry in own), default="none yet")
    accounting = f"privacy loss distributions, dp-accounting {version('dp-accounting')}"
    charges = [entry.charge for entry in released]
    abandoned = [_request(entry) for entry in own if entry.kind == "abandon"]
    backbone = config.backbone if config.backbone and config.backbone.is_file() else None
    elsewhere = [e.dataset for e in entries if e.kind == "release" and e.dataset != policy.dataset]
    found = {
        "format": "atoll privacy report 1",
        "atoll": version("atoll"),
        "made": _utc(now),
        "platform": config.name,
        "dataset": policy.dataset,
        "noise": noise,
        "columns": {"events": sorted(config.events.columns), "items": sorted(config.items.columns)},
        "answer_seconds": policy.answer_seconds,
        "share_metrics": config.share_metrics,
        "plan": None if plan is None else plan.public(),
        "budget": balance
        and {n: _told(v) if isinstance(v, float) else v for n, v in asdict(balance).items()},
        "releases": releases(released, None if plan is None else plan.delta),
        "other_data_sets": {name: elsewhere.count(name) for name in sorted(set(elsewhere))},
        "shopper_on_several_platforms": [
            {
                "platforms": k,
                "epsilon": _told(epsilon(charges * k, plan.delta)),
                "delta": plan.delta,
                "sum_epsilon": _told(k * balance.spent),
                "sum_delta": k * balance.delta,
                "budgets_epsilon": k * balance.epsilon,
                "budgets_delta": k * balance.delta,
            }
            for k in PLATFORMS
            if plan and balance
        ],
        "audit": None if audit is None else parse(audit, _Audit, "the audit").model_dump(),
        "refused_requests": {"abandoned": abandoned, "told": list(refused)},
        "model_lineage": {
            "backbone": load_backbone(backbone).digest if backbone else "not at hand",
            "adapters": [
                {"run": e.asked.run, "round": e.asked.round, "adapter": e.asked.adapter}
                for e in released
            ],
        },
        "accounting": accounting if plan else "none",
        "erasures": dict(erasures or NO_ERASURES),
        "statement": {name: _stated(name, text) for name, text in stated.model_dump().items()},
    }
    return {**found, **words(found)}


def releases(released: Sequence[Entry], delta: float | None) -> list[dict[str, Any]]:
    """Each release with its charge, and ε of all up to it at δ; None where nothing is promised.

    Of more than EXACT releases ε is worked out once for so many stretches, and is told of all in a
    stretch as it stands at its end: never too low.
    """
    charges = [entry.charge for entry in released]
    after: list[float | str | None] = [None] * len(released)
    if delta is not None:
        stretch = math.ceil(len(charges) / EXACT) or 1
        for end in range(len(charges), 0, -stretch):
            so_far = _told(epsilon(charges[:end], delta))
            after[max(0, end - stretch) : end] = [so_far] * min(stretch, end)
    return [
        {
            **_request(entry),
            "mechanism": entry.charge.mechanism,
            "noise_multiplier": entry.charge.noise_multiplier,
            "sampling_rate": entry.charge.sampling_rate,
            "steps": entry.charge.steps,
            "epsilon_after": so_far,
        }
        for entry, so_far in zip(released, after, strict=True)
    ]


def write(config: PlatformConfig, folder: Path, *, told: Mapping[str, Any]) -> Path:
    """Write the facts signed as JSON, and as a page; gives the path of the JSON.

    Raises:
        ConfigError: the folder cannot be written to, or the key is damaged or readable by others.
    """
    if config.policy is None:
        raise _no_section(config)
    document = sign(told, signing_key(config.policy.key))
    made_folder(folder)
    with replacing(folder / HTML) as part:
        part.write_text(render(document), encoding="utf-8", errors="xmlcharrefreplace")
    with replacing(folder / JSON) as part:
        part.write_bytes(rendered(document))
    return folder / JSON


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The platform's key, PKCS8 in PEM; made, readable by its owner alone, when first needed.

    Raises:
        ConfigError: damaged, readable by others, or it cannot be made.
    """
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            plain = serialization.NoEncryption()
            new = Ed25519PrivateKey.generate()
            file.write(new.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, plain))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        pass
    except OSError as fault:
        raise unwritable(path, fault) from fault
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            key = serialization.load_pem_private_key(file.read(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        todo = "restore it, or move it away and have a new one made"
        raise ConfigError("no readable Ed25519 key", where=path, todo=todo) from None
    if mode & 0o077:
        todo = "chmod 600 it, and make a new one if anybody may have read it"
        raise ConfigError(f"a key that others may open (mode {mode:o})", where=path, todo=todo)
    return key


def sign(told: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """The facts with their digest, their signature, and what it takes to check both."""
    return _document(told, key.sign(canonical(told)), key.public_key())


def verify(path: Path) -> dict[str, Any]:
    """The document, if it is as it was signed, to the byte; it holds facts, digest, fingerprint.

    Whose key it is the fingerprint tells, to those who know the platform's.

    Raises:
        ConfigError: missing, no report, or edited.
    """
    try:
        raw = path.read_bytes()
        found = json_value(raw, largest=LARGEST)
        signature = base64.b64decode(found["signature"], validate=True)
        key = serialization.load_pem_public_key(found["public_key"].encode())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError
        key.verify(signature, canonical(found["facts"]))
        document = _document(found["facts"], signature, key)
        if rendered(document) != raw:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, *_UNSOUND):
        todo = f"ask the platform for its {JSON} as it was written"
        raise ConfigError("no report as it was signed", where=path, todo=todo) from None
    return document


def _document(told: Mapping[str, Any], signature: bytes, key: Ed25519PublicKey) -> dict[str, Any]:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    der = key.public_bytes(serialization.Encoding.DER, kind)
    return {
        "facts": dict(told),
        "digest": digest(canonical(told)),
        "signature": base64.b64encode(signature).decode(),
        "public_key": key.public_bytes(_PEM, kind).decode(),
        "fingerprint": digest(der),
    }


def rendered(document: Mapping[str, Any]) -> bytes:
    """The file."""
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _stated(name: str, text: str) -> str:
    """What the controller states; a blank of the template is still to be stated.

    Raises:
        ConfigError: there is text beside a blank.
    """
    found = " ".join(text.split())
    if BLANK in found and found != BLANK:
        todo = "complete the text, or leave the blank alone"
        raise ConfigError(f"{name} still has a blank, {BLANK}", where="the statement", todo=todo)
    return UNSTATED if found in ("", BLANK) else found


def _request(entry: Entry) -> dict[str, Any]:
    return {
        "entry": entry.number,
        "purpose": entry.asked.purpose,
        "round": entry.asked.round,
        "run": entry.asked.run,
        "time": _utc(datetime.fromtimestamp(entry.time, UTC)),
    }


def _no_section(config: PlatformConfig) -> ConfigError:
    what = "has no [privacy] section, so it trains for nobody and has nothing to report"
    return ConfigError(what, where=config.name, todo="write one to take part")


def _told(value: float) -> float | str:
    """JSON has no infinity."""
    return value if math.isfinite(value) else "infinity"


def _utc(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
