# `make venv` installs what everybody needs; on Debian 12, `make setup`, as root, installs the rest.

# The system's Python, since programs of the virtual environment also run on xcsim's nodes and as other users.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV := .venv
BIN := $(VENV)/bin
CACHE := .cache
SSHD := $(CACHE)/sshd
UDI_RUN := $(CACHE)/udi-run
MPICH := $(CACHE)/mpich
SPANK := $(CACHE)/slurm
PACKAGES := python3 python3-venv apache2-utils busybox-static charliecloud-runtime db5.3-util debian-archive-keyring \
            bash-completion debootstrap docker-registry docker.io dpkg-dev e2fsprogs fdisk file fish gcc groff iproute2 ksh \
            libc6-dev libmpich-dev libpython3-dev libslurm-dev logrotate make man-db mandoc mpich munge musl-tools \
            openssh-client openssh-server openssl patch patchelf podman procps prometheus qemu-utils rpm rsync shellcheck \
            skopeo slurm-client slurm-wlm-basic-plugins slurmctld \
            slurmd squashfs-tools squashfs-tools-ng strace sudo systemd tinyproxy umoci util-linux xinetd zsh
# What `make pynamic` and `make bench` compare to, too; the tests do not need it.
PEERS := charliecloud-builders sshfs
# What `make test-docs` opens pages with; both are of one source package, so they understand each other.
BROWSER := chromium chromium-driver
# What `make test-recipes` runs a workflow with.
WORKFLOWS := snakemake

.PHONY: help venv check test-fast format setup packages programs sshd udi-run spank mpich demo demo-slurm bundle rpm docs links soak \
        test nightly test-docs test-faults test-install test-metrics test-old-squashfs test-recipes test-upgrade bench pynamic compiled constraints \
        clean root
.NOTPARALLEL:

help: ## show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.installed ## create .venv with the package and its tests, in tested versions; needs Python 3.11 and no root

check: venv ## ruff and mypy --strict; needs no root
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-fast: venv ## run the tests that need no root
	$(BIN)/python -m pytest tests/unit

format: venv ## let ruff fix and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: packages venv programs ## install Debian packages, the virtual environment and the static programs (root)

packages: $(CACHE)/packages ## install the Debian packages that the tests with nodes and the gateway need (root)

programs: sshd udi-run spank ## build the static programs that run inside images, and the SPANK plugin (root)

udi-run: $(UDI_RUN)/udi-run ## build udi-run, which runs programs inside an image; needs musl-gcc and no root

spank: $(SPANK)/udi.so ## build the SPANK plugin for the Slurm of this machine; needs its headers and no root

sshd: $(SSHD)/bin ## build the static private sshd from Debian's source package, once (root)

mpich: $(MPICH)/lib/libmpich.so.12 ## build an MPICH that tests swap for that of an image, from Debian's source package, once (root)

bundle: programs ## pack dist/shifter-xc-VERSION-MACHINE.tar.gz, from which hosts are installed with no network and no compiler
	packaging/bundle.sh $(PYTHON) $(CACHE) dist

rpm: bundle ## build the RPM packages from the bundle, in dist; CONFIG=FILE is the udi.toml of the site that they are for
	packaging/rpm.sh dist $(CONFIG)

docs: venv ## make HTML of docs and the man pages in build/html; needs no root
	rm -rf $(CACHE)/html build/html
	mkdir -p $(CACHE)/html
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs $(CACHE)/html build/html

links: venv ## ask for every link of the pages that leads elsewhere; needs a way to the web and no root
	rm -rf $(CACHE)/html $(CACHE)/links
	mkdir -p $(CACHE)/html
	$(BIN)/sphinx-build --quiet --keep-going -b linkcheck -c docs $(CACHE)/html $(CACHE)/links

demo-slurm: root setup ## bring up a real Slurm of two nodes and run jobs inside a Debian image on it (root)
	$(BIN)/python -m slurmsim.demo

