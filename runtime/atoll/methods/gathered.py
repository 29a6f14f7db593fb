"""A weighted mean whose parts all members receive as they were encoded: nothing is rounded twice.

An all-reduce rounds a contribution on its way and the mean on its way back. What builds on both
ends knowing the same bits (EF21, EControl, a codec for each layer) gathers the encoded parts
instead: every member decodes all of them and adds in rank order, in fp32. It costs (N - 1) times
the encoded model a round instead of 2 (N - 1) / N times.

Thread: the user's (or its stand-in's): rounds with this exchange wait for it.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from atoll import errors
from atoll.methods import traffic
from atoll.methods.allocation import allocate, budget
from atoll.methods.batch_size import squared_norm
from atoll.methods.feedback import WITH_MEAN, Feedback
from atoll.methods.layered import CANDIDATES, Layered, candidate_bytes
from atoll.methods.mean import MeanMethod
from atoll.methods.note import Note
from atoll.state.parity import NO_VOTE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from atoll import _core
    from atoll.membership.messages import PeerId
    from atoll.methods.exchange import Staged
    from atoll.methods.feedback import Kind
    from atoll.methods.mean import Reduction
    from atoll.methods.outer_state import Slot

Brought = tuple[tuple[str, float], ...]
"""Who contributed, by rank: peer (hex) and weight."""

_HEADER = struct.Struct("<dd")
"""Before the encoded vector: its weight, and ||Delta||^2 if that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """What `_core.Outcome` says of an all-reduce. notes, weights: by rank."""

    epoch: int
    notes: Sequence[int]
    weights: Sequence[float]
    total_weight: float


