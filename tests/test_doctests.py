"""The examples in the docstrings of the program give what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import anofield

pytestmark = pytest.mark.slow

ROOT = Path(anofield.__file__).parent


def module_of(path: Path) -> str:
    """Dotted name of a module of the package."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def examples(path: Path) -> list[str]:
    """First lines of the examples that can run; those that need a trained model say that they are skipped."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if ">>> " in line and "doctest: +SKIP" not in line]


MODULES = sorted(module_of(path) for path in ROOT.rglob("*.py") if examples(path))


def test_there_are_examples() -> None:
    assert len(MODULES) > 10


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name: str) -> None:
    found = doctest.testmod(import_module(name))
    assert found.attempted > 0 and found.failed == 0
