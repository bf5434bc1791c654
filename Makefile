# What a laptop runs and what CI runs. Everything lives in .venv; nothing that is fresh is built again.
PYTHON ?= python3
CAPTURE ?= examples
VENV := .venv
PY := $(VENV)/bin/python
# Live tests wait for a kernel as often as they compute: three at once keep two cores busy.
PYTEST := $(PY) -m pytest -n 3 --dist loadfile
# cython-lint and auditwheel call helpers that pip puts beside them.
WITH_HELPERS := PATH="$(abspath $(VENV))/bin:$$PATH"
SOURCES := $(shell find src/synfin -name '*.pyx' -o -name '*.pxd' ! -name declared.pxd -o -name '*.h') \
           src/synfin/schema.py src/synfin/states.py tools/declare.py setup.py

.PHONY: help demo demo-live live-truth build test test-slow test-all test-debug test-asan fuzz lint docs agreement examples bench bench-peers bench-live soak guard truth dist lakehouse spark clean

help:
	@echo "make demo [CAPTURE=path]  track the example captures, or your own"
	@echo "make demo-live            a sidecar beside real connections (network namespaces)"
	@echo "make live-truth           gauges and round trips of live runs against the kernel's own (namespaces)"
	@echo "make test                 the tests, at most 5 minutes"
	@echo "make test-all             the whole suite (SYNFIN_CAPTURES=folder adds foreign captures): make test test-slow"
	@echo "make test-debug           make test with Cython's checks of bounds"
	@echo "make test-asan            make test, and damaged captures, with AddressSanitizer and UBSan (gcc)"
	@echo "make bench bench-peers    speed and memory beside a bare loop, and beside other programs"
	@echo "make bench-live           synfin live, tcpdump, argus and softflowd in turns on a veth pair (root)"
	@echo "make soak                 an hour of churn: is memory flat? (root; SOAK_SECONDS=3600)"
	@echo "make guard                instructions for each packet against a stored budget (valgrind)"
	@echo "make lint docs agreement fuzz examples truth dist lakehouse spark clean"

demo: $(VENV)/.built
	@$(VENV)/bin/synfin track "$(CAPTURE)" --head 30

# Two network namespaces, real servers and clients, and synfin live between them; cleans up after itself.
demo-live: $(VENV)/.built
	@$(PY) tools/demo_live.py

# Tens of thousands of real connections in two network namespaces; what is measured goes into docs/live-truth.md.
live-truth: $(VENV)/.built
	PYTHONPATH=tools $(PY) -m live_truth --document docs/live-truth.md $(ARGS)

build: $(VENV)/.built

test: $(VENV)/.tested
	$(PYTEST) -m "not slow"

test-all: test test-slow

# What `make test` leaves out.
test-slow: $(VENV)/.tested $(VENV)/.stores lint
	$(PYTEST) -m slow
	$(PY) tools/render_docs.py --check

# The same tests on other builds, each in a copy of the tree: other compiler settings, other files.
COPY = mkdir -p build/$(1) && tar -c --exclude=./build --exclude=./benchmarks/build --exclude=./.git --exclude=./.venv --exclude='*.so' --exclude='./src/*.c' . | tar -x -C build/$(1)

# With Cython's checks of bounds and of memoryviews.
test-debug:
	@$(call COPY,debug)
	SYNFIN_DEBUG=1 $(MAKE) -C build/debug test

# With gcc's address and undefined-behaviour checks, and after the tests every damaged capture of SYNFIN_CAPTURES. Their
# libraries must be there before Python starts. Python takes each object from malloc, so that a read past the end of a
# small one shows, too. Leaks are looked for in the program itself, not in the tests' own
# processes, which load libraries of others.
ASAN_RUN = env ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \
           LD_PRELOAD="$(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libstdc++.so.6)"
test-asan:
	@$(call COPY,asan)
	SYNFIN_ASAN=1 $(MAKE) -C build/asan test PYTEST='$(ASAN_RUN) $(PYTEST)'
	cd build/asan && $(ASAN_RUN) $(PYTEST) tests/sources/test_real_captures.py tests/captures/test_reading.py
	cd build/asan && $(subst leaks=0,leaks=1,$(ASAN_RUN)) $(PY) -m synfin track examples -o - --format csv > /dev/null

