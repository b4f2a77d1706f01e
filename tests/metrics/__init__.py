"""Metrics in a real Prometheus, for `make test-metrics`."""
