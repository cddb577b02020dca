from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord

from shared import asking, records, wire
from shared.adapter import Adapter
from shared.asking import Standing, Training
from shared.errors import ReplyError
from shared.records import Content
from shared.update import BoundedUpdate, Receipt
from shared.wire import Refusal

Value = str | int | list[int]

ADAPTER = Adapter({"w": np.ones(3, np.float32)}, backbone="b" * 64, task="next-item", version=4)
TRAINING = Training(2, 9, 1, 64, 0.003, "cosine", 7)
UPDATE = BoundedUpdate(ADAPTER.tensors, base=ADAPTER.digest, bound=2.0, noise="secure")
RECEIPT = Receipt(12, "0123456789abcdef" * 4)


def changed(content: Content, name: str, value: Value | None) -> Content:
    """The same body with one field of its request changed, or left out."""
    fields = content.config_records[records.REQUEST]
    del fields[name]
    if value is not None:
        fields[name] = value
    return content


@pytest.mark.parametrize("receipt", [None, RECEIPT, Receipt(0, "0" * 64)])
def test_a_receipt_goes_with_an_update_or_none_does(receipt: Receipt | None) -> None:
    reply = wire.update_reply(UPDATE, receipt)
    assert wire.read_receipt(reply) == receipt
    assert wire.read_update(reply).base == UPDATE.base


HEAD = RECEIPT.head
NO_RECEIPT: list[Value] = [
    "",
    "12",
    HEAD,
    f"12{HEAD}",
    f"12  {HEAD}",
    f"-1 {HEAD}",
    f"1.5 {HEAD}",
    f"१ {HEAD}",  # a digit, but none of ours
    f"{10**12} {HEAD}",
    f"12 {HEAD[1:]}",
    f"12 {HEAD}0",
    f"12 {HEAD.upper()}",
    f"12 {HEAD}\n",
    "12 " + "g" * 64,
    12,
    [1, 2],
]


@pytest.mark.parametrize("value", NO_RECEIPT)
def test_a_receipt_that_is_malformed_is_refused_in_either_direction(value: Value) -> None:
    with pytest.raises(ReplyError, match="the receipt is none"):
        wire.read_receipt(changed(wire.update_reply(UPDATE, RECEIPT), "receipt", value))
    content = asking.request(ADAPTER)
    content[asking.RECEIPTS] = ConfigRecord({"reef": value})
    with pytest.raises(ReplyError, match="the receipt of 'reef' is none"):
        asking.read_standing(content)


@pytest.mark.parametrize("training", [TRAINING, None])
@pytest.mark.parametrize("receipts", [{}, {"reef": RECEIPT, "kiosk": Receipt(0, "f" * 64)}])
def test_what_the_server_remembers_arrives_as_it_left(
    receipts: dict[str, Receipt], training: Training | None
) -> None:
    content = asking.request(ADAPTER, training, standing=Standing("a1b2", receipts))
    assert asking.read_standing(content) == Standing("a1b2", receipts)
    adapter, asked = asking.read_request(content)  # and nothing else changes by it
    assert (adapter.digest, asked) == (ADAPTER.digest, training)


def test_a_server_that_remembers_nothing_says_so() -> None:
    assert asking.read_standing(asking.request(ADAPTER)) == Standing()
    without = asking.request(ADAPTER)
    del without[asking.RECEIPTS]
    assert asking.read_standing(without).receipts == {}


@pytest.mark.parametrize("run", [None, "", "x" * 65, "two\nlines", 3])
def test_a_run_without_a_name_is_refused(run: Value | None) -> None:
    with pytest.raises(ReplyError, match="'run' is not a text"):
        asking.read_standing(changed(asking.request(ADAPTER), "run", run))


def test_every_refusal_has_a_number_and_a_text_of_its_own() -> None:
    texts = {code: str(wire.refused(int(code))) for code in Refusal}
    assert wire.REFUSALS.keys() == set(Refusal)
    assert len(set(texts.values())) == len(Refusal) == 6
    assert all(wire.REFUSALS[code] in text for code, text in texts.items())
    assert "budget is exhausted" in texts[Refusal.EXHAUSTED]
    assert all(text.endswith("; look at the platform's log") for text in texts.values())


@pytest.mark.parametrize("code", [-1, 0, 1, 3, 106, 999])
def test_a_number_that_is_no_refusal_is_told_as_it_is(code: int) -> None:
    assert str(wire.refused(code)).startswith(f"answered with error code {code}; ")
