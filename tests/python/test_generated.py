"""The checked-in code under `runtime/atoll/pb` is what `make proto` generates from `proto/`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKED_IN = ROOT / "runtime" / "atoll" / "pb"


def generated(folder: Path) -> dict[str, str]:
    """Return the text of each generated file in `folder`, by name."""
    files = (path for path in folder.iterdir() if path.is_file() and path.name != "__init__.py")
    return {path.name: path.read_text() for path in files}


def test_checked_in_code_is_what_protoc_generates(tmp_path: Path) -> None:
    protos = sorted((ROOT / "proto").rglob("*.proto"))
    assert protos, "no .proto file under proto/"
    options = ["-I", "proto", *(f"--{o}_out={tmp_path}" for o in ("python", "grpc_python", "pyi"))]
    names = [str(path.relative_to(ROOT)) for path in protos]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *options, *names], cwd=ROOT, check=True
    )

    expected = generated(tmp_path / "atoll" / "pb")
    actual = generated(CHECKED_IN)
    assert sorted(actual) == sorted(expected), "run `make proto`, and remove what it left over"
    stale = [name for name in expected if actual[name] != expected[name]]
    assert not stale, f"run `make proto`: {stale} differ from what proto/ generates"
