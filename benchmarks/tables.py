"""Copies the tables of `anofield benchmark` into docs/explanation/benchmark.md, each after the comment with its name.

Usage: python benchmarks/tables.py BENCH. Suites that BENCH does not have keep the table that the page has.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "benchmark.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", type=Path, help="folder of anofield benchmark")
    page = PAGE.read_text()
    bench = parser.parse_args().bench
    for name in re.findall(r"^<!-- ([\w-]+) -->$", page, re.MULTILINE):
        if (bench / f"{name}.md").is_file():
            page = filled(page, name, (bench / f"{name}.md").read_text())
            print(f"{name}: copied")
    PAGE.write_text(page)


def filled(page: str, name: str, table: str) -> str:
    """The page with a table between the comment of its name and the next comment."""
    under = re.sub(r"^## ", "### ", table, flags=re.MULTILINE).strip()
    mark = f"<!-- {name} -->"
    return re.sub(rf"{mark}\n.*?(?=<!-- )", lambda _: f"{mark}\n{under}\n\n", page, count=1, flags=re.DOTALL)


if __name__ == "__main__":
    main()
