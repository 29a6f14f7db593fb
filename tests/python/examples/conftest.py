"""The examples are scripts beside one another, not a package: their folder goes on the path."""

import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"

sys.path.insert(0, str(EXAMPLES))
