"""What the service counts, as Prometheus reads it."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        """Attributes are the metrics; their help texts say what they count."""
        own = self._registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter(
            "daad_requests", "Answered requests.", ["path", "status"], registry=own
        )
        self.request_seconds = Histogram(
            "daad_request_seconds",
            "From a request's head to its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=own,
        )
        self.pictures = Counter(
            "daad_pictures",
            "Pictures by what was found: good, defective, undecided or unusable.",
            ["found"],
            registry=own,
        )
        self.in_progress = Gauge(
            "daad_pictures_in_progress",
            "Pictures decoded, waiting or scored.",
            registry=own,
        )
        self.batch_size = Histogram(
            "daad_batch_size", "Pictures scored at once.", buckets=_SIZES, registry=own
        )
        self.scoring_seconds = Histogram(
            "daad_scoring_seconds", "Time to score a batch.", buckets=_SECONDS, registry=own
        )
        self.loads = Counter(
            "daad_model_loads", "Files loaded, by outcome.", ["outcome"], registry=own
        )
        self.model = Info("daad_model", "The file that answers.", registry=own)

    def batch(self, size: int, seconds: float) -> None:
        """Counts a scored batch."""
        self.batch_size.observe(size)
        self.scoring_seconds.observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
