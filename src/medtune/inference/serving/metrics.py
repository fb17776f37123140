"""What Prometheus reads: requests, their times, and tokens."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from medtune.inference.serving.engine import Engine

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters of one server."""

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "medtune_requests", "Requests by path and HTTP status.", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "medtune_request_seconds", "From request to whole answer.", buckets=_SECONDS, registry=self.registry
        )
        self.first_text_seconds = Histogram(
            "medtune_first_text_seconds", "From request to first text.", buckets=_SECONDS, registry=self.registry
        )
        self.prompt_tokens = Counter(
            "medtune_prompt_tokens", "Tokens of accepted prompts.", ["model"], registry=self.registry
        )
        self.registry.register(_EngineLoad(engine))

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self.registry)


class _EngineLoad:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def collect(self) -> Iterator[Metric]:
        load = self.engine.load
        running = GaugeMetricFamily("medtune_requests_running", "Requests answered now.", labels=["model"])
        waiting = GaugeMetricFamily("medtune_requests_waiting", "Requests that wait.", labels=["model"])
        tokens = CounterMetricFamily("medtune_new_tokens", "Tokens written.", labels=["model"])
        for family, values in ((running, load.running), (waiting, load.waiting), (tokens, load.tokens)):
            for model, value in values.items():
                family.add_metric([model], value)
        yield from (running, waiting, tokens)
