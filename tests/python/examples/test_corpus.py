"""The corpus: the same bytes for the same interpreter, nothing held out is trained on."""

from pathlib import Path

import corpus
import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small standard library: 200 files that are all different, and some that do not count."""
    root = tmp_path_factory.mktemp("library")
    for number in range(200):
        path = root / ("package" if number % 2 else ".") / f"module_{number}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"<{number}>".encode() * 20)
    for name in ("site-packages/other.py", "test/test_it.py", "_sysconfigdata_x.py", "data.txt"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not wanted")
    return root


def numbers(text: corpus.Bytes) -> set[bytes]:
    """The numbers of the files that are in a text."""
    return {part.strip(b"<>") for part in text.tobytes().split(b"><")}


def test_the_real_library_is_a_corpus() -> None:
    text = corpus.load()
    assert len(text.train) > 3_000_000
    assert 0.01 < len(text.validation) / len(text.train) < 0.1
    assert corpus.load().fingerprint == text.fingerprint


def test_no_file_is_in_both_parts_and_none_is_lost(library: Path) -> None:
    text = corpus.load(library)
    train, held_out = numbers(text.train), numbers(text.validation)
    assert not train & held_out
    assert train | held_out == {str(number).encode() for number in range(200)}
    assert 2 <= len(held_out) <= 25


def test_what_differs_between_machines_is_left_out(library: Path) -> None:
    text = corpus.load(library)
    assert b"not wanted" not in text.train.tobytes() + text.validation.tobytes()


def test_max_bytes_takes_the_beginning(library: Path) -> None:
    whole, part = corpus.load(library), corpus.load(library, max_bytes=2_000)
    assert len(part.train) == 2_000
    assert len(part.validation) == 100
    assert np.array_equal(part.train, whole.train[:2_000])
    assert part.fingerprint != whole.fingerprint


def test_another_library_has_another_fingerprint(library: Path, tmp_path: Path) -> None:
    for path in library.rglob("*.py"):
        copy = tmp_path / path.relative_to(library)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert corpus.load(tmp_path).fingerprint == corpus.load(library).fingerprint
    (tmp_path / "module_0.py").write_bytes(b"#" * 60)
    assert corpus.load(tmp_path).fingerprint != corpus.load(library).fingerprint


def test_a_folder_without_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too few Python files"):
        corpus.load(tmp_path)


def test_blocks_do_not_overlap_and_targets_follow() -> None:
    text = np.arange(100, dtype=np.uint8)
    blocks = corpus.Blocks(text, 8)
    assert len(blocks) == 11
    for index in range(len(blocks)):
        x, y = blocks[index]
        assert x.dtype == y.dtype == torch.int64
        assert x.tolist() == list(range(9 * index, 9 * index + 8))
        assert torch.equal(y, x + 1)


def test_a_text_shorter_than_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="no block of 9"):
        corpus.Blocks(np.zeros(8, dtype=np.uint8), 8)
