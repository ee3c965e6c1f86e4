"""The catalog in a real browser: its figures, wrong labels, copies and upkeep, on a gallery that tests may change."""

from __future__ import annotations

import re
import shutil
from typing import Any

import pytest

from service.client import Client, NotFoundError
from tests.ui.conftest import NARROW, reload
from tests.ui.processes import page_of, service_of

HOSTILE = "<img src=x onerror=document.title='run'>"
LONG_MS = 90_000
# Somebody quick, who presses a button before its part knows the labels.
CLICK_AT_ONCE = """(id) => {
  const click = () => {
    const button = document.getElementById(id);
    if (button) button.click();
    else requestAnimationFrame(click);
  };
  click();
}"""


@pytest.fixture(scope="module")
def own(shop, tmp_path_factory):
    """A catalog, gallery and service of these tests alone: `.client`, `.address` of the page, `.catalog` its folder."""
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(shop.gallery, folder / "gallery")
    shutil.copytree(shop.catalog, folder / "catalog")
    with (
        service_of("--gallery", folder / "gallery", "--catalog", folder / "catalog") as service,
        Client(service) as client,
        page_of(service) as address,
    ):
        yield type("Own", (), {"client": client, "service": service, "address": address, "catalog": folder / "catalog"})


def look(visit: Any, address: str, part: str, *arguments: Any, **options: Any) -> Any:
    """The page with a part of the catalog shown."""
    return visit(f"{address}/?tab=catalog&part={part}", *arguments, **options)


def test_the_overview_has_the_catalogs_figures_and_lists_the_items_of_a_label(visit, address, service, shoot):
    page = look(visit, address, "overview")
    with Client(service) as client:
        catalog = client.catalog()
        page.wait_for_selector("[data-fact=items]")
        facts = {one.get_attribute("data-fact"): one.inner_text() for one in page.locator("[data-fact]").all()}
        assert facts["items"] == f"{catalog.items}"
        assert facts["products"] == f"{catalog.products}"
        assert facts["failures"] == "0"
        assert facts["encoder"] == "efficientnet-lite0"
        assert page.locator("#catalog-facts tbody tr").count() == len(catalog.heads)
        counts = dict(sorted(catalog.targets["category"].items(), key=lambda pair: (-pair[1], pair[0])))
        shown = [one.inner_text().split("\n") for one in page.locator("#catalog-bars li button").all()]
        assert [name.strip() for name, *_ in shown] == list(counts)
        assert [int(rest[-1].split()[0]) for _, *rest in shown] == list(counts.values())
        label, count = next(iter(counts.items()))
        page.locator("#catalog-bars button").first.click()
        page.wait_for_selector(f"#catalog-items :text('{count} items')")
        assert page.locator("#catalog-items [data-search]").count() == min(24, count)
        page.get_by_label("Only labels with").fill(label[:3].upper())
        found = [name for name in counts if label[:3] in name]
        page.wait_for_selector(f"#catalog-bars :text('{len(found)} of {len(counts)} labels contain')")
        assert page.locator("#catalog-bars li").count() == len(found)
    shoot(page)


