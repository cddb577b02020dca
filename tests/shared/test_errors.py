from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from shared import errors
from shared.errors import AtollError, DataError

TREE = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", TREE)
def test_whoever_catches_atolls_error_catches_every_one(kind: type[AtollError]) -> None:
    with pytest.raises(AtollError):
        raise kind("broken", todo="mend it")
    assert inspect.getdoc(kind) is not None


def test_an_error_says_where_what_and_the_next_step() -> None:
    fault = DataError("column 'item' is missing", where=Path("rows.csv"), todo="name it in TOML")
    assert str(fault) == "rows.csv: column 'item' is missing; name it in TOML"
    assert (fault.what, fault.where) == ("column 'item' is missing", Path("rows.csv"))
    assert fault.todo == "name it in TOML"


def test_an_error_may_have_no_place() -> None:
    assert str(DataError("no rows", todo="bring some")) == "no rows; bring some"


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    fault = AtollError("parser said:\n  line 1\r\n\tbad", where="a\nfile", todo="mend\nit")
    assert str(fault) == "a file: parser said: line 1 bad; mend it"
