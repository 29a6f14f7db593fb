"""For all tests: a property's examples may take as long as they like, the machine is shared; what
has passed is remembered, and --rest runs what is left, whatever has ended the run before."""

from __future__ import annotations

import os

# Before torch is imported, and for all processes that are started: sums have other bits with other
# numbers of threads, and threads of a test that are replicas do not all follow set_num_threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# In CI pytest explains a wrong comparison in full. For two long lists of hashes this takes minutes,
# and a limit of time that passes meanwhile ends the whole run.
os.environ.pop("CI", None)
os.environ.pop("BUILD_NUMBER", None)

import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

_PASSED = "atoll/passed"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rest",
        action="store_true",
        help="only tests that have not passed since the last run without --rest began",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.has_plugin("cacheprovider"):  # somebody may have turned it off
        config.pluginmanager.register(Rest(config), "atoll-rest")


class Rest:
    """Which tests have passed (or were skipped), in pytest's cache. Of several processes only the
    one that hears of all writes it."""

    def __init__(self, config: pytest.Config) -> None:
        assert config.cache is not None
        self._cache = config.cache
        self._rest = bool(config.getoption("rest"))
        self._writes = not hasattr(config, "workerinput")
        self._over: set[str] = set()
        self._failed: set[str] = set()
        self._before = set(self._cache.get(_PASSED, []) if self._rest else [])
        if self._rest and not self._before:
            raise pytest.UsageError("--rest: nothing has passed before; run the tests without it")

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        passed = [item for item in items if item.nodeid in self._before]
        config.hook.pytest_deselected(items=passed)
        items[:] = [item for item in items if item.nodeid not in self._before]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._failed.add(report.nodeid)
        elif report.when == "teardown":
            self._over.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        if self._writes:
            passed = self._before | (self._over - self._failed)
            self._cache.set(_PASSED, sorted(passed))