@pytest.mark.parametrize("part", ["overview", "map", "relabel", "duplicates", "upkeep"])
def test_each_part_fits_a_phone_in_the_dark(visit, address, part, shoot):
    page = look(visit, address, part, NARROW, color_scheme="dark")
    page.wait_for_selector(
        f"#part-{part} .m-tiles, #part-{part} :is(.m-notice, .m-job, .m-map-empty:not([hidden]), .m-suspects)"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    assert page.locator(".m-part:visible").count() == 1
    shoot(page)


def test_a_wrong_label_is_found_mended_and_the_heads_are_better_for_it(visit, own, shoot):
    counts = own.client.catalog().targets["category"]
    first, second = sorted(counts, key=lambda name: -counts[name])[:2]
    wrong = own.client.items(where={"category": first}, limit=1).items[0].item_id
    own.client.relabel(wrong, {"category": [second]})
    page = look(visit, own.address, "relabel")
    page.evaluate(CLICK_AT_ONCE, "suspects-find")
    row = page.locator(f'#suspects li[data-item="{wrong}"]')
    row.wait_for(timeout=LONG_MS)
    assert row.get_attribute("data-label") == second
    assert row.get_attribute("data-suggested") == first
    assert len(re.findall(r"\d %", row.inner_text())) == 2  # both probabilities
    row.get_by_role("button", name=f"Change {wrong} to {first}").click()
    row.get_by_text(f"Now labelled {first}.").wait_for()
    assert own.client.item(wrong).labels["category"] == [first]
    row.get_by_role("button", name="Undo").click()
    row.get_by_role("button", name=f"Keep {second} for {wrong}").wait_for()
    assert own.client.item(wrong).labels["category"] == [second]
    another = sorted(counts)[-1]
    row.get_by_label(f"Another label for {wrong}").fill(another)
    row.get_by_label(f"Another label for {wrong}").press("Tab")
    row.get_by_text(f"Now labelled {another}.").wait_for()
    assert own.client.item(wrong).labels["category"] == [another]
    own.client.relabel(wrong, {"category": [first]})
    page.locator("#suspects-refit").click()
    change = page.locator("[data-change=linear]")
    change.wait_for(timeout=LONG_MS)
    fitted = next(job for job in own.client.jobs() if job.kind == "fit").result["heads"]
    linear = next(head for head in fitted if head["kind"] == "linear")
    assert f"{100 * linear['before']['accuracy']:.1f} %" in change.inner_text()
    assert f"{100 * linear['validation']['accuracy']:.1f} %" in change.inner_text()
    # The list stays as it was while the gallery changes under it, so that each change can be undone.
    assert row.get_by_role("button", name="Undo").is_visible()
    shoot(page)


def test_a_label_that_is_kept_stays_kept_and_nothing_is_sent(visit, own):
    page = look(visit, own.address, "relabel")
    page.wait_for_selector("#suspects li, #suspects .m-notice")
    rows = page.locator("#suspects li:not(.m-settled)")
    if not rows.count():
        pytest.skip("No suspect is left on this sample.")
    version = own.client.catalog().gallery_version
    item = rows.first.get_attribute("data-item")
    row = page.locator(f'#suspects li[data-item="{item}"]')
    row.locator("[data-do=keep]").click()
    row.get_by_text("Kept as").wait_for()
    reload(page)
    row.get_by_text("Kept as").wait_for()
    assert own.client.catalog().gallery_version == version
    row.get_by_role("button", name="Undo").click()
    row.locator("[data-do=keep]").wait_for()


def test_a_copy_is_found_and_deleted_after_a_question(visit, own, shoot):
    item = own.client.items(limit=1).items[0]
    photo = next((own.catalog / "images").glob(f"{item.item_id}.*")).read_bytes()
    own.client.put_item(HOSTILE, photo, {"category": [HOSTILE]})
    page = look(visit, own.address, "duplicates")
    page.locator("#duplicates-find").click()
    copy = page.locator("#duplicates li[data-item]", has_text=HOSTILE)
    copy.wait_for(timeout=LONG_MS)
    assert copy.locator("xpath=..").locator("> [data-item]").count() == 2
    shoot(page)
    delete = copy.locator("[data-delete]")
    delete.click()
    page.get_by_role("button", name="Leave it").click()
    assert own.client.item(HOSTILE).item_id == HOSTILE
    delete.click()
    assert "brings it back" in page.get_by_role("dialog").inner_text()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    copy.get_by_text("Deleted.").wait_for()
    with pytest.raises(NotFoundError):
        own.client.item(HOSTILE)
    assert page.title() != "run"


def test_labels_with_markup_are_shown_and_not_run(visit, own, shoot):
    item = own.client.items(limit=2).items[1].item_id
    before = own.client.item(item).labels["category"]
    own.client.relabel(item, {"category": [HOSTILE]})
    try:
        page = look(visit, own.address, "overview")
        page.locator("#catalog-bars button", has_text=HOSTILE).click()
        page.wait_for_selector("#catalog-items img")
        assert HOSTILE in page.locator("#catalog-items .m-items-head").inner_text()
        assert page.locator(f"#catalog-items [data-search='{item}']").count() == 1
        assert page.title() != "run"
        shoot(page)
    finally:
        own.client.relabel(item, {"category": before})


def test_a_refresh_takes_in_a_new_photo_and_a_compaction_is_told_in_words(visit, own, shoot):
    page = look(visit, own.address, "upkeep")
    page.locator("#upkeep-source input").wait_for()
    items = own.client.catalog().items
    lines = (own.catalog / "items.csv").read_text("utf-8").splitlines()
    item = lines[1].split(",")[0]
    photo = next((own.catalog / "images").glob(f"{item}.*"))
    shutil.copy(photo, photo.with_name(f"late{photo.suffix}"))
    (own.catalog / "items.csv").write_text("\n".join([*lines, lines[1].replace(item, "late")]) + "\n", "utf-8")
    page.locator("#upkeep-refresh").click()
    done = page.locator(".m-job-done", has_text="Refresh from the catalog")
    done.get_by_text("1 added").wait_for(timeout=LONG_MS)
    assert own.client.catalog().items == items + 1
    page.locator("#upkeep-compact").click()
    page.locator(".m-job-done", has_text="Compact").get_by_text("versions kept").wait_for(timeout=LONG_MS)
    shoot(page)
    page.locator("[data-part=overview]").click()
    page.wait_for_selector(f"[data-fact=items]:text-is('{items + 1}')")


def test_a_job_of_somebody_else_is_shown_and_can_be_cancelled(visit, own):
    job = own.client.submit("fit", targets=["category"], heads=["mlp"], trials=1000, timeout=600)
    page = look(visit, own.address, "upkeep")
    page.locator(f"[data-cancel='{job.id}']").click(timeout=LONG_MS)
    page.locator(".m-job-cancelled", has_text="Fit heads").wait_for(timeout=LONG_MS)
    assert own.client.job(job.id).state == "cancelled"


def test_a_change_of_encoder_wants_a_choice_and_a_confirmation(visit, own):
    page = look(visit, own.address, "upkeep")
    page.locator("#upkeep-migrate").click()
    page.get_by_text("Choose the new encoder first.").wait_for()
    assert not [job for job in own.client.jobs() if job.kind == "migrate"]


def test_a_page_that_only_looks_has_nothing_that_changes_the_gallery(visit, own):
    with page_of(own.service, "--read-only") as address:
        page = look(visit, address, "upkeep")
        page.get_by_text("This page only looks").wait_for()
        assert not page.locator("#upkeep-refresh, #upkeep-fit, #upkeep-compact, #upkeep-migrate").count()
        page.locator("[data-part=relabel]").click()
        page.wait_for_selector("#suspects li, #suspects .m-notice")
        assert not page.locator("[data-do], #suspects input").count()
        assert not page.locator("#suspects-refit:visible, #suspects-find:visible").count()
        page.locator("[data-part=duplicates]").click()
        page.wait_for_selector("#duplicates .m-notice, #duplicates li")
        assert not page.locator("[data-delete], #duplicates-find:visible").count()
        page.locator("[data-part=map]").click()
        page.wait_for_selector("#map")
        assert not page.locator("#map-draw:visible").count()
