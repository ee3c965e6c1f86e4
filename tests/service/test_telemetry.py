from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry import BUCKETS, METRICS, PROCESS_METRICS, Telemetry, threads


def samples(telemetry: Telemetry) -> dict[tuple[str, ...], float]:
    """Values by name and labels, in the order of their names."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(telemetry.scrape()[0].decode())
        for sample in family.samples
    }


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def test_a_request_is_in_its_buckets(telemetry):
    telemetry.observe_request("/v1/items/{item_id}", "GET", status=200, seconds=0.004)
    telemetry.observe_request("/v1/items/{item_id}", "GET", status=200, seconds=0.5)
    found = samples(telemetry)
    of = ("GET", "/v1/items/{item_id}", "200")
    assert found[("modiste_request_seconds_count", *of)] == 2
    assert found[("modiste_request_seconds_sum", *of)] == pytest.approx(0.504)
    # Labels in the order of their names: le, method, route, status. The first is above 2 ms and within 5 ms.
    assert found[("modiste_request_seconds_bucket", "0.002", *of)] == 0
    assert found[("modiste_request_seconds_bucket", "0.005", *of)] == 1
    assert found[("modiste_request_seconds_bucket", "0.5", *of)] == 2


def test_buckets_reach_from_an_item_to_the_deadline():
    assert (BUCKETS[0], BUCKETS[-1]) == (0.001, 10)
    assert list(BUCKETS) == sorted(BUCKETS)


def test_a_method_that_is_none_makes_no_series(telemetry):
    for number in range(50):
        telemetry.observe_request("unknown", f"BREW{number}", status=405, seconds=0.1)
    counts = {key: value for key, value in samples(telemetry).items() if key[0] == "modiste_request_seconds_count"}
    assert counts == {("modiste_request_seconds_count", "unknown", "unknown", "405"): 50}


def test_stages_are_told_apart_and_counted_in_seconds(telemetry):
    telemetry.observe_stages({"decode": 4.0, "encode": 20.0, "total": 25.0})
    telemetry.observe_stages({"decode": 6.0})
    found = samples(telemetry)
    assert found[("modiste_stage_seconds_sum", "decode")] == pytest.approx(0.010)
    assert found[("modiste_stage_seconds_count", "decode")] == 2
    assert found[("modiste_stage_seconds_sum", "encode")] == pytest.approx(0.020)
    assert ("modiste_stage_seconds_sum", "total") not in found


def test_refusals_are_counted_by_reason(telemetry):
    telemetry.reject("rate")
    telemetry.reject("rate")
    telemetry.reject("overloaded")
    found = samples(telemetry)
    assert (found["modiste_rejections_total", "rate"], found["modiste_rejections_total", "overloaded"]) == (2, 1)


def test_a_gauge_is_read_at_each_scrape(telemetry):
    engine = {"version": 7, "waiting": {"encode": 3.0, "explain": 0.0}}
    telemetry.follow("modiste_gallery_version", lambda: engine["version"])
    telemetry.follow("modiste_lane_waiting", lambda: engine["waiting"])
    assert samples(telemetry)[("modiste_gallery_version",)] == 7
    engine["version"] = 8
    engine["waiting"] = {"encode": 1.0}
    found = samples(telemetry)
    assert found[("modiste_gallery_version",)] == 8
    assert found[("modiste_lane_waiting", "encode")] == 1
    assert ("modiste_lane_waiting", "explain") not in found


def test_a_counter_that_is_read_is_a_counter(telemetry):
    telemetry.follow("modiste_decoder_deaths_total", lambda: 2)
    assert "# TYPE modiste_decoder_deaths_total counter" in telemetry.scrape()[0].decode()
    assert samples(telemetry)[("modiste_decoder_deaths_total",)] == 2


def test_what_has_no_value_yet_is_not_there(telemetry):
    telemetry.follow("modiste_index_recall_at_10", lambda: None)
    assert "modiste_index_recall_at_10" not in telemetry.scrape()[0].decode()


def test_one_that_cannot_be_read_takes_no_other_with_it(telemetry, caplog):
    telemetry.follow("modiste_gallery_items", lambda: 1 // 0)
    telemetry.follow("modiste_gallery_version", lambda: 3)
    assert samples(telemetry)[("modiste_gallery_version",)] == 3
    assert "The metric modiste_gallery_items cannot be read." in caplog.text


@pytest.mark.parametrize("name", ["modiste_items", "modiste_request_seconds"])
def test_only_what_is_known_can_be_followed(telemetry, name):
    with pytest.raises(ValueError, match=f"no metric '{name}' to be read; there are modiste_lane_waiting, "):
        telemetry.follow(name, lambda: 1)


def test_a_second_service_in_a_process_has_metrics_of_its_own(telemetry):
    telemetry.reject("rate")
    assert ("modiste_rejections_total", "rate") not in samples(Telemetry())


class GalleryOfNine(SimpleNamespace):
    def __len__(self) -> int:
        return 9


def engine_like() -> SimpleNamespace:
    """What Telemetry reads of an engine."""
    return SimpleNamespace(
        lanes=(SimpleNamespace(name="questions", waiting=3, busy=2), SimpleNamespace(name="edits", waiting=0, busy=1)),
        state=SimpleNamespace(
            serving=SimpleNamespace(
                gallery=GalleryOfNine(snapshot=SimpleNamespace(version=7), searcher=SimpleNamespace(tail_rows=5))
            ),
            index_recall=0.99,
            encoder_load_s=0.5,
        ),
        decoders=SimpleNamespace(deaths=4),
        jobs=SimpleNamespace(all=lambda: [SimpleNamespace(state="done")] * 2 + [SimpleNamespace(state="running")]),
    )


def test_the_engine_is_read_at_each_scrape(telemetry):
    held: list[Any] = [None]
    telemetry.follow_engine(lambda: held[0])
    assert "modiste_gallery" not in telemetry.scrape()[0].decode()
    held[0] = engine_like()
    found = samples(telemetry)
    assert {
        key: value for key, value in found.items() if key[0].startswith("modiste") and key[0] != "modiste_threads"
    } == {
        ("modiste_lane_waiting", "questions"): 3,
        ("modiste_lane_waiting", "edits"): 0,
        ("modiste_lane_busy", "questions"): 2,
        ("modiste_lane_busy", "edits"): 1,
        ("modiste_gallery_version",): 7,
        ("modiste_gallery_items",): 9,
        ("modiste_unindexed_items",): 5,
        ("modiste_index_recall_at_10",): 0.99,
        ("modiste_encoder_load_seconds",): 0.5,
        ("modiste_decoder_deaths_total",): 4,
        ("modiste_jobs", "done"): 2,
        ("modiste_jobs", "running"): 1,
    }


def full() -> Telemetry:
    """One in which every metric has a value."""
    telemetry = Telemetry()
    telemetry.observe_request("/", "GET", status=200, seconds=1)
    telemetry.observe_stages({"decode": 1})
    telemetry.reject("rate")
    for card in METRICS:
        if card.is_read:
            telemetry.follow(card.name, lambda card=card: {"x": 1.0} if card.labels else 1.0)
    return telemetry


def test_the_cards_are_what_is_registered():
    text = full().scrape()[0].decode()
    # The `_created` series say when a counter began; that is of no use to anybody here.
    types = {name: kind for name, kind in re.findall(r"# TYPE (\w+) (\w+)", text) if not name.endswith("_created")}
    wanted = {card.name: card.type for card in METRICS}
    if sys.platform == "linux":
        wanted |= {card.name: card.type for card in PROCESS_METRICS}
    assert types == wanted
    for card in METRICS:
        (labels,) = {
            tuple(sorted(set(re.findall(r'(\w+)="', line)) - {"le"}))
            for line in text.splitlines()
            if re.match(rf"{card.name}(_bucket|_sum|_count)?[{{ ]", line)
        }
        assert labels == tuple(sorted(card.labels)), card.name


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's.")
def test_threads_of_the_process_are_counted():
    import threading

    before, done = threads(), threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert threads() == before + 1
    done.set()
    thread.join()
