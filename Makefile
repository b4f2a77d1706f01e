# Everything a fresh Debian 12 machine needs is installed by these targets; none of it lives in anybody's shell history.

PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := python3 python3-venv apache2-utils busybox-static debootstrap debian-archive-keyring \
            docker-registry docker.io e2fsprogs iproute2 munge openssh-client openssh-server openssl procps \
            rsync shellcheck skopeo squashfs-tools squashfs-tools-ng umoci util-linux

.PHONY: help setup demo test test-fast test-faults check format bench clean

help: ## show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.packages $(VENV)/.installed ## install Debian packages and a virtual environment, and nothing else

demo: root setup ## bring up a one-machine Cray XC and run jobs inside a Debian image on it
	$(BIN)/python -m xcsim.demo

test: root setup ## run every test
	$(BIN)/python -m pytest

test-fast: setup ## run the tests that need no root
	$(BIN)/python -m pytest tests/unit

test-faults: root setup ## kill and fail the node software at every point, not only at the seeded ones
	UDI_ALL_FAULTS=1 $(BIN)/python -m pytest tests/node/test_interrupted.py

check: setup ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: root setup ## print the figures that the README quotes
	$(BIN)/python -m benchmarks.setup
	$(BIN)/python -m benchmarks.convert

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

.PHONY: root
root:
	@test "$$(id -u)" = 0 || { echo "make: this needs root, because it makes namespaces, mounts and loop devices; try sudo make" >&2; exit 1; }

$(VENV)/.packages: Makefile
	@test "$$(id -u)" = 0 || { echo "make: installing Debian packages needs root; try sudo make setup" >&2; exit 1; }
	mkdir -p $(VENV)
	dpkg-query -W $(PACKAGES) >/dev/null 2>&1 || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES); }
	touch $@

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/.packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@
