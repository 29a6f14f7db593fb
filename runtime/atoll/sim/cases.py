"""The small jobs that are searched through and through."""

from __future__ import annotations

from atoll.sim.states import Case

QUICK = (
    Case(name="nothing", peers=3),
    Case(name="crash", peers=2, crashes=1),
    Case(name="crash-impatient", peers=2, crashes=1, hurries=1),
    Case(name="join", peers=2, joiners=1, crashes=1),
    Case(name="leave", peers=2, leaves=1),
    Case(name="cut", peers=2, cuts=1, prompt=True),
    Case(name="restart", peers=2, restarts=1),
    Case(name="crash-of-three", peers=3, crashes=1, detours=2),
)
"""Some fifteen seconds of CPU in all."""

FULL = (
    *QUICK,
    Case(name="leave-and-crash", peers=2, leaves=1, crashes=1),
    Case(name="cut-late", peers=2, cuts=1),
    Case(name="restart-and-crash", peers=2, restarts=1, crashes=1),
    Case(name="crash-of-three-late", peers=3, crashes=1, detours=3),
    Case(name="crash-of-three-all", peers=3, crashes=1, prompt=True),
)
"""Minutes, and gigabytes of memory for the last one."""
