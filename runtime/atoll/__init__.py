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

import os
from typing import TYPE_CHECKING, Any

from atoll import errors

if TYPE_CHECKING:
    from atoll.collectives.handle import Handle
    from atoll.elastic.island import ElasticIsland
    from atoll.elastic.saved import load_layers
    from atoll.elastic.split import split_layers
    from atoll.methods.batch_size import AdaptiveBatchSize
    from atoll.methods.diloco import DiLoCo
    from atoll.methods.local_sgd import LocalSGD
    from atoll.methods.noloco import NoLoCo
    from atoll.methods.sparse_loco import SparseLoCo
    from atoll.methods.streaming import StreamingDiLoCo
    from atoll.optim.lamb import LAMB
    from atoll.replicas.optimizer import FaultTolerantOptimizer
    from atoll.replicas.parallel import FaultTolerantDDP
    from atoll.session import Session, join
    from atoll.state.tensors import SharedTensors

# gRPC's own resolver asks DNS servers: not what else the system resolves names by (nsswitch, mDNS,
# VPNs), and where no server answers not even /etc/hosts. It reads this once, when it is imported.
os.environ.setdefault("GRPC_DNS_RESOLVER", "native")

__version__ = "0.1.0"

__all__ = [
    "LAMB",
    "AdaptiveBatchSize",
    "DiLoCo",
    "ElasticIsland",
    "FaultTolerantDDP",
    "FaultTolerantOptimizer",
    "Handle",
    "LocalSGD",
    "NoLoCo",
    "Session",
    "SharedTensors",
    "SparseLoCo",
    "StreamingDiLoCo",
    "__version__",
    "errors",
    "join",
    "load_layers",
    "split_layers",
]

_HOMES = {
    "AdaptiveBatchSize": "atoll.methods.batch_size",
    "DiLoCo": "atoll.methods.diloco",
    "ElasticIsland": "atoll.elastic.island",
    "FaultTolerantDDP": "atoll.replicas.parallel",
    "FaultTolerantOptimizer": "atoll.replicas.optimizer",
    "Handle": "atoll.collectives.handle",
    "LAMB": "atoll.optim.lamb",
    "LocalSGD": "atoll.methods.local_sgd",
    "NoLoCo": "atoll.methods.noloco",
    "Session": "atoll.session",
    "SharedTensors": "atoll.state.tensors",
    "SparseLoCo": "atoll.methods.sparse_loco",
    "StreamingDiLoCo": "atoll.methods.streaming",
    "join": "atoll.session",
    "load_layers": "atoll.elastic.saved",
    "split_layers": "atoll.elastic.split",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'atoll' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
