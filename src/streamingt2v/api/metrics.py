"""Metrics for Prometheus. Job counts are read from the store at each scrape, so they survive restarts."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..jobs.job import STATUSES
from ..jobs.service import JobService


class Metrics:
    """The metrics of one server."""

    def __init__(self, service: JobService):
        self.registry = CollectorRegistry()
        self.registry.register(_Jobs(service))
        buckets = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
        self._answers = Histogram(
            "streamingt2v_http_request_seconds",
            "Until an answer begins.",
            ("method", "route", "status"),
            buckets=buckets,
            registry=self.registry,
        )
        about = "WebSocket sessions and streams."
        self.open = Gauge("streamingt2v_open_connections", about, ("kind",), registry=self.registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record a response."""
        self._answers.labels(method, route, str(status)).observe(seconds)

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Jobs(Collector):
    def __init__(self, service: JobService):
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of jobs and workers."""
        service, counts, totals = self._service, self._service.store.counts(), self._service.store.totals()
        jobs = GaugeMetricFamily("streamingt2v_jobs", "Jobs that are kept.", labels=["status"])
        ended = CounterMetricFamily("streamingt2v_jobs_ended", "Jobs that ended.", labels=["status"])
        for status in STATUSES:
            jobs.add_metric([status], counts.get(status, 0))
            if status not in ("queued", "in_progress"):
                ended.add_metric([status], totals.get(f"jobs_{status}", 0))
        yield jobs
        yield ended
        yield CounterMetricFamily(
            "streamingt2v_jobs_created", "Jobs that were taken in.", value=totals.get("jobs_created", 0)
        )
        yield CounterMetricFamily(
            "streamingt2v_frames", "New frames that were made.", value=totals.get("frames", 0)
        )
        yield GaugeMetricFamily("streamingt2v_queue_limit", "Jobs that may wait.", value=service.limits.queue)
        ready = int(service.supervisor.ready)
        yield GaugeMetricFamily(
            "streamingt2v_ready", "1 when all workers have their model in memory.", value=ready
        )
        restarts = service.supervisor.restarts
        yield CounterMetricFamily(
            "streamingt2v_worker_restarts", "Workers that were started again.", value=restarts
        )
