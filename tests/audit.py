"""Asks pip-audit for known holes in what constraints.txt and ui/constraints.txt pin; where it cannot, says so.

pip-audit takes a package that the database does not know for one without holes. So it is first asked for a hole that
there is: a database that does not know that one knows nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# What is asked about, and what is left out of it: the page decodes no photo, and Gradio wants Pillow < 13.
FILES: dict[str, tuple[str, ...]] = {"constraints.txt": (), "ui/constraints.txt": ("pillow",)}
# CVE-2022-22817, arbitrary code.
KNOWN_HOLE = "pillow==8.0.0\n"
_PATIENCE_S = 300


def main() -> int:
    """0 where nothing was found or asked, 1 where there is a hole."""
    with tempfile.TemporaryDirectory() as folder:
        sample = Path(folder) / "known.txt"
        sample.write_text(KNOWN_HOLE)
        if not holes(audit(sample)):
            print("pip-audit was skipped: its database cannot be reached from here. tests/test_floors.py has run.")
            return 0
    return max([report(file) for file in FILES])


def report(file: str) -> int:
    """Says what there is in the packages of a file of exact versions; 0 where that is nothing, else 1."""
    answer = audit(ROOT / file)
    if answer is None:
        print("pip-audit broke off before it had asked for everything; run it again.")
        return 1
    packages = [each for each in answer["dependencies"] if each["name"] not in FILES[file]]
    found = holes({"dependencies": packages})
    for line in found:
        print(line)
    unknown = [each["name"] for each in packages if "skip_reason" in each]
    asked = len(packages) - len(unknown)
    print(f"{file}: {len(found)} holes in {asked} packages. Not known to pip-audit: {', '.join(unknown) or 'none'}.")
    return 1 if found else 0


def audit(requirements: Path) -> Any:
    """What pip-audit says of exact versions; None where it does not get as far as an answer."""
    options = [
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
        "--desc",
        "off",
        "--progress-spinner",
        "off",
        "--timeout",
        "5",
    ]
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)
        return json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):
        return None


def holes(answer: Any) -> list[str]:
    """A line a hole."""
    return [
        f"{each['name']} {each['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'none yet'}"
        for each in (answer or {"dependencies": []})["dependencies"]
        for hole in each.get("vulns", [])
    ]


if __name__ == "__main__":
    sys.exit(main())
