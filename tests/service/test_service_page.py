"""docs/service.md has every setting, metric, refusal and version floor as the code has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings import Settings
from service.shields import SECURITY_HEADERS
from tests.write_service_page import PAGE, generated, named, updated

REMEDY = "Run `python -m tests.write_service_page` and look at what has changed."


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text("utf-8")


def test_what_is_generated_is_on_the_page(page):
    assert sorted(named(page)) == sorted(generated())
    assert updated(page) == page, f"docs/service.md is not what the code says. {REMEDY}"


def test_a_stale_page_is_noticed_and_mended(page):
    stale = page.replace("Port to listen on", "Door to listen at")
    assert stale != page
    assert updated(stale) == page


def test_no_cell_breaks_its_table():
    for block in generated().values():
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_the_settings_file_of_the_page_can_be_read(page, tmp_path, monkeypatch):
    monkeypatch.delenv("MODISTE_CONFIG", raising=False)
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "modiste.toml").write_text(example)
    settings = Settings.read(tmp_path / "modiste.toml")
    assert settings.catalogs["default"].map == {"item_id": "sku", "image": "photo"}
    assert settings.gallery == Path("/srv/modiste/gallery")


def test_the_page_has_every_reason_and_header(page):
    # Each refusal has a row, by the name that the metric counts it as.
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "service").glob("*.py"))
    reasons = set(re.findall(r'reason="(\w+)"', source)) | {"overloaded", "deadline"}
    rows = re.findall(r"^\| .* \| \d{3}[^|]* \| `(\w+)` \|$", page, re.MULTILINE)
    assert set(rows) == reasons
    assert all(name in page for name in SECURITY_HEADERS)
