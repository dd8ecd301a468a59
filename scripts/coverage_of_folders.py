"""Prints for each folder of ``src/paceline`` what share of its statements ran, by the last run's coverage data."""

from collections import Counter
from pathlib import Path

from coverage import Coverage

SOURCE = Path(__file__).resolve().parent.parent / "src" / "paceline"


def main() -> None:
    coverage = Coverage()
    coverage.load()
    statements, missed = Counter[str](), Counter[str]()
    for path in SOURCE.rglob("*.py"):
        folder = path.relative_to(SOURCE).parts[0]
        _, lines, _, not_run, _ = coverage.analysis2(str(path))
        for row in (folder, "in all"):
            statements[row] += len(lines)
            missed[row] += len(not_run)
    for row in sorted(statements, key=lambda name: (name == "in all", name.endswith(".py"), name)):
        share = 1 - missed[row] / statements[row] if statements[row] else 1.0
        print(f"{row:<22}{statements[row]:>6} statements {share:>6.1%}")


if __name__ == "__main__":
    main()
