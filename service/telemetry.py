"""Metrics of the service in Prometheus' text format, in a registry of their own."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter as Counted
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from service.engine import Engine

# What a route that does not exist is called: what strangers ask for must not make new series.
UNKNOWN = "unknown"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Seconds. Close together where answers are expected: 1 ms for an item, 10 to 50 ms for a photo, 10 s is the deadline.
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

Reading = Callable[[], "float | Mapping[str, float] | None"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MetricCard:
    """What a metric is.

    Args:
        name: As in the exposition.
        type: `histogram`, `counter` or `gauge`.
        labels: Names of its labels.
        meaning: One sentence, with the unit.
        is_read: Whether it is read at each scrape, and so is there only once `Telemetry.follow` says from where.
    """

    name: str
    type: Literal["histogram", "counter", "gauge"]
    labels: tuple[str, ...]
    meaning: str
    is_read: bool = True


METRICS = (
    MetricCard(
        "modiste_request_seconds",
        "histogram",
        ("route", "method", "status"),
        "Seconds from a request's first byte to its answer's last one; a route is a template, or `unknown`.",
        is_read=False,
    ),
    MetricCard(
        "modiste_stage_seconds",
        "histogram",
        ("stage",),
        "Seconds in one stage of a question: `queue`, `decode`, `encode`, `search`, `predict`, `explain`, `commit`.",
        is_read=False,
    ),
    MetricCard(
        "modiste_rejections_total",
        "counter",
        ("reason",),
        "Requests that were refused: `host`, `origin`, `key`, `scope`, `rate`, `too_large`, `slow`, `buffers`, "
        "`overloaded` or `deadline`.",
        is_read=False,
    ),
    MetricCard("modiste_lane_waiting", "gauge", ("lane",), "Requests that wait for a lane."),
    MetricCard("modiste_lane_busy", "gauge", ("lane",), "Lanes at work."),
    MetricCard("modiste_gallery_version", "gauge", (), "Version of the gallery that answers."),
    MetricCard("modiste_gallery_items", "gauge", (), "Items in it."),
    MetricCard("modiste_unindexed_items", "gauge", (), "Items that the FAISS index does not hold yet."),
    MetricCard(
        "modiste_index_recall_at_10",
        "gauge",
        (),
        "Share of the 10 nearest by exact search that the index finds, 0 to 1, in the last sample; absent before one.",
    ),
    MetricCard("modiste_encoder_load_seconds", "gauge", (), "Seconds that the encoder took to load."),
    MetricCard(
        "modiste_decoder_deaths_total", "counter", (), "Decoding processes that died or were ended over a photo."
    ),
    MetricCard("modiste_jobs", "gauge", ("state",), "Jobs that are remembered."),
    MetricCard("modiste_buffered_bytes", "gauge", (), "Bytes of bodies that requests under way hold."),
    MetricCard("modiste_threads", "gauge", (), "Threads of this process, those of native libraries too."),
)
# What prometheus_client's ProcessCollector adds, on Linux alone.
PROCESS_METRICS = (
    MetricCard("process_resident_memory_bytes", "gauge", (), "Memory of this process, without those that decode."),
    MetricCard("process_virtual_memory_bytes", "gauge", (), "Address space of this process."),
    MetricCard("process_cpu_seconds_total", "counter", (), "Processor time of this process."),
    MetricCard("process_open_fds", "gauge", (), "Files and sockets that it has open."),
    MetricCard("process_max_fds", "gauge", (), "As many it may have open."),
    MetricCard("process_start_time_seconds", "gauge", (), "When it was started, seconds since 1970."),
)
_CARDS = {card.name: card for card in METRICS}


class Telemetry:
    """The metrics of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._requests = self._histogram("modiste_request_seconds")
        self._stages = self._histogram("modiste_stage_seconds")
        card = _CARDS["modiste_rejections_total"]
        self._rejections = Counter(card.name, card.meaning, card.labels, registry=self.registry)
        self._readings = Readings()
        self.registry.register(self._readings)
        ProcessCollector(registry=self.registry)
        self.follow("modiste_threads", threads)

    def follow(self, name: str, read: Reading) -> None:
        """Has a metric read at each scrape, so that nothing must remember to keep it up to date.

        Args:
            name: Of METRICS, one that is read.
            read: Its value; a mapping by the value of its label where it has one; None where there is no value yet.

        Raises:
            ValueError: There is no such metric.
        """
        self._readings.follow(name, read)

    def follow_engine(self, engine: Callable[[], Engine | None]) -> None:
        """Has all that an engine knows read at each scrape; nothing of it is there while there is none."""

        def read(name: str, value: Callable[[Engine], float | Mapping[str, float] | None]) -> None:
            self.follow(name, lambda: None if (current := engine()) is None else value(current))

        read("modiste_lane_waiting", lambda current: {lanes.name: lanes.waiting for lanes in current.lanes})
        read("modiste_lane_busy", lambda current: {lanes.name: lanes.busy for lanes in current.lanes})
        read("modiste_gallery_version", lambda current: current.state.serving.gallery.snapshot.version)
        read("modiste_gallery_items", lambda current: len(current.state.serving.gallery))
        read("modiste_unindexed_items", lambda current: current.state.serving.gallery.searcher.tail_rows)
        read("modiste_index_recall_at_10", lambda current: current.state.index_recall)
        read("modiste_encoder_load_seconds", lambda current: current.state.encoder_load_s)
        read("modiste_decoder_deaths_total", lambda current: current.decoders.deaths)
        read("modiste_jobs", lambda current: dict(Counted(job.state for job in current.jobs.all())))

    def observe_request(self, route: str, method: str, *, status: int, seconds: float) -> None:
        """Notes a request that was answered.

        Args:
            route: Its template, such as `/v1/items/{item_id}`.
            method: HTTP method.
            status: HTTP status.
            seconds: How long it took.
        """
        self._requests.labels(route, method if method in _METHODS else UNKNOWN, str(status)).observe(seconds)

    def observe_stages(self, timings_ms: Mapping[str, float]) -> None:
        """Notes the milliseconds of a receipt, by stage; `total` is a request's own."""
        for stage, milliseconds in timings_ms.items():
            if stage != "total":
                self._stages.labels(stage).observe(milliseconds / 1000)

    def reject(self, reason: str) -> None:
        """Counts a request that was refused."""
        self._rejections.labels(reason).inc()

    def scrape(self) -> tuple[bytes, str]:
        """All metrics as text, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def _histogram(self, name: str) -> Histogram:
        card = _CARDS[name]
        return Histogram(name, card.meaning, card.labels, buckets=BUCKETS, registry=self.registry)


class Readings(Collector):
    """Metrics that are read from where they are known, at each scrape."""

    def __init__(self) -> None:
        self._reads: dict[str, Reading] = {}

    def follow(self, name: str, read: Reading) -> None:
        """As Telemetry.follow."""
        card = _CARDS.get(name)
        if card is None or not card.is_read:
            known = ", ".join(card.name for card in METRICS if card.is_read)
            raise ValueError(f"There is no metric {name!r} to be read; there are {known}.")
        self._reads[name] = read

    def collect(self) -> Iterator[Metric]:
        """The metrics; one that cannot be read is left out, and the others are there all the same."""
        for name, read in list(self._reads.items()):
            try:
                family = _family(_CARDS[name], read())
            except Exception:
                log.warning("The metric %s cannot be read.", name, exc_info=True)
            else:
                if family is not None:
                    yield family


def threads() -> float:
    """Threads of this process: all of them on Linux, Python's own elsewhere."""
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names alone, and no objects for them
    except OSError:
        return threading.active_count()


def _family(card: MetricCard, value: float | Mapping[str, float] | None) -> Metric | None:
    if value is None:
        return None
    kind = CounterMetricFamily if card.type == "counter" else GaugeMetricFamily
    family = kind(card.name, card.meaning, labels=card.labels)
    values = {(label,): number for label, number in value.items()} if isinstance(value, Mapping) else {(): value}
    for labels, number in values.items():
        family.add_metric(labels, number)
    return family
