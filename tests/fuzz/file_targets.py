"""Targets of files of tensors, and of what else is read back from a disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from safetensors.numpy import save

from clients import daemon, egress, report, settled, taught
from clients.approvals import Approvals
from clients.weighing import FEATURES
from shared import audit_commands, audit_log, pairs, text, update
from shared.adapter import load_adapter, save_adapter
from shared.audit_lines import Entry, parsed, sealed
from shared.backbone import BackboneSpec, load_backbone, new_backbone, save_backbone
from shared.checkpoints import Checkpoint, Checkpoints, read_checkpoints
from shared.signing import canonical, digest
from tests.fuzz.fuzz_target import Target
from tests.fuzz.material import (
    ADAPTER,
    NOW,
    document,
    document_of,
    public,
    scratch,
    signing_key,
    stored,
)


def _adapter(case: bytes) -> None:
    load_adapter(stored("adapter.safetensors", case), backbone="b" * 64, task="next-item")


def _adapter_seeds() -> Sequence[bytes]:
    path = scratch() / "seed.safetensors"
    save_adapter(ADAPTER, path)
    return [path.read_bytes()]


def _pairs(case: bytes) -> None:
    _ = pairs.load_pairs(stored("pairs.safetensors", case)).keys


def _pairs_seeds() -> Sequence[bytes]:
    path = scratch() / "seed.pairs"
    pairs.save_pairs(pairs.met(["a", "b", "c"], np.array([1, 2, 5])), path)
    return [path.read_bytes()]


def _backbone(case: bytes) -> None:
    load_backbone(stored("backbone.safetensors", case))


def _backbone_seeds() -> Sequence[bytes]:
    path = scratch() / "seed.backbone"
    spec = BackboneSpec("e" * 64, text_width=4, width=2, layers=1, heads=1, rank=1, out_rank=1)
    save_backbone(new_backbone(spec, seed=0), path)
    return [path.read_bytes()]


def _payload(case: bytes) -> None:
    update.from_bytes(case)


def _payload_seeds() -> Sequence[bytes]:
    delta = {name: np.zeros_like(it) for name, it in ADAPTER.tensors.items()}
    return [update.to_bytes(update.BoundedUpdate(delta, base="d" * 64, noise="secure"))]


def _weights(case: bytes) -> None:
    settled.kept(stored("weighing.safetensors", case), "k")
    stored("ledger.weighing", case)
    policy: Any = SimpleNamespace(ledger=scratch() / "ledger")
    taught.sent(policy, "r")


def _weights_seeds() -> Sequence[bytes]:
    flat = np.ones(FEATURES, np.float32)
    return [save({"weighing": flat}, {"key": "k", "joined": "True", "run": "r"})]


def _vectors(case: bytes) -> None:
    text._read_cache(stored("items.safetensors", case), 3)


def _vector_seeds() -> Sequence[bytes]:
    return [save({"raw": np.ones((3, 4), np.float32)})]


def _encoder(case: bytes) -> None:
    folder = scratch() / "encoder"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(case)
    (folder / "vocab.txt").write_bytes(b"[UNK]\n")
    (folder / "model.safetensors").write_bytes(b"")
    text.find_encoder(str(folder))


def _audit_log(case: bytes) -> None:
    """The log's bytes; its head file fits the last line where that is one."""
    path = stored("audit.jsonl", case)
    last = parsed(case.rstrip(b"\n").rpartition(b"\n")[2])
    head = {"count": last.number if last else 0, "head": last.hash if last else "0" * 64}
    stored("audit.jsonl.head", canonical(head) + b"\n")
    audit_log.verify(path)
    for entry in audit_log.entries(path):
        audit_commands.line(entry)


def _log_seeds() -> Sequence[bytes]:
    lines, before = b"", "a" * 64
    for number in (1, 2, 3):
        entry = sealed(Entry(number, NOW, "answered", {"kind": "train", "bytes": 5}, before))
        lines, before = lines + entry.line() + b"\n", entry.hash
    return [lines, lines[:-9]]


def _audit_entry(case: bytes) -> None:
    """A line of the log whose hash is right, whatever else it says."""
    fields = document_of(case)
    if not isinstance(fields, dict):
        return
    fields.pop("hash", None)
    try:
        line = canonical({**fields, "hash": digest(canonical(fields))})
    except (ValueError, RecursionError):
        return
    _audit_log(line + b"\n")


def _entry_seeds() -> Sequence[bytes]:
    told = {"number": 1, "time": NOW, "event": "asked", "before": "a" * 64, "round": 3}
    return [document({**told, "kind": "train", "ok": True, "share": 0.5})]


