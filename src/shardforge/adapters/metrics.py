"""Prometheus text at `monitoring.metrics_port`: the node's own counters, read when scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from shardforge import __version__
from shardforge.errors import NetworkError
from shardforge.telemetry import COMPILED, LATENCY_BOUNDS, Histogram, Labelled, Telemetry

StoreMetrics = Callable[[], Mapping[str, Any]]


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip((*LATENCY_BOUNDS, "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((str(bound), float(total)))
    return buckets


def _samples(value: Any) -> tuple[Sequence[str], Iterable[tuple[Sequence[str], float]]]:
    if isinstance(value, Labelled):
        return value.labels, sorted(value.samples.items())
    if isinstance(value, Mapping):
        return ["shard"], [([str(shard)], number) for shard, number in sorted(value.items())]
    return [], [([], value)]


class NodeCollector(Collector):
    """Turns a node's figures into metric families. Counters of groups and store end in `_total`; the rest are gauges.

    A figure whose value is a mapping becomes one sample a shard.
    """

    def __init__(self, telemetry: Telemetry, store: StoreMetrics) -> None:
        self._telemetry = telemetry
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """The families, as Prometheus scrapes them."""
        yield from self._sessions()
        for name, value in sorted(self._store().items()):
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            labels, samples = _samples(value)
            metric = family(f"shardforge_{name}", name.replace("_", " "), labels=labels)
            for values, number in samples:
                metric.add_metric(values, float(number))
            yield metric

    def _sessions(self) -> Iterator[Metric]:
        telemetry = self._telemetry
        build = GaugeMetricFamily(
            "shardforge_build_info", "always 1; the labels tell", labels=["version", "compiled"]
        )
        build.add_metric([__version__, str(COMPILED).lower()], 1)
        yield build
        yield GaugeMetricFamily(
            "shardforge_connections", "client sessions now", value=telemetry.connections
        )
        for name in (
            "connections_total", "connections_refused_total", "bytes_received_total", "bytes_sent_total",
            "plan_cache_hits_total", "plan_cache_misses_total", "transactions_committed_total",
            "transactions_rolled_back_total",
        ):  # fmt: skip
            yield CounterMetricFamily(
                f"shardforge_{name}", name.replace("_", " "), value=getattr(telemetry, name)
            )
        seconds = HistogramMetricFamily(
            "shardforge_statement_seconds", "statement latency", labels=["kind"]
        )
        done = CounterMetricFamily(
            "shardforge_statements_total", "statements", labels=["kind", "outcome"]
        )
        for kind, histogram in sorted(telemetry.statement_seconds.items()):
            seconds.add_metric([kind], _buckets(histogram), histogram.total)
            done.add_metric([kind, "ok"], histogram.count)
        for (kind, sqlstate), count in sorted(telemetry.statement_errors.items()):
            done.add_metric([kind, sqlstate], count)
        yield seconds
        yield done


def _registry(telemetry: Telemetry, store: StoreMetrics) -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(NodeCollector(telemetry, store))
    return registry


def metrics_text(telemetry: Telemetry, store: StoreMetrics) -> str:
    """The node's figures as Prometheus reads them."""
    return generate_latest(_registry(telemetry, store)).decode()


def serve_metrics(
    host: str, port: int, telemetry: Telemetry, store: StoreMetrics
) -> tuple[WSGIServer, Thread]:
    """Serve http://host:port/metrics on a thread. Raises NetworkError when the port is in use."""
    registry = _registry(telemetry, store)
    try:
        return start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise NetworkError(
            f"cannot listen on {host}:{port} for metrics: {error.strerror or error}",
            "08006",
            hint="Choose another port with --metrics-port, or 0 for none.",
        ) from error
