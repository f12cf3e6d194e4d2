"""What an instance counts about itself, in Prometheus' terms; served at ``/metrics``."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_DELAY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One instance's metrics, in a registry of their own: two instances in a process do not mix."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self.connections = Gauge(
            "ditochat_connections", "Connected clients", ["transport"], registry=registry
        )
        self.publishes = Counter(
            "ditochat_publishes",
            "Messages stored for clients of this instance",
            ["gateway"],
            registry=registry,
        )
        self.publish_errors = Counter(
            "ditochat_publish_errors",
            "Messages that were refused or could not be stored",
            ["gateway", "code"],
            registry=registry,
        )
        self.append_failures = Counter(
            "ditochat_append_failures", "Calls of the append script that failed; they are tried again",
            registry=registry,
        )  # fmt: skip
        self.deliveries = Counter(
            "ditochat_deliveries", "Messages handed to clients of this instance", registry=registry
        )
        self.delivery_delay = Histogram(
            "ditochat_delivery_delay_seconds",
            "From a message's ts (Redis' clock) until it was handed to the clients (this machine's clock)",
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )
        self.replays = Counter(
            "ditochat_replays", "Clients that came back, by outcome", ["recovered"], registry=registry
        )
        self.replayed_messages = Counter(
            "ditochat_replayed_messages", "Messages replayed to clients that came back", registry=registry
        )
        self.gaps_healed = Counter(
            "ditochat_gaps_healed",
            "Holes in the subscription that were filled from the list",
            registry=registry,
        )
        self.resets = Counter(
            "ditochat_resets", "Times that the log's continuity was lost", registry=registry
        )
        self.slow_clients_closed = Counter(
            "ditochat_slow_clients_closed", "Clients closed with too much waiting for them", registry=registry
        )
        self.foreign_emits = Counter(
            "ditochat_foreign_emits", "Emits of other processes, by what became of them", ["outcome"],
            registry=registry,
        )  # fmt: skip
        self.follower_lag = Gauge(
            "ditochat_follower_lag_messages",
            "Messages in Redis that have not arrived here",
            registry=registry,
        )
        self.redis_up = Gauge("ditochat_redis_up", "1 while Redis answers", registry=registry)
        self.subscribed = Gauge(
            "ditochat_subscribed", "1 while subscribed to the log's channel", registry=registry
        )
        self.tasks = Gauge(
            "ditochat_tasks", "Tasks of the event loop; idle clients have none", registry=registry
        )
        self.event_loop_lag = Histogram(
            "ditochat_event_loop_lag_seconds",
            "How late a timer runs, sampled twice a second",
            buckets=_DELAY_BUCKETS,
            registry=registry,
        )

    def render(self) -> bytes:
        """Return everything in the text format, to be sent as :data:`CONTENT_TYPE`."""
        return generate_latest(self._registry)
