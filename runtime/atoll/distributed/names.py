"""What torch.distributed asks a process group about itself, and the names it calls it by."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import GroupName, Store


class TorchNames(dist.ProcessGroup):
    """The part of a process group that moves nothing. C++ finds the camel-case names."""

    def __init__(self, options: dict[str, object]) -> None:
        super().__init__(0, 1)  # type: ignore[call-arg]
        self._options = options
        self._store: Store | None = None
        self._names = {"name": "", "desc": ""}

    def name(self) -> str:
        """The backend's."""
        return "atoll"

    getBackendName = _get_backend_name = name

    @property
    def options(self) -> dict[str, object]:
        """As given to `init_process_group(pg_options=...)`."""
        return self._options

    @property
    def supports_splitting(self) -> bool:
        """For torch.distributed.split_group."""
        return True

    @property
    def supports_coalescing(self) -> bool:
        """Sends and receipts of a batch are calls of their own."""
        return False

    @property
    def supports_time_estimate(self) -> bool:
        """As asked by torch."""
        return False

    def supports_tensor_alloc(self, device: torch.device) -> bool:
        """Buffers may lie anywhere."""
        return False

    def get_group_store(self) -> Store:
        """Where the members met."""
        assert self._store is not None
        return self._store

    @property
    def _device_types(self) -> list[torch.device]:
        devices = [torch.device("cpu")]
        if torch.cuda.is_available():
            devices.append(torch.device("cuda"))
        return devices

    def _get_backend(self, device: torch.device) -> Any:
        """The backend of every device is this group."""
        return self

    def _set_sequence_number_for_group(self) -> None:
        """The core numbers its ops by itself."""

    def eager_connect_single_device(self, device: torch.device | None) -> None:
        """All members are linked when the group is formed."""

    # --- its name ---------------------------------------------------------------------------------

    def getGroupName(self) -> str:
        """As torch's registry knows it."""
        return self._names["name"]

    def setGroupName(self, name: str) -> None:
        """Called by torch."""
        self._names["name"] = name

    def getGroupDesc(self) -> str:
        """For people."""
        return self._names["desc"]

    def setGroupDesc(self, desc: str) -> None:
        """Called by torch."""
        self._names["desc"] = desc

    _set_group_name = setGroupName
    _set_group_desc = setGroupDesc

    @property
    def group_name(self) -> GroupName:
        """As torch's registry knows it."""
        return GroupName(self._names["name"])

    @property
    def group_desc(self) -> str:
        """For people."""
        return self._names["desc"]
