"""From index lists to batches: in this thread, or in torch's DataLoader with its workers.

Which samples a batch has is settled before it is loaded, and a batch counts only when the user
gets it. So workers may load ahead what they like of a round: what nobody got was not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from atoll import errors

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

Collate = Callable[[Any], Any]

_OURS = ("batch_size", "shuffle", "sampler", "batch_sampler", "drop_last", "collate_fn")
"""Arguments of DataLoader that say which samples a batch has."""


class Dataset(Protocol):
    """A map-style data set; with `__getitems__`, batches are asked for as a whole."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class _Chosen:
    """A batch sampler: the index lists of the running round."""

    def __init__(self) -> None:
        self.lists: Iterable[Sequence[int]] = ()

    def __iter__(self) -> Iterator[Sequence[int]]:
        return iter(self.lists)


class Loader:
    """Loads batches, round after round; its workers live until `close`."""

    def __init__(
        self, dataset: Dataset, collate: Collate | None, *, workers: int, options: Mapping[str, Any]
    ) -> None:
        """collate: torch's default_collate when None. workers: processes that load ahead; 0: none.
        options: further ones of DataLoader.

        Raises MisuseError for options that DataLoader does not have, or that are not the caller's.
        """
        from torch.utils.data import default_collate

        as_torch_does: Collate = default_collate
        self.dataset = dataset
        self._collate = collate or as_torch_does
        self._chosen = _Chosen()
        self._torch: DataLoader[Any] | None = None
        if workers or options:
            self._torch = self._make(workers, dict(options))

    def batches(self, lists: Iterable[Sequence[int]]) -> Iterator[Any]:
        """One batch for each list of indices, in order."""
        if self._torch is None:
            return map(self._load, lists)
        # What is left of a round that was broken off, the workers' iterator throws away by itself.
        self._chosen.lists = lists
        return iter(self._torch)

    def close(self) -> None:
        """Ends the workers."""
        self._torch = None

    def _load(self, indices: Sequence[int]) -> Any:
        whole = getattr(self.dataset, "__getitems__", None)
        if whole is not None:
            return self._collate(whole(list(indices)))
        return self._collate([self.dataset[index] for index in indices])

    def _make(self, workers: int, options: dict[str, Any]) -> DataLoader[Any]:
        from torch.utils.data import DataLoader

        refused = sorted(set(options) & set(_OURS))
        if refused:
            raise errors.MisuseError(
                f"loader: {', '.join(refused)} cannot be set, the job decides which samples a "
                "batch has"
            )
        options = {"num_workers": workers, "persistent_workers": workers > 0, **options}
        chosen: Any = self._chosen
        dataset: Any = self.dataset
        try:
            return DataLoader(dataset, batch_sampler=chosen, collate_fn=self._collate, **options)
        except (TypeError, ValueError) as error:
            raise errors.MisuseError(f"loader: {error}") from None
