"""Walks through docs/install.md, and packages, on fresh systems without a network: `make test-install`."""