demo: root setup ## bring up a one-machine Cray XC and run jobs inside a Debian image on it (root)
	$(BIN)/python -m xcsim.demo

test: root setup mpich compiled ## run the tests that each change must pass, in four processes (root)
	$(BIN)/python -m pytest -n 4

test-faults: root setup mpich ## kill and fail everything at every point, not only at the seeded ones, and run the long tests (root)
	UDI_ALL_FAULTS=1 $(BIN)/python -m pytest -rP tests/node/test_interrupted.py tests/node/test_together.py
	UDI_ALL_FAULTS=1 $(BIN)/python -m pytest tests/slurm/test_kills.py tests/slurm/test_failures.py tests/slurm/test_components.py \
		tests/slurm/test_scripts_outside.py tests/slurm/test_workers_elsewhere.py tests/slurm/test_large_elsewhere.py \
		tests/slurm/test_munge_key.py
	UDI_ALL_FAULTS=1 $(BIN)/python -m pytest tests/system/test_operations.py tests/system/test_why.py
	UDI_ALL_FAULTS=1 $(BIN)/python -m pytest -m long

nightly: test test-faults test-upgrade test-metrics test-old-squashfs test-docs test-recipes test-install soak ## run every test that there is, one kind after the other; takes hours (root)

test-upgrade: root setup bundle ## replace our software by other versions, older ones of the history too, and remove it, while jobs run (root)
	$(BIN)/python -m pytest tests/system/software_replaced.py
	$(BIN)/python -m pytest tests/upgrade/by_bundle.py tests/upgrade/older.py tests/upgrade/on_slurm.py

test-metrics: root setup ## run every query of docs/metrics in a real Prometheus, on the figures of a run on xcsim (root)
	$(BIN)/python -m pytest tests/metrics/in_prometheus.py tests/metrics/gateway_waits.py

test-old-squashfs: root setup $(CACHE)/old-squashfs/unsquashfs ## read images by the unsquashfs of an old Debian release (root)
	$(BIN)/python -m pytest tests/old_squashfs/read_by_old.py tests/old_squashfs/read_large_by_old.py

soak: root setup ## requests to a gateway, then whole machines under random jobs, faults and kills for an hour (root); MINUTES=5
	$(BIN)/python -m tests.soak.gateway
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60)

test-install: root setup bundle rpm ## walk through docs/install.md and docs/install-slurm.md on fresh Debian systems that have no network, from the bundle and RPMs (root)
	$(BIN)/python -m pytest tests/install/walk.py tests/install/slurm_walk.py tests/install/old_host.py tests/install/packages.py

test-docs: root docs $(CACHE)/browser ## open every page of build/html in a browser, follow each link, and search (root)
	$(BIN)/python -m pytest tests/html/in_browser.py

test-recipes: root setup $(CACHE)/workflow-packages ## type the commands of README.md and of the pages, and compare what is seen (root)
	UDI_ALL_RECIPES=1 $(BIN)/python -m pytest tests/system/test_users_page.py tests/system/cray_mpi.py tests/system/typed_pages.py \
		tests/system/typed_terminals.py tests/system/typed_commands.py tests/system/workflow_status.py
	UDI_ALL_RECIPES=1 $(BIN)/python -m pytest tests/slurm/test_users_page.py tests/slurm/typed_lines.py

bench: root setup $(CACHE)/pynamic-packages ## print the figures that the README quotes (root)
	$(BIN)/python -m benchmarks.setup
	$(BIN)/python -m benchmarks.setup --cold
	$(BIN)/python -m benchmarks.shared_root
	$(BIN)/python -m benchmarks.anywhere
	$(BIN)/python -m benchmarks.ssh
	$(BIN)/python -m benchmarks.udi_run
	$(BIN)/python -m benchmarks.convert
	$(BIN)/python -m benchmarks.entries
	$(BIN)/python -m benchmarks.submit
	$(BIN)/python -m benchmarks.fanout
	$(BIN)/python -m benchmarks.slurm

