"""The page as a whole, in a real browser."""

from __future__ import annotations


def test_the_page_opens_with_its_tabs(visit, address, shoot):
    page = visit(address)
    titles = [tab.inner_text() for tab in page.get_by_role("tab").all()]
    assert titles == ["Find similar", "What is it", "Batch", "Catalog", "Report"]
    shoot(page)
