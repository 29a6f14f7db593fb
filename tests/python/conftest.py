"""For all tests: a property's examples may take as long as they like; the machine is shared."""

from __future__ import annotations

import os

# Before torch is imported, and for all processes that are started: sums have other bits with other
# numbers of threads, and threads of a test that are replicas do not all follow set_num_threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
