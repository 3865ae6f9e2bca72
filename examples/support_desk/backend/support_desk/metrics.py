"""What Prometheus reads."""

from prometheus_client import Counter, Gauge, Histogram, Info

REQUESTS = Counter("support_desk_http_requests_total", "Requests answered", ["method", "route", "status"])
SECONDS = Histogram(
    "support_desk_http_request_seconds",
    "Time to answer a request",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
ANSWERS = Counter("support_desk_answers_total", "Answers by where they came from", ["origin"])
WEBSOCKETS = Gauge("support_desk_websockets", "Open WebSockets")
BUILD = Info("support_desk_build", "What is running")
