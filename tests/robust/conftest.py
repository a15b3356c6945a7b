"""Generated cases: 500 in ``make test``, always the same, and 10,000 in ``make test-robust``."""

from hypothesis import HealthCheck, settings

from robust.cases import COUNT

LENIENT = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("some", max_examples=48, derandomize=True, **LENIENT)
settings.register_profile("many", max_examples=950, **LENIENT)
settings.load_profile("some")


def pytest_terminal_summary(terminalreporter):
    if COUNT.total():
        each = ", ".join(f"{name} {n}" for name, n in sorted(COUNT.items()))
        terminalreporter.write_line(f"{COUNT.total():,} generated cases: {each}")
