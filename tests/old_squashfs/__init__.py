"""Readers of squashfs of an older release; what they read is `make test-old-squashfs`."""
