"""Which version this is. setup.cfg reads it here: asking the installed distribution takes as long as many a command."""

from __future__ import annotations

VERSION = "0.1.0"
