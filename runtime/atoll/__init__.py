"""atoll trains one PyTorch model on islands of compute that come and go.

    import atoll

    session = atoll.join()
    outer = atoll.DiLoCo(session, model, inner, sync_every=50)
    for batch in session.batches(dataset, batch_size=16):
        ...
        outer.step(loss)
    session.close()

Heavy modules are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atoll import errors

if TYPE_CHECKING:
    from atoll.engine import Handle
    from atoll.methods.diloco import DiLoCo
    from atoll.session import Session, join

__version__ = "0.1.0"

__all__ = ["DiLoCo", "Handle", "Session", "__version__", "errors", "join"]

_HOMES = {
    "DiLoCo": "atoll.methods.diloco",
    "Handle": "atoll.engine",
    "Session": "atoll.session",
    "join": "atoll.session",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'atoll' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
