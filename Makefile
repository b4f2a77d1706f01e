# Everything a fresh Debian 12 machine needs is installed by these targets; none of it lives in anybody's shell history.

PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
SSHD := .cache/sshd
PACKAGES := python3 python3-venv apache2-utils busybox-static debootstrap debian-archive-keyring docker-registry \
            docker.io dpkg-dev e2fsprogs gcc iproute2 ksh make munge musl-tools openssh-client openssh-server \
            openssl patch procps rsync shellcheck skopeo squashfs-tools squashfs-tools-ng strace systemd tinyproxy \
            umoci util-linux xinetd

.PHONY: help setup sshd demo test test-fast test-faults check format bench clean

help: ## show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.packages $(VENV)/.installed sshd ## install Debian packages, a virtual environment and the private sshd

sshd: $(SSHD)/bin ## build the static private sshd from Debian's source package, once

demo: root setup ## bring up a one-machine Cray XC and run jobs inside a Debian image on it
	$(BIN)/python -m xcsim.demo

test: root setup ## run every test, in two processes
	$(BIN)/python -m pytest -n 2

test-fast: setup ## run the tests that need no root
	$(BIN)/python -m pytest tests/unit

test-faults: root setup ## kill and fail the node software at every point, not only at the seeded ones
	UDI_ALL_FAULTS=1 $(BIN)/python -m pytest -rP tests/node/test_interrupted.py tests/node/test_together.py

check: setup ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: root setup ## print the figures that the README quotes
	$(BIN)/python -m benchmarks.setup
	$(BIN)/python -m benchmarks.setup --cold
	$(BIN)/python -m benchmarks.ssh
	$(BIN)/python -m benchmarks.convert
	$(BIN)/python -m benchmarks.entries

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

.PHONY: root
root:
	@test "$$(id -u)" = 0 || { echo "make: this needs root, because it makes namespaces, mounts and loop devices; try sudo make" >&2; exit 1; }

$(VENV)/.packages: Makefile
	@test "$$(id -u)" = 0 || { echo "make: installing Debian packages needs root; try sudo make setup" >&2; exit 1; }
	mkdir -p $(VENV)
	missing=$$(for name in $(PACKAGES); do dpkg-query -W -f '$${Status}' $$name 2>/dev/null | grep -q 'ok installed' || echo $$name; done); \
	test -z "$$missing" || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; }
	touch $@

$(SSHD)/bin: sshd/build.sh sshd/job-only.patch sshd/localoptions.h | $(VENV)/.packages
	sshd/build.sh $(SSHD)

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/.packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@
