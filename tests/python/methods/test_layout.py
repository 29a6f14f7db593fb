"""A model's parameters in flat vectors on the host, from the host and from an accelerator."""

from __future__ import annotations

import pytest
import torch

from atoll import errors
from atoll.methods.layout import Layout

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def model(device: str) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(4)
    made = torch.nn.Sequential(torch.nn.Linear(300, 70), torch.nn.Linear(70, 11))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made.to(device)


def flat_of(made: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().cpu().reshape(-1) for p in made.parameters()])


@pytest.mark.parametrize("device", DEVICES)
def test_there_and_back(device: str) -> None:
    made = model(device)
    (part,) = Layout(made).fragments
    before = flat_of(made)
    flat = torch.zeros(part.numel)
    part.gather(flat)
    assert torch.equal(flat, before)
    part.scatter(2 * flat)
    assert torch.equal(flat_of(made), 2 * before)
    part.mix(torch.zeros(part.numel), 0.25)
    assert torch.equal(flat_of(made), 0.5 * before)
    assert {name: tuple(t.shape) for name, t in part.named(flat).items()} == {
        name: tuple(p.shape) for name, p in made.named_parameters()
    }


@pytest.mark.parametrize("device", DEVICES)
def test_delta_is_of_the_moment_in_which_it_was_staged(device: str) -> None:
    """Whatever happens to the parameters before somebody waits for it; twice the same is once."""
    made = model(device)
    (part,) = Layout(made).fragments
    pinned = device != "cpu"
    theta = torch.arange(float(part.numel))
    deltas = [torch.empty(part.numel, pin_memory=pinned) for _ in range(3)]
    wanted, waits = [], []
    for delta in deltas:
        wanted.append(theta - flat_of(made))
        waits.append(part.subtract_from(theta, delta))
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.mul_(1.5)
    for wait in (*waits, *waits):
        wait()
    for delta, right in zip(deltas, wanted, strict=True):
        assert torch.equal(delta, right)


@pytest.mark.skipif("cuda" not in DEVICES, reason="needs an accelerator")
def test_staging_does_not_wait_for_the_accelerator() -> None:
    """Behind work that takes long, the call that stages is over long before its copy."""
    made = model("cuda")
    (part,) = Layout(made).fragments
    delta = torch.empty(part.numel, pin_memory=True)
    theta = torch.zeros(part.numel)
    part.subtract_from(theta, delta)()  # warm
    done = torch.cuda.Event()
    torch.cuda._sleep(400_000_000)  # 0.2 s and more, in the training stream
    done.record()
    wait = part.subtract_from(theta, delta)
    assert not done.query()
    wait()
    assert done.query()


def test_what_a_layout_refuses() -> None:
    with pytest.raises(errors.TensorError, match=r"weight is float16.*model\.float\(\)"):
        Layout(torch.nn.Linear(2, 2).half())
    with pytest.raises(errors.MisuseError, match="no trainable parameter"):
        Layout(torch.nn.ReLU())
