"""The HTML that `make docs` makes, in a real browser; `make test-docs` runs it.

The browser is Debian's Chromium, and selenium drives it by Debian's chromedriver: both are of one source package, so
they understand each other, and the protocol is the W3C's. Nothing is downloaded.
"""
