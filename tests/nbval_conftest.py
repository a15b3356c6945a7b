"""For the notebooks' end-to-end test: after a failed cell, the rest of its notebook is moot."""

import pytest

failed = {}


def pytest_runtest_makereport(item, call):
    if call.excinfo is not None:
        failed.setdefault(item.parent.name, item.name)


def pytest_runtest_setup(item):
    if item.parent.name in failed:
        pytest.fail(f"not run: {failed[item.parent.name]} failed before", pytrace=False)