lint: $(VENV)/.linted
	$(VENV)/bin/ruff check src tests tools benchmarks setup.py
	$(WITH_HELPERS) cython-lint src/synfin

# The recipes are answered by DuckDB and Polars, which the test group brings.
docs: $(VENV)/.tested
	$(PY) tools/render_docs.py

# docs/agreement.md from the captures in SYNFIN_CAPTURES (needs tshark and tcptrace).
agreement: $(VENV)/.tested
	PYTHONPATH=tests:tests/kernel:tools $(PY) tests/agreement/write.py docs/agreement.md

# Records the example captures again (network namespaces, needs root).
examples:
	$(PYTHON) tools/record_examples.py

bench: $(VENV)/.built
	$(MAKE) -C benchmarks bench PYTHON="$(abspath $(PY))"

# With nfstream and dpkt in .venv (pip install nfstream dpkt) these run, too.
bench-peers: $(VENV)/.built
	$(MAKE) -C benchmarks bench-peers PYTHON="$(abspath $(PY))"

# Other programs beside `synfin live` on a cable between two network namespaces (Debian: tcpdump, argus-server, softflowd).
bench-live: $(VENV)/.built
	$(MAKE) -C benchmarks bench-live PYTHON="$(abspath $(PY))"

SOAK_SECONDS ?= 3600
soak: $(VENV)/.built
	$(MAKE) -C benchmarks soak PYTHON="$(abspath $(PY))" SOAK_SECONDS=$(SOAK_SECONDS)

guard: $(VENV)/.built
	$(MAKE) -C benchmarks guard PYTHON="$(abspath $(PY))"

truth: $(VENV)/.tested
	$(MAKE) -C benchmarks truth PYTHON="$(abspath $(PY))"

# Random talk without end in sight: other examples in every run.
fuzz: $(VENV)/.tested
	SYNFIN_FUZZ=3000 $(PY) -m pytest tests/property -k test_fuzz

# A source package, and from it one wheel for every Python from 3.11 on, tagged for the oldest C library it runs with.
dist: $(VENV)/.dist
	rm -rf dist
	$(PY) -m build --outdir dist .
	$(WITH_HELPERS) auditwheel repair --wheel-dir dist dist/*-linux_*.whl
	rm dist/*-linux_*.whl
	$(VENV)/bin/abi3audit --strict --summary dist/*.whl
	$(PY) tools/test_wheel.py dist/*.whl

# The lakehouse profile read by deltalake and pyiceberg; `make spark` by Spark (needs a Java runtime).
lakehouse: $(VENV)/.tested
	$(PY) -m pip install -q --group lakehouse
	$(PY) -m pytest tests/lakehouse -m "not spark"

spark: $(VENV)/.tested
	$(PY) -m pip install -q --group spark
	$(PY) -m pytest tests/lakehouse -m spark

$(VENV)/.made:
	@command -v $(PYTHON) >/dev/null || { echo "synfin needs Python 3.11 or newer; install it, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "synfin needs Python 3.11 or newer; this is $$($(PYTHON) -V). Name another: make PYTHON=/path/to/python3"; exit 1; }
	@command -v "$${CC:-cc}" >/dev/null || { echo "synfin needs a C compiler; install one (Debian: apt install gcc) or name it: make CC=/path/to/cc"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { echo "synfin needs Python's headers; install them (Debian: apt install python3-dev)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "synfin needs Python's venv module; install it (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --upgrade "pip>=25.1" "setuptools>=80" "Cython>=3.2,<3.4"
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(PY) -m pip install -q --no-build-isolation -e .
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	$(PY) setup.py -q build_ext --inplace --parallel 2
	@touch $@

$(VENV)/.tested: $(VENV)/.built
	$(PY) -m pip install -q --group test
	@touch $@

# A local S3 server: as large as half of what the other tests need, so `make test` does without.
$(VENV)/.stores: $(VENV)/.tested
	$(PY) -m pip install -q --group stores
	@touch $@

$(VENV)/.linted: $(VENV)/.made pyproject.toml
	$(PY) -m pip install -q --group lint
	@touch $@

$(VENV)/.dist: $(VENV)/.made pyproject.toml
	$(PY) -m pip install -q --group dist
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis benchmarks/build src/*.egg-info
	find src -name '*.so' -delete -o -name '*.c' -delete -o -name declared.pxd -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
