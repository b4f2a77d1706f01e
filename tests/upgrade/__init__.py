"""Upgrades and downgrades in the documented ways, while jobs run: `make test-upgrade`."""
