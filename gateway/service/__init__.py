"""The service: requests, conversions, worker processes, history, replica systems; `udi-gateway`."""
