"""What stands for torch's compiler in programs of tests, and the compiler where it is wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys, torch
from eager import without_compiler

without_compiler()
model = torch.nn.Linear(3, 1)
for kind in (torch.optim.SGD, torch.optim.AdamW):
    optimizer = kind(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
print("sympy" in sys.modules)
plus_one = torch.compile(lambda x: x + 1, backend="eager")
print(plus_one(torch.ones(1)).item(), "sympy" in sys.modules)
optimizer.step()
"""


def test_an_optimizer_does_not_bring_the_compiler_and_a_compiled_function_does() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=Path(__file__).parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["False", "2.0 True"]
