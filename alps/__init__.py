"""What Cray's commands do: reservations, fan-out to nodes, node states."""
