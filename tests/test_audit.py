"""The audit fails where there is a hole, and is not green where it knows nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests import audit

HOLE = {"id": "CVE-1", "fix_versions": ["2.0"]}
KNOWN = {"dependencies": [{"name": "pillow", "version": "8.0.0", "vulns": [HOLE]}]}
# What a registry without a database of holes makes of every package.
UNKNOWN = {"dependencies": [{"name": "pillow", "skip_reason": "Dependency not found and could not be audited"}]}
CLEAN = {
    "dependencies": [{"name": "h11", "version": "0.16.0", "vulns": []}, {"name": "odd", "skip_reason": "not found"}]
}


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
    turns = iter(answers)
    monkeypatch.setattr(audit, "audit", lambda _: next(turns))


@pytest.mark.parametrize("answer", [None, UNKNOWN])
def test_without_a_database_it_is_said_to_be_skipped(monkeypatch, capsys, answer):
    answering(monkeypatch, answer)
    assert audit.main() == 0
    assert "was skipped" in capsys.readouterr().out


def test_without_a_hole_it_says_what_it_has_looked_at(monkeypatch, capsys):
    # Of the page Pillow is left out, which decodes nothing there.
    answering(monkeypatch, KNOWN, CLEAN, KNOWN)
    assert audit.main() == 0
    assert capsys.readouterr().out == (
        "constraints.txt: 0 holes in 1 packages. Not known to pip-audit: odd.\n"
        "ui/constraints.txt: 0 holes in 0 packages. Not known to pip-audit: none.\n"
    )


def test_a_hole_fails(monkeypatch, capsys):
    answering(monkeypatch, KNOWN, KNOWN, CLEAN)
    assert audit.main() == 1
    assert "pillow 8.0.0: CVE-1, mended in 2.0" in capsys.readouterr().out


def test_a_hole_of_the_page_fails(monkeypatch, capsys):
    other = {"dependencies": [{"name": "gradio", "version": "6.0", "vulns": [HOLE]}]}
    answering(monkeypatch, KNOWN, CLEAN, other)
    assert audit.main() == 1
    assert "gradio 6.0: CVE-1" in capsys.readouterr().out


def test_an_audit_that_breaks_off_fails(monkeypatch):
    answering(monkeypatch, KNOWN, None, CLEAN)
    assert audit.main() == 1