def _audit_head(case: bytes) -> None:
    path = stored("headed.jsonl", b"")
    stored("headed.jsonl.head", case)
    audit_log.verify(path)


def _checkpoints(case: bytes) -> None:
    path = stored("kiosk.jsonl", case)
    for one in read_checkpoints(path):
        one.check(public(), where=path)
    newer = Checkpoint(9, "f" * 64, NOW, "").signed(signing_key())
    Checkpoints(scratch()).keep("kiosk", newer, public())


def _checkpoint_seeds() -> Sequence[bytes]:
    made = [Checkpoint(it, f"{it}" * 64, NOW, "").signed(signing_key()) for it in (1, 2)]
    return [b"".join(canonical(it.as_dict()) + b"\n" for it in made), b'{"count": 1']


DIGEST = "d" * 64


def _approval(case: bytes) -> None:
    folder = scratch() / "approvals"
    folder.mkdir(exist_ok=True)
    (folder / f"{DIGEST}.json").write_bytes(case)
    (folder / f"{DIGEST}.fab").write_bytes(b"")
    approvals = Approvals(folder)
    approvals.standing(DIGEST)
    approvals.entries()


def _approval_seeds() -> Sequence[bytes]:
    return [document({"digest": DIGEST, "standing": "approved", "time": NOW, "by": "root"})]


def _refusals(case: bytes) -> None:
    policy: Any = SimpleNamespace(refused=stored("ledger.refused", case))
    for note in egress.notes(policy):
        " ".join(note.values())


def _refusal_seeds() -> Sequence[bytes]:
    told = {"time": "2026-01-02T03:04:05+00:00", "asked": "train", "refused": "policy", "why": "a"}
    return [document(told) + b"\n" + document(told)[:-9]]


def _privacy_report(case: bytes) -> None:
    """A report as it came; JSON that is none is taken for facts, and signed."""
    report.verify(stored("report.json", case))
    facts = document_of(case)
    if isinstance(facts, dict):
        _signed_report(facts)


def _signed_report(facts: dict[str, Any]) -> None:
    try:
        made = report.rendered(report.sign(facts, signing_key()))
    except (ValueError, RecursionError):
        return
    report.verify(stored("signed.json", made))


@cache
def _facts() -> dict[str, Any]:
    return {"format": "atoll privacy report 1", "platform": "kiosk", "plan": None, "releases": []}


def _report_seeds() -> Sequence[bytes]:
    return [report.rendered(report.sign(_facts(), signing_key())), document(_facts())]


def _audit_json(case: bytes) -> None:
    daemon.read_audit(stored("audit.json", case))


def _audit_json_seeds() -> Sequence[bytes]:
    check = {"name": "clip", "passed": True, "told": "holds"}
    audit = {"claim": {"epsilon": 3.0}, "lower_bound": 0.5, "limits": "none", "checks": [check]}
    return [document({"audits": [audit, {**audit, "claim": {"epsilon": 1.0}}]})]


def _metrics(case: bytes) -> None:
    from simulations.seeds import _read

    _read(stored("metrics.json", case), 1)


TARGETS = (
    Target("adapter file", _adapter, _adapter_seeds, "tensors"),
    Target("pairs file", _pairs, _pairs_seeds, "tensors"),
    Target("backbone file", _backbone, _backbone_seeds, "tensors", share=0.5),
    Target("payload of a ledger", _payload, _payload_seeds, "tensors"),
    Target("cached weights", _weights, _weights_seeds, "tensors", share=0.5),
    Target("cached item vectors", _vectors, _vector_seeds, "tensors", share=0.5),
    Target("text encoder's folder", _encoder, lambda: [b'{"hidden_size": 384}'], "json", share=0.2),
    Target("audit log", _audit_log, _log_seeds),
    Target("entry of an audit log", _audit_entry, _entry_seeds, "json"),
    Target(
        "head of an audit log",
        _audit_head,
        lambda: [canonical({"count": 0, "head": "0" * 64}) + b"\n"],
        "json",
    ),
    Target("checkpoints", _checkpoints, _checkpoint_seeds),
    Target("approvals file", _approval, _approval_seeds, "json", share=0.5),
    Target("refusals file", _refusals, _refusal_seeds, "json"),
    Target("privacy report", _privacy_report, _report_seeds, "json"),
    Target("audit results", _audit_json, _audit_json_seeds, "json"),
    Target(
        "metrics of a seed", _metrics, lambda: [b'{"seed": 1, "platforms": {}}'], "json", share=0.5
    ),
)
