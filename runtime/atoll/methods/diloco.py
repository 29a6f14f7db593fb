"""DiLoCo: many inner steps on each island, then one outer step together (arXiv 2311.08105)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from atoll import errors
from atoll.collectives.options import one_of
from atoll.methods import schedule
from atoll.methods.eager import Eager
from atoll.methods.feedback import KINDS
from atoll.methods.gathered import GatheredMean

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from atoll.methods.batch_size import AdaptiveBatchSize
    from atoll.methods.exchange import Exchanged, Staged
    from atoll.methods.feedback import Kind
    from atoll.methods.mean import Reduction
    from atoll.methods.outer_state import Slot
    from atoll.methods.schedule import Event
    from atoll.session import Session


class DiLoCo(GatheredMean):
    """Wraps a model and its inner optimizer; call `step()` after each inner step.

    Every `sync_every` inner steps the islands average how far they came (weighted by the samples
    they trained on) and take one Nesterov step of the outer parameters along it; the model then
    holds the outer parameters.

    overlap: None: training waits for the exchange. "delayed": the exchange of a round may take all
    of the next one, and its mean is applied at that one's end (theta is a round behind, which costs
    quality). "eager" (arXiv 2502.12996): as delayed, but each island applies its own fresh part of
    the mean at once, and takes it out again when the mean that has it arrives.

    error_feedback="ef21", "econtrol" (arXiv 2311.05645): an island sends what the codec makes of
    Delta - h (EControl: eta * e + Delta - h), where h is what all know of its Delta, and the outer
    step is along the mean H of all h. allocation (L-GreCo, arXiv 2210.17357): from the sum of what
    the members would lose in each codec, the fewest bytes at no larger a total error. Both gather
    the encoded parts instead of reducing them, so that nothing is rounded twice.

    Consistency class: identical, bit by bit; eager: divergent. Bytes per round and island:
    2 (N - 1) / N times the model as encoded; gathered, (N - 1) times that and 16 bytes,
    and every `allocation` rounds 40 for each of the parameters.

    Churn: a member lost during a round is missing from the mean, which is divided by what was
    received; its samples return to the pool. A joiner receives outer parameters, momentum, round
    and data position, takes part in the running round with weight zero, and contributes from its
    first full round on (overlapped: up to two rounds later). The anchor of every Delta is the outer
    parameters that the island last took up. The inner optimizer's state stays with its island,
    neither reset nor averaged. The residual e, with error_feedback, is an island's own: a joiner
    begins with 0, and it dies with its island. h is an island's own, H everybody's: whenever others
    contribute than in the last round (a loss, a joiner's first round, a straggler) or with other
    weights, all take both to be 0 and that round is exchanged a second time; e stays. A joiner
    receives H and the parameters' codecs. Eager: a joiner copies one member's outer
    parameters, momentum and early part, and takes that part out with the next mean; so what is
    early never stays.
    """

    def __init__(
        self,
        session: Session,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int = 100,
        outer_lr: float = 0.7,
        outer_momentum: float = 0.9,
        overlap: Literal["delayed", "eager"] | None = None,
        codec: str | None = None,
        error_feedback: Kind | bool = False,
        feedback_eta: float = 0.1,
        allocation: int | None = None,
        every: str | None = None,
        straggler_s: float | None = None,
        weights: str = "samples",
        adaptive_batch: AdaptiveBatchSize | None = None,
        plan: str = "auto",
        channel: int = 1,
        parity_every: int = 1,
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        """Joins the view and fetches the job's state into the model, or brings its own.

        outer_lr is eta, outer_momentum mu of the paper. codec: how Delta travels (docs/codecs.md);
        None: as fp32. error_feedback: "ef" (or True): what the codec loses of an island's Delta is
        added to its next one (MuLoCo, arXiv 2505.23725); "ef21", "econtrol": see above;
        feedback_eta: EControl's eta. allocation: rounds between two choices of a codec for each
        parameter (L-GreCo); `codec` is the uniform one that they are held against. every: "60s": a
        round ends after so long, or after sync_every steps if that is sooner. straggler_s: a round
        that began so long ago goes on without this island, whose work counts in the round in which
        it comes. weights: of an island in the mean, by its samples, tokens, steps, or equal.
        adaptive_batch: when batches grow (blocking rounds; without a codec or gathered).
        plan: of the all-reduce; auto: direct with a codec. parity_every: rounds between two checks
        that all members hold the same state (one pass over it each); 0: never. earlier: what
        `state_dict()` of this job once gave, before this island was expelled, say: only what has
        changed since is fetched. Raises MisuseError for settings that make no sense, TensorError
        for parameters that are not fp32, MismatchError when the job trains something else,
        CannotJoin when the view is not reached in time.
        """
        if overlap not in (None, "delayed", "eager"):
            raise errors.MisuseError(f'overlap must be None, "delayed" or "eager", not {overlap!r}')
        self.overlap = overlap
        self._eager = Eager() if overlap == "eager" else None
        if self._eager is not None:
            self.consistency = "divergent"
        super().__init__(
            session,
            model,
            inner,
            sync_every=sync_every,
            outer_lr=outer_lr,
            outer_momentum=outer_momentum,
            codec=codec,
            plan=plan,
            identity={} if overlap is None else {"overlap": overlap},
            kinds=("theta", "momentum", *(() if self._eager is None else ("early",))),
            background=overlap is not None,
            lead=overlap is not None,
            every=every,
            straggler_s=straggler_s,
            feedback=_kind_of(error_feedback),
            feedback_eta=feedback_eta,
            allocation=allocation,
            weights=weights,
            adaptive_batch=adaptive_batch,
            channel=channel,
            parity_every=parity_every,
        )
        self._attach(earlier)

    def _events_of(self, round_: int) -> tuple[Event, ...]:
        if self.overlap is None:
            return schedule.blocking(round_, period=self.sync_every)
        return schedule.a_round_late(
            round_, period=self.sync_every, first_blocks=self._eager is not None
        )

    # --- overlapped: an op is launched in the very moment in which the one before is taken up -----

    def _absorbed(self) -> None:
        if self._eager is None or not self._staged:
            self.publish()

    def _into_model(self, fragment: int, staged: Staged, exchanged: Exchanged) -> None:
        if not self._staged:
            super()._into_model(fragment, staged, exchanged)

    def _launching(self, staged: Staged) -> None:
        if self.overlap is None or (self._eager is not None and staged.index == 0):
            return
        if self._eager is not None and self._eager.mean is None:
            self.publish()
        elif self._eager is not None:
            along = self._eager.along(staged, self._state.now[0].tensors["early"])
            slot = self._step_along(0, along)
            slot.tensors["early"].copy_(self._eager.early)
            slot.entries = ()
            self._state.advance(0, slot)
            self.publish()
        # Also when nothing has arrived yet: what was staged is under way, and not to be sent twice.
        self._layout.fragments[0].scatter(self._state.now[0].theta)

    def _stepped(self, staged: Staged, mean: torch.Tensor, outcome: Reduction) -> Slot | None:
        if self._eager is None:
            return super()._stepped(staged, mean, outcome)
        self._eager.arrived(mean, outcome.total_weight)
        if staged.index > 0:
            return None
        slot = super()._stepped(staged, mean, outcome)
        if slot is not None:
            slot.tensors["early"].copy_(self._eager.part_of(staged))
            slot.entries = ()
        return slot


def _kind_of(error_feedback: Kind | bool) -> Kind | None:
    """The rule of this name; True: plain EF. Raises MisuseError."""
    if isinstance(error_feedback, bool):
        return "ef" if error_feedback else None
    one_of("error_feedback", error_feedback, KINDS)
    return error_feedback
