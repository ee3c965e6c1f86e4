"""Batch, in a real browser: many photos in, a table and files out."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import pytest

from service.client import Client
from tests.ui.conftest import NARROW

_ROWS = "#batch-table tbody tr"
_DONE = "#batch-progress [data-state=done]"
_MIB = 2**20


@pytest.fixture
def photos(shop):
    """Twelve sample photos."""
    return sorted((shop.catalog / "images").glob("*.jpg"))[:12]


@pytest.fixture
def open_batch(visit, address):
    """Opens the tab in a browser of its own."""

    def open_tab(*size, **options):
        page = visit(address, *size, **options)
        page.get_by_role("tab", name="Batch").click()
        return page

    return open_tab


def _send(page, files, state="done"):
    page.set_input_files("#batch-send [data-input=files]", files)
    page.wait_for_selector(f"#batch-progress [data-state={state}]")


def _names(page):
    return page.locator(".m-batch-name").all_inner_texts()


def _wait_for(page, names):
    page.wait_for_function(
        "names => JSON.stringify([...document.querySelectorAll('.m-batch-name')].map(e => e.textContent)) === names",
        arg=json.dumps(names, separators=(",", ":"), ensure_ascii=False),
    )


def _saved(page, kind):
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Save {kind}").click()
    return download.value.path().read_bytes()


def test_photos_get_a_table_that_sorts_filters_and_is_saved(open_batch, photos, service, shoot, tmp_path):
    # A name that a page must show and not run, and that a spreadsheet must not run either.
    hostile, broken = tmp_path / "=1+1<img src=x onerror=alert(1)>.jpg", tmp_path / "broken.jpg"
    hostile.write_bytes(photos[0].read_bytes())
    broken.write_bytes(photos[0].read_bytes()[:2000])
    sent = [*photos, broken, hostile]
    page = open_batch()
    _send(page, sent)
    assert "14 of 14 photos" in page.inner_text("#batch-progress")
    assert "1 failure" in page.inner_text("#batch-progress")
    _wait_for(page, [path.name for path in sent])

    with Client(service) as client:
        known = client.classify(*sent, top=1, evidence=0).photos
    for row, photo in zip(page.locator(_ROWS).all(), known, strict=True):
        if photo.error:
            assert row.locator(".m-batch-remark").inner_text() == photo.error
        for one in photo.predictions:
            wanted = ", ".join(one.predicted) or "none of these"
            assert row.locator(f"[data-target={one.target}] .m-batch-label").inner_text() == wanted
    shown = page.locator(f"{_ROWS} img").evaluate_all("images => images[0].complete && images[0].naturalWidth > 0")
    assert shown
    shoot(page)

    rows = list(csv.DictReader(io.StringIO(_saved(page, "CSV").decode("utf-8-sig"), newline="")))
    objects = json.loads(_saved(page, "JSON"))["photos"]
    assert (
        [row["photo"].removeprefix("'") for row in rows] == [one["photo"] for one in objects] == [p.name for p in sent]
    )
    assert rows[-1]["photo"].startswith("'=1+1")
    for row, one, photo in zip(rows, objects, known, strict=True):
        assert row["error"] == (one["error"] or "") == (photo.error or "")
        for mine, theirs in zip(one["predictions"], photo.predictions, strict=True):
            assert mine["predicted"] == theirs.predicted
            assert mine["probability"] == pytest.approx(theirs.labels[0].probability, abs=1e-3)
            assert row[mine["target"]] == "|".join(theirs.predicted)
            assert float(row[f"{mine['target']}_probability"]) == pytest.approx(mine["probability"], abs=1e-4)

    page.click("[data-sort=name]")
    ordered = sorted(path.name for path in sent)
    _wait_for(page, ordered)
    page.click("[data-sort=name]")
    _wait_for(page, ordered[::-1])
    page.get_by_label("Failures").click()
    _wait_for(page, ["broken.jpg"])
    page.get_by_label("All", exact=True).click()
    page.get_by_placeholder("Name, label").fill("onerror")
    _wait_for(page, [hostile.name])
    page.get_by_placeholder("Name, label").fill("nothing is called so")
    page.wait_for_selector("#batch-table .m-hint")

    # Another head, with the same photos.
    page.locator("#tab-batch").get_by_label("Head").click()
    page.get_by_role("option", name="kNN").click()
    page.get_by_role("button", name="Label again").click()
    _wait_for(page, [path.name for path in sent])
    page.wait_for_selector(_DONE)
    with Client(service) as client:
        answered = client.classify(photos[3], head="knn", top=1, evidence=0).photos[0].predictions[0]
    cell = page.locator(_ROWS).nth(3).locator(f"[data-target={answered.target}] .m-batch-label")
    assert cell.inner_text() == (", ".join(answered.predicted) or "none of these")


def test_a_zip_with_junk_and_a_bomb(open_batch, photos, shoot, tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for photo in photos[:3]:
            file.write(photo, f"folder/{photo.name}")
        file.writestr("__MACOSX/folder/._a.jpg", b"x")
        for place in range(5):
            file.writestr(f"notes{place}.txt", "hello")
        file.writestr("bomb.jpg", photos[0].read_bytes() + bytes(64 * _MIB))
        file.writestr("../../text.jpg", "no photo")
    page = open_batch(NARROW, color_scheme="dark")
    _send(page, [path])
    _wait_for(page, [*(f"folder/{photo.name}" for photo in photos[:3]), "bomb.jpg", "../../text.jpg"])
    remarks = page.locator(".m-batch-remark").all_inner_texts()
    assert "grows more than 100 times" in remarks[3]
    assert "no JPEG, PNG or WEBP" in remarks[4]
    page.click("#batch-progress summary")
    assert "6 files skipped" in page.inner_text("#batch-progress")
    assert "No photos: 5 (notes0.txt, notes1.txt, notes2.txt, …)" in page.inner_text("#batch-progress")
    wide = page.evaluate(
        "document.querySelector('#tab-batch').scrollWidth - document.querySelector('#tab-batch').clientWidth"
    )
    assert wide <= 0
    shoot(page)

    # A photo out of the zip is searched from, as one that was sent.
    page.locator(".m-batch-thumb").nth(1).click()
    page.wait_for_function("() => modiste.tab === 'find' && modiste.panel.value.token")
    assert page.evaluate("modiste.panel.value.name") == f"folder/{photos[1].name}"
    content = page.request.get(f"{page.url.split('/?')[0]}/uploads/{page.evaluate('modiste.panel.value.token')}").body()
    assert content == photos[1].read_bytes()


def test_two_browsers_at_a_time_one_of_which_cancels_and_goes_on(open_batch, photos, tmp_path):
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as file:
        for place in range(600):
            file.write(photos[place % 12], f"{place:03}.jpg")
    page, other = open_batch(), open_batch()
    _send(page, [path], "running")
    _send(other, photos[:2])
    _wait_for(other, [photo.name for photo in photos[:2]])
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("[data-state=cancelled]")
    done = page.inner_text("#batch-progress strong")
    assert done.endswith(" of 600")
    assert 0 < int(done.split()[0]) < 600
    rows = list(csv.DictReader(io.StringIO(_saved(page, "CSV").decode("utf-8-sig"), newline="")))
    assert sum(row["error"].startswith("It was not asked") for row in rows) == 600 - int(done.split()[0])
    page.get_by_role("button", name="Go on").click()
    page.wait_for_selector(_DONE, timeout=60_000)
    assert page.inner_text("#batch-progress strong") == "600 of 600"
    page.click("[data-page='11']")
    _wait_for(page, [f"{place:03}.jpg" for place in range(550, 600)])
    assert _names(other) == [photo.name for photo in photos[:2]]
