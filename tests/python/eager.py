"""torch without its compiler, for programs of tests that compile nothing: less than half the start.

Whoever makes an optimizer imports torch._dynamo, which with sympy and 900 modules takes longer than
torch itself. Where nothing is compiled, torch.optim asks it for two functions that do nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


class _NotYet(ModuleType):
    """Stands for the compiler until anything else of it is asked for: then the real one comes."""

    @staticmethod
    def graph_break(*_: Any) -> None:
        """Means something only to code that is being compiled; so does `disable`."""

    @staticmethod
    def disable(fn: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        return fn

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
            torch._dynamo = importlib.import_module(COMPILER)
        return getattr(sys.modules[COMPILER], name)


def without_compiler() -> None:
    """For this process, which has not used it yet; at the beginning of its `main`."""
    if COMPILER not in sys.modules:
        sys.modules[COMPILER] = torch._dynamo = _NotYet(COMPILER)
