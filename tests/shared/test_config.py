from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import pytest
from pydantic import Field, ValidationError, model_validator

from shared.config import Section, parse, read_toml
from shared.errors import ConfigError


class Island(Section):
    name: str = Field(pattern=r"^[a-z]+$")
    share: float = Field(default=1.0, gt=0, le=1000)


class World(Section):
    rounds: int = Field(ge=1)
    engine: Literal["sequential", "threaded"] = "sequential"
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    islands: list[Island] = Field(default_factory=list)
    by_name: dict[str, Island] = Field(default_factory=dict)
    capital: Island | None = None
    least: int = 0
    most: int = 9

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least > self.most:
            raise ValueError("least must not be above most")
        return self


def said(path: Path, text: str | bytes) -> str:
    """What reading a file with this text complains of."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        read_toml(path, World)
    return str(caught.value)


def test_a_file_becomes_its_model(tmp_path: Path) -> None:
    path = tmp_path / "world.toml"
    path.write_text(
        'rounds = 3\nnotes = ["a", "b"]\nfolder = "runs"\n[[islands]]\nname = "reef"\nshare = 2\n'
    )
    world = read_toml(path, World)
    assert world.rounds == 3
    assert world.notes == ("a", "b")
    assert world.folder == Path("runs")
    assert world.islands == [Island(name="reef", share=2.0)]


def test_a_section_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Island(name="reef").share = 2.0  # type: ignore[misc]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: no such file; give the path"):
        read_toml(tmp_path / "none.toml", World)


def test_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path, World)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rounds = 3\nengine =\n", "not TOML: Invalid value (at line 2, column 9)"),
        (b"rounds = 3\nengine = '\xe9'\n", "line 2 is not UTF-8"),
        ("", "missing key 'rounds'; write rounds = …"),
        ("rouns = 3", "unknown key 'rouns'; the nearest known key is 'rounds'"),
        ("rounds = 3\nzzz = 1", "unknown key 'zzz'; known keys there are rounds, engine, notes"),
        ("rounds = 0", "'rounds' is 0; it must be greater than or equal to 1"),
        ("rounds = '3'", "'rounds' is \"3\"; it must be a valid integer"),
        ("rounds = true", "'rounds' is true; it must be a valid integer"),
        ("rounds = 3.0", "'rounds' is 3.0; it must be a valid integer"),
        (
            "rounds = 1\nengine = 'ray'",
            "'engine' is \"ray\"; it must be 'sequential' or 'threaded'",
        ),
        ("rounds = 1\ncapital = 4", "'capital' is 4; it must be a table"),
        ("rounds = 1\ncapital = { nam = 'a' }", "the nearest known key is 'capital.name'"),
        ("rounds = 1\n[[islands]]\nnme = 'a'", "the nearest known key is 'islands.0.name'"),
        ("rounds = 1\n[by_name.x]\nshar = 1", "the nearest known key is 'by_name.x.share'"),
        ("rounds = 1\n[capital]\nname = 'A b'", "it must match pattern '^[a-z]+$'"),
        (
            "rounds = 1\n[capital]\nname = 'a'\nshare = nan",
            "'capital.share' is NaN; it must be a fin",
        ),
        ("rounds = 1\n[capital]\nname = 'a'\nshare = inf", "it must be a finite number"),
        ("rounds = 1\nleast = 10", "not valid; least must not be above most"),
    ],
)
def test_every_fault_is_one_line_with_file_key_and_next_step(
    tmp_path: Path, text: str | bytes, told: str
) -> None:
    path = tmp_path / "world.toml"
    message = said(path, text)
    assert message.startswith(f"{path}: ")
    assert told in message
    assert "\n" not in message


def test_a_misspelt_key_is_told_before_the_key_it_leaves_missing(tmp_path: Path) -> None:
    assert "unknown key 'rounds_'" in said(tmp_path / "world.toml", "rounds_ = 3")


def test_a_long_value_is_cut_short(tmp_path: Path) -> None:
    message = said(tmp_path / "world.toml", f"rounds = '{'x' * 500}'")
    assert len(message) < len(str(tmp_path)) + 150


def test_a_section_of_another_file_is_checked_in_that_file_s_name() -> None:
    with pytest.raises(
        ConfigError, match=r"^demo\.toml \[world\]: unknown key 'round'; .*'rounds'"
    ):
        parse({"round": 3}, World, "demo.toml [world]")


def test_a_byte_order_mark_before_toml_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_bytes(b"\xef\xbb\xbfrounds = 3\n")
    assert read_toml(tmp_path / "w.toml", World).rounds == 3


@pytest.mark.parametrize(
    "text", ["notes = " + "[" * 5000 + "]" * 5000, "a" + ".a" * 150 + " = 1", "a" + ".a" * 9**5]
)
def test_toml_that_is_nested_too_deeply_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "w.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"w\.toml: holds (values nested|a key of) more than 32"):
        read_toml(tmp_path / "w.toml", World)
