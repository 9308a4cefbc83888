"""What later test reports say of a release: on which GPUs its tests ran, with which driver, and how they ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from factory import strict
from factory.errors import IntegrityFailure

UNTESTED = "untested on GPU"
MOST = 20  # models of one release
_DATE = 10  # characters of a time: its date
_SHOWN = 3  # names of failed tests
_MOST_TESTS = 10_000


@dataclass(frozen=True)
class GpuTest:
    """The newest tests of a release on one model of GPU. tested: when, ISO 8601, UTC. failed: names of tests.

    site: the cluster, if it may be known; '' otherwise.
    """

    model: str
    driver: str
    tested: str
    passed: int
    failed: tuple[str, ...] = ()
    site: str = ""

    def in_words(self) -> str:
        """Return ``tested on NVIDIA H100, driver 550.54.15, 2026-11-28 (3 passed)``, or ``failed on …``."""
        driver = f", driver {self.driver}" if self.driver else ""
        where = f" at {self.site}" if self.site else ""
        what = f"{'failed' if self.failed else 'tested'} on {self.model}{driver}{where}, {self.tested[:_DATE]}"
        if not self.failed:
            return f"{what} ({self.passed} passed)"
        more = f" and {len(self.failed) - _SHOWN} more" if len(self.failed) > _SHOWN else ""
        return f"{what} ({', '.join(self.failed[:_SHOWN])}{more}; {self.passed} passed)"

    def to_json(self) -> dict[str, Any]:
        """Return it as in the catalog and in `show --json`."""
        return {
            "model": self.model,
            "driver": self.driver,
            "tested": self.tested,
            "passed": self.passed,
            "failed": list(self.failed),
            **({"site": self.site} if self.site else {}),
        }

    @classmethod
    def from_json(cls, value: object) -> GpuTest:
        """Parse what ``to_json`` wrote. Raises Malformed."""
        found = strict.mapping(value)
        return cls(
            model=strict.text(strict.member(found, "model")),
            driver=strict.text(strict.member(found, "driver")),
            tested=strict.text(strict.member(found, "tested")),
            passed=strict.integer(strict.member(found, "passed"), 0, _MOST_TESTS),
            failed=tuple(strict.text(name) for name in strict.array(strict.member(found, "failed"), _MOST_TESTS)),
            site=strict.text(found.get("site", "")),
        )


def newest(tests: Iterable[GpuTest]) -> tuple[GpuTest, ...]:
    """Return the newest one of each model, sorted by model."""
    found: dict[str, GpuTest] = {}
    for test in sorted(tests, key=lambda one: one.tested):
        found[test.model] = test
    return tuple(found[model] for model in sorted(found)[:MOST])


def summary(tests: Iterable[GpuTest]) -> str:
    """Return all of them in words, passed ones first; ``untested on GPU`` if there are none."""
    ordered = sorted(tests, key=lambda one: (bool(one.failed), one.model))
    return "; ".join(test.in_words() for test in ordered) or UNTESTED


def from_json(value: object) -> tuple[GpuTest, ...]:
    """Parse a release's tests in the catalog; what is wrong there counts as untested."""
    try:
        return newest(GpuTest.from_json(one) for one in strict.array(value, MOST)) if value is not None else ()
    except IntegrityFailure:
        return ()