class GatheredMean(MeanMethod):
    """`MeanMethod`, or with `gather` one whose exchange is an all-gather of encoded parts.

    The members share, besides what the outer step has: the mean H of all h, and whose h it is the
    mean of (`known`); and the layers' codecs. When others contribute than H is of, or with other
    weights, the exchange counts for nothing but this: all take h and H to be 0, and exchange again
    at once. So does a view that changes under the gather.
    """

    def __init__(
        self,
        *rest: Any,
        codec: str | None,
        feedback: Kind | None = None,
        feedback_eta: float = 0.1,
        allocation: int | None = None,
        kinds: Sequence[str] = ("theta", "momentum"),
        identity: dict[str, Any],
        **options: Any,
    ) -> None:
        """feedback: of the gathered exchange. allocation: rounds between two choices of the layers'
        codecs. Others as in `MeanMethod`. Raises MisuseError."""
        self._feedback: Feedback | None = None
        self._form: Layered | None = None
        self._known: Brought | None = None
        self._shares_mean = feedback in WITH_MEAN
        self._allocation = allocation
        self._gathers = self._shares_mean or allocation is not None
        if self._gathers:
            _check(codec, feedback_eta, allocation, options)
            identity = {**identity, "feedback": feedback, "allocation": allocation}
        if feedback == "econtrol":
            identity = {**identity, "feedback_eta": feedback_eta}
        if self._shares_mean:
            kinds = (*kinds, "mean")
        super().__init__(
            *rest,
            codec=codec,
            error_feedback=feedback == "ef" and not self._gathers,
            kinds=kinds,
            identity=identity,
            **options,
        )
        if self._gathers:
            (part,) = self._layout.fragments
            sizes = [math.prod(shape) for shape in part.shapes]
            self._form = Layered(sizes, [str(codec)] * len(sizes))
            self._feedback = Feedback(feedback, part.numel, eta=feedback_eta)

    @property
    def layer_codecs(self) -> dict[str, str]:
        """The codec in which each parameter travels now, by its name."""
        names = self._layout.fragments[0].named(self._state.now[0].theta)
        chosen = [self.codec or "fp32"] * len(names) if self._form is None else self._form.codecs
        return dict(zip(names, chosen, strict=True))

    # --- the exchange -----------------------------------------------------------------------------

    def _reduced(self, staged: Staged, vote: int) -> tuple[Reduction, torch.Tensor, float]:
        if self._form is None or self._feedback is None:
            return super()._reduced(staged, vote)
        while True:
            note = Note(vote=vote, trained=staged.trained, late=staged.late).packed()
            payload = self._payload(self._form, self._feedback, staged)
            handle = self._session.all_gather(payload, note=note, channel=self.channel)
            try:
                outcome = handle.wait()
            except errors.ViewChanged:
                vote = self._begin_again(staged)
                continue
            members = self._session.members_of(outcome.epoch)
            weights = [_weight(row) for row in handle.target]
            brought = _brought(members, weights)
            if self._known is None or not self._shares_mean or brought == self._known:
                break
            vote = self._begin_again(staged)
        if staged.weight > 0:
            self._feedback.delivered()
        mean = self._mean(handle.target, weights)
        if self._shares_mean and brought:
            self._known = brought
        if self._is_due(staged.index):
            self._choose(handle.target, weights)
        return _reduced_as(outcome, weights), mean, self._mean_square(handle.target, weights)

    def _payload(self, form: Layered, feedback: Feedback, staged: Staged) -> torch.Tensor:
        """[bytes] uint8: the weight, the encoded message, and when it is due what every candidate
        would have lost of each layer. The same size on all members."""
        import torch

        rows = len(form.sizes) * len(CANDIDATES) * 8 if self._is_due(staged.index) else 0
        payload = torch.zeros(_HEADER.size + form.nbytes + rows, dtype=torch.uint8, device="cpu")
        if staged.weight <= 0:
            return payload

        def compress(x: torch.Tensor) -> torch.Tensor:
            wire = form.encode(x)
            payload[_HEADER.size : _HEADER.size + form.nbytes] = wire
            if rows:
                payload[_HEADER.size + form.nbytes :] = form.errors(x).flatten().view(torch.uint8)
            return form.decode(wire)

        feedback.message(staged.delta, compress)
        square = squared_norm(staged.delta) if self._adaptive is not None else 0.0
        header = bytearray(_HEADER.pack(staged.weight, square))
        payload[: _HEADER.size] = torch.frombuffer(header, dtype=torch.uint8)
        return payload

    def _mean(self, gathered: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
        """sum(weight * decoded) / sum(weight), by rank. Each operation rounds by itself, so it has
        the same bits on every processor."""
        import torch

        assert self._form is not None
        total = torch.zeros(self._layout.numel, device="cpu")
        for row, weight in zip(gathered, weights, strict=True):
            if weight > 0:
                wire = row[_HEADER.size : _HEADER.size + self._form.nbytes].clone()
                total.add_(self._form.decode(wire).mul_(weight))
        return total.div_(math.fsum(weights)) if any(weights) else total

    def _mean_square(self, gathered: torch.Tensor, weights: Sequence[float]) -> float:
        if self._adaptive is None or not any(weights):
            return math.nan
        squares: list[float] = [
            _HEADER.unpack(bytes(row[: _HEADER.size].numpy()))[1] for row in gathered
        ]
        products = [weight * square for weight, square in zip(weights, squares, strict=True)]
        return math.fsum(products) / math.fsum(weights)

    def _begin_again(self, staged: Staged) -> int:
        """The op counts as one; with it all members have forgotten h and H. Returns the vote on
        that state, which whoever joins between the two exchanges holds as well."""
        assert self._feedback is not None
        self._known = None
        self._feedback.forget()
        if self._shares_mean:
            now, then = self._state.now[0], self._state.next(0)
            for kind, tensor in then.tensors.items():
                tensor.zero_() if kind == "mean" else tensor.copy_(now.tensors[kind])
            self._state.advance(0, then)
        self._revision += 1
        self.publish()
        vote = self._parity.examine(self._state, staged.fragment, staged.index)
        return NO_VOTE if vote is None else vote

    # --- what comes of it -------------------------------------------------------------------------

    def _stepped(self, staged: Staged, mean: torch.Tensor, outcome: Reduction) -> Slot | None:
        slot = super()._stepped(staged, mean, outcome)
        if slot is None and self._known is not None:
            self._known = ()  # H did not follow h: nobody's, so the next exchange begins again
        return slot

    def _step_along(self, fragment: int, delta: torch.Tensor) -> Slot:
        if not self._shares_mean:
            return super()._step_along(fragment, delta)
        along = self._state.now[fragment].tensors["mean"] + delta
        slot = super()._step_along(fragment, along)
        slot.tensors["mean"].copy_(along)
        slot.entries = ()
        return slot

    def _direction(self, slot: Slot, mean: torch.Tensor) -> torch.Tensor:
        return slot.tensors["mean"] if self._shares_mean else mean

    def _is_due(self, index: int) -> bool:
        return self._allocation is not None and index % self._allocation == 0

    def _choose(self, gathered: torch.Tensor, weights: Sequence[float]) -> None:
        """The layers' codecs from the next exchange on: from the sum of what the contributors say
        they would lose, in rank order, hence the same on all members."""
        import torch

        assert self._form is not None
        sizes, begin = self._form.sizes, _HEADER.size + self._form.nbytes
        total = torch.zeros(len(sizes), len(CANDIDATES), dtype=torch.float64, device="cpu")
        for row, weight in zip(gathered, weights, strict=True):
            if weight > 0:
                total += row[begin:].clone().view(torch.float64).view_as(total)
        if not any(weights) or not bool((torch.isfinite(total) & (total >= 0)).all()):
            return
        losses = total.tolist()
        uniform = CANDIDATES.index(str(self.codec))
        choice = allocate(
            losses,
            candidate_bytes(sizes),
            total_error=budget([row[uniform] for row in losses]),
            reference=[uniform] * len(sizes),
        )
        self._form = Layered(sizes, [CANDIDATES[index] for index in choice])

    # --- what is shared of it ---------------------------------------------------------------------

    def _values(self) -> dict[str, Any]:
        values = super()._values()
        if self._form is None:
            return values
        known = None if self._known is None else [list(pair) for pair in self._known]
        return {**values, "known": known, "layer_codecs": list(self._form.codecs)}

    def _take_position(self, values: Mapping[str, Any]) -> None:
        super()._take_position(values)
        if self._form is None:
            return
        try:
            known = values["known"]
            self._known = None if known is None else tuple((str(p), float(w)) for p, w in known)
            codecs = [str(codec) for codec in values["layer_codecs"]]
            if not set(codecs) <= {*CANDIDATES, str(self.codec)}:
                raise ValueError(f"codecs {codecs}")
            self._form = Layered(self._form.sizes, codecs)
        except (KeyError, TypeError, ValueError) as error:
            raise errors.MismatchError(
                f"the job's shared state is not that of a gathered exchange: {error!r}"
            ) from None

    def bytes_per_round(self, members: int) -> float:
        """Payload that this island sends in a round, as the codecs are now: its part to every other
        member, and every `allocation` rounds 40 bytes a layer more. A round in which others
        contribute than in the last one sends it twice (EF21, EControl)."""
        if self._form is None:
            return super().bytes_per_round(members)
        stats = 8 * len(CANDIDATES) * len(self._form.sizes) / (self._allocation or math.inf)
        own = _HEADER.size + self._form.nbytes
        return traffic.all_gather_bytes(own, members) + (members - 1) * stats


def _check(
    codec: str | None, eta: float, allocation: int | None, options: Mapping[str, Any]
) -> None:
    if codec is None:
        raise errors.MisuseError("error_feedback and allocation are for a codec; name one")
    if options.get("background"):
        raise errors.MisuseError("ef21, econtrol and allocation are for rounds without an overlap")
    if allocation is not None and allocation < 1:
        raise errors.MisuseError(f"allocation must be at least 1 round, not {allocation}")
    if allocation is not None and codec not in CANDIDATES:
        known = ", ".join(CANDIDATES)
        raise errors.MisuseError(f"allocation chooses among {known}; codec is {codec!r}")
    if not 0 <= eta <= 1:
        raise errors.MisuseError(f"feedback_eta must be in [0, 1], not {eta}")


def _weight(row: torch.Tensor) -> float:
    """What a member's part counts; 0 for one that says nonsense. All see the same bytes."""
    weight, _ = _HEADER.unpack(bytes(row[: _HEADER.size].numpy()))
    return float(weight) if math.isfinite(weight) and weight > 0 else 0.0


def _brought(members: Sequence[PeerId], weights: Sequence[float]) -> Brought:
    pairs = zip(members, weights, strict=True)
    return tuple((peer.hex(), weight) for peer, weight in pairs if weight > 0)


def _reduced_as(outcome: _core.Outcome, weights: Sequence[float]) -> Reduced:
    return Reduced(
        epoch=outcome.epoch,
        notes=outcome.notes,
        weights=weights,
        total_weight=math.fsum(weights),
    )
