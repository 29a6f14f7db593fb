"""EF, EF21 and EControl against NumPy, and the identities between them."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from atoll.methods.error_feedback import econtrol_step, ef21_step, ef_step


def top_third(x: torch.Tensor) -> torch.Tensor:
    kept = torch.zeros_like(x)
    places = x.abs().topk(max(1, x.numel() // 3)).indices
    kept[places] = x[places]
    return kept


def numpy_top_third(x: np.ndarray) -> np.ndarray:
    order = np.argsort(-abs(x), kind="stable")[: max(1, x.size // 3)]
    kept = np.zeros_like(x)
    kept[order] = x[order]
    return kept


def gradients(seed: int, count: int = 6) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(30, generator=generator, dtype=torch.double) for _ in range(count)]


def test_all_three_against_numpy() -> None:
    zero = torch.zeros(30, dtype=torch.double)
    e = h21 = e_control = h_control = zero
    n_e = n_h21 = n_ec = n_hc = np.zeros(30)
    for g in gradients(1):
        n_g = g.numpy()
        m, e = ef_step(e, g, top_third)
        n_m = numpy_top_third(n_e + n_g)
        n_e = n_e + n_g - n_m
        _, h21 = ef21_step(h21, g, top_third)
        n_h21 = n_h21 + numpy_top_third(n_g - n_h21)
        _, e_control, h_control = econtrol_step(e_control, h_control, g, top_third, eta=0.1)
        n_c = numpy_top_third(0.1 * n_ec + n_g - n_hc)
        n_ec, n_hc = n_ec + n_g - n_hc - n_c, n_hc + n_c
        for ours, theirs in (
            (m, n_m),
            (e, n_e),
            (h21, n_h21),
            (e_control, n_ec),
            (h_control, n_hc),
        ):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-12)


@given(st.integers(0, 1000), st.floats(0, 1))
def test_the_residual_grows_by_what_h_misses(seed: int, eta: float) -> None:
    e = h = torch.zeros(30, dtype=torch.double)
    for g in gradients(seed):
        _, e_next, h_next = econtrol_step(e, h, g, top_third, eta=eta)
        torch.testing.assert_close(e_next - e, g - h_next)
        e, h = e_next, h_next


@given(st.integers(0, 1000))
def test_econtrol_with_eta_zero_is_ef21_to_the_bit(seed: int) -> None:
    e = h = h21 = torch.zeros(30, dtype=torch.double)
    for g in gradients(seed):
        c, e, h = econtrol_step(e, h, g, top_third, eta=0.0)
        c21, h21 = ef21_step(h21, g, top_third)
        assert torch.equal(c, c21)
        assert torch.equal(h, h21)


def test_without_loss_all_three_are_plain_sgd() -> None:
    e = h = h21 = e_control = torch.zeros(30, dtype=torch.double)
    for g in gradients(4):
        m, e = ef_step(e, g, torch.clone)
        _, h21 = ef21_step(h21, g, torch.clone)
        _, e_control, h = econtrol_step(e_control, h, g, torch.clone, eta=0.3)
        for step in (m, h21, h):
            torch.testing.assert_close(step, g)
        assert float(e.abs().max()) == 0.0
        assert float(e_control.abs().max()) < 1e-15


def test_everything_is_sent_in_the_end() -> None:
    """Constant gradients: the messages' mean becomes the gradient, with every method."""
    g = gradients(5)[0]
    e = h21 = e_control = h = torch.zeros(30, dtype=torch.double)
    sent = torch.zeros(30, dtype=torch.double)
    for _ in range(400):
        m, e = ef_step(e, g, top_third)
        sent += m
        _, h21 = ef21_step(h21, g, top_third)
        _, e_control, h = econtrol_step(e_control, h, g, top_third, eta=0.1)
    torch.testing.assert_close(sent / 400, g, rtol=0, atol=0.05)
    torch.testing.assert_close(h21, g)
    torch.testing.assert_close(h, g, rtol=0, atol=0.2)