pynamic: root setup $(CACHE)/pynamic-packages ## measure how fast very many libraries start, by where they are (root); SIZE=paper
	$(BIN)/python -m benchmarks.pynamic --size $(or $(SIZE),default) --output $(CACHE)/pynamic

# Tests start thousands of our programs, as accounts that may not write beside the sources or where PYTHONDONTWRITEBYTECODE
# is set, and each would compile anew what it imports; each process of tests would rewrite the assertions of all tests.
compiled: venv ## compile our packages and the tests, as pip does for an installation; needs no root
	find . -path './.*' -prune -o -path ./build -prune -o -name '*.py' -print | $(BIN)/python -m compileall -q -i -
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --collect-only -q tests/unit >/dev/null & \
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --collect-only -q --ignore=tests/unit >/dev/null; wait

constraints: ## renew constraints.txt with the newest versions that setup.cfg allows; make test must pass afterwards
	rm -rf $(CACHE)/constraints
	$(PYTHON) -m venv $(CACHE)/constraints
	$(CACHE)/constraints/bin/pip install --quiet --disable-pip-version-check --editable '.[test,docs]'
	{ head -n 1 constraints.txt; $(CACHE)/constraints/bin/pip freeze --exclude-editable; } > $(CACHE)/constraints.txt
	mv $(CACHE)/constraints.txt constraints.txt
	rm -rf $(CACHE)/constraints

clean: ## remove the virtual environment, caches and what was built
	rm -rf $(VENV) $(CACHE) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info

root:
	@test "$$(id -u)" = 0 || { echo "make: this needs root, because it makes namespaces, mounts and loop devices; try sudo make" >&2; exit 1; }

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt udi/version.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is not Python 3.11 or newer; set PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "make: $(PYTHON) has no ensurepip, which virtual environments need; on Debian install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,docs]'
	touch $@

$(CACHE)/packages: Makefile
	@test "$$(id -u)" = 0 || { echo "make: installing Debian packages needs root; try sudo make setup" >&2; exit 1; }
	mkdir -p $(CACHE)
	missing=$$(for name in $(PACKAGES); do dpkg-query -W -f '$${Status}' $$name 2>/dev/null | grep -q 'ok installed' || echo $$name; done); \
	test -z "$$missing" || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; }
	touch $@

$(CACHE)/pynamic-packages: | $(CACHE)/packages
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PEERS)
	touch $@

$(CACHE)/workflow-packages: Makefile
	mkdir -p $(CACHE)
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(WORKFLOWS)
	touch $@

$(CACHE)/browser: Makefile
	mkdir -p $(CACHE)
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(BROWSER)
	touch $@

$(SSHD)/bin: sshd/build.sh sshd/fetch.sh sshd/job-only.patch sshd/localoptions.h | $(CACHE)/packages
	sshd/build.sh $(SSHD)

$(MPICH)/lib/libmpich.so.12: tests/mpich/build.sh | $(CACHE)/packages
	tests/mpich/build.sh $(MPICH)

$(CACHE)/old-squashfs/unsquashfs: tests/old_squashfs/fetch.sh | $(CACHE)/packages
	tests/old_squashfs/fetch.sh $(CACHE)/old-squashfs

$(UDI_RUN)/udi-run: udirun/build.sh $(wildcard udirun/*.[ch]) udi/version.py
	@command -v musl-gcc >/dev/null || { echo "make: udi-run needs musl-gcc; on Debian install musl-tools" >&2; exit 1; }
	udirun/build.sh $(UDI_RUN)

$(SPANK)/udi.so: slurm/build.sh $(wildcard slurm/*.c)
	@test -e /usr/include/slurm/spank.h || { echo "make: the SPANK plugin needs Slurm's headers; on Debian install libslurm-dev" >&2; exit 1; }
	slurm/build.sh $(SPANK)
