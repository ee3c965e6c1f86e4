"""What axe-core finds in each tab, light and dark, wide and narrow, empty and filled."""

from __future__ import annotations

import pytest

from tests.ui.conftest import NARROW, WIDE
from tests.ui.processes import ROOT

AXE = ROOT / "artifacts" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
TABS = ("find", "label", "batch", "catalog", "report")
RUN = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"], iframes: false });
  if (found.passes.length < 10) throw new Error(`axe looked at ${found.passes.length} rules only`);
  return found.violations.filter((one) => ["serious", "critical"].includes(one.impact))
    .flatMap((one) => one.nodes.map((node) => [one.id, node.html.slice(0, 300), node.failureSummary]));
}"""

pytestmark = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not there; `make axe` fetches it.")


def violations(page):
    """Serious and critical ones: rule, element, what is wrong. Nothing of Gradio's own is exempt."""
    return page.evaluate(RUN)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_no_tab_has_a_serious_violation(visit, address, size, scheme):
    page = visit(address, size, color_scheme=scheme, reduced_motion="reduce")
    page.add_script_tag(path=AXE)
    found = {}
    for tab in TABS:
        page.evaluate("name => modiste.openTab(name)", tab)
        page.wait_for_function("name => document.body.dataset.tab === name", arg=tab)
        page.wait_for_timeout(300)
        found[tab, "empty"] = violations(page)
    page.evaluate("modiste.search('p00001-1')")
    page.wait_for_selector("#neighbours [data-search]")
    found["find", "filled"] = violations(page)
    page.evaluate("modiste.openTab('label')")
    page.wait_for_selector("#label-answer .m-head")
    # What has just come may still be fading in.
    page.wait_for_timeout(600)
    found["label", "filled"] = violations(page)
    page.keyboard.press("?")
    found["help", ""] = violations(page)
    assert {place: what for place, what in found.items() if what} == {}
