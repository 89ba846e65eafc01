# `make demo` and `make test` each do the whole set-up first. Nothing is written outside this checkout but package caches.
PYTHON ?= python3
VENV := .venv
WHEELS := ../shared/wheels
PEERS := .peers
OLDEST := .oldest

bin := $(VENV)/bin
# Without bytecode each process that a test starts would compile for seconds what it imports.
unexport PYTHONDONTWRITEBYTECODE
# What has been installed, each as old as the locks it was installed from.
stamps := $(VENV)/stamps
uv := VIRTUAL_ENV=$(VENV) $(bin)/uv
peers_uv := VIRTUAL_ENV=$(PEERS) $(bin)/uv pip install --quiet
oldest_uv := VIRTUAL_ENV=$(OLDEST) $(bin)/uv pip install --quiet

native_sources := Cargo.toml Cargo.lock pyproject.toml \
	$(shell find native proto -name '*.rs' -o -name '*.toml' -o -name '*.proto')

# The CPU build of torch is a tenth of the registry's for Linux. It is for one Python version, so it may not fit this one.
cpu_wheel = $(wildcard $(WHEELS)/torch-*+cpu-$(shell $(bin)/python -c \
	'import sys; print("cp%d%d" % sys.version_info[:2])')-*_$(shell uname -m).whl)
torch = $(if $(cpu_wheel),-r requirements/torch-cpu.txt --find-links $(WHEELS),-r requirements/torch-registry.txt)
torch_locks := requirements/torch-cpu.txt requirements/torch-registry.txt

# Tests wait a lot, for processes and disks: two at a time take half as long. Each worker starts what its tests share.
# Adapters are tested in workers of their own, which import the frameworks: the other suites need not live with those.
pytest := -m pytest -n 2 --dist worksteal

cargo_test := cargo test --locked
ifneq ($(shell command -v cargo-nextest),)
cargo_test := cargo nextest run --locked && cargo test --locked --doc
endif

# The ring's two threads in every order that the memory model allows. The flag is for all crates, so they are built again,
# those few that the model needs.
cargo_model := RUSTFLAGS='--cfg loom' cargo test --quiet --locked --no-default-features --lib --target-dir target/loom interleavings

.PHONY: help setup build debug demo test test-oldest lint format bench bench-parts bench-trainings lock proto clean missing
.DELETE_ON_ERROR:

help:
	@echo 'setup   everything that test and lint need, in $(VENV)'
	@echo 'build   the release build of the native module, the package installed as editable'
	@echo 'debug   the native module unoptimised, in seconds'
	@echo 'demo    train an agent, log it, read it back (installs only what that needs)'
	@echo 'test    every suite; METRANA_TEST_ALL=1: those that need external programs too'
	@echo '        test-oldest: the adapters with the oldest versions of the frameworks, in $(OLDEST)'
	@echo 'lint    formatters (checking only), linters, types; format: let the formatters write'
	@echo 'bench   metrana beside its goals and its peers, 23 minutes, into docs/benchmarks.md and README.md; shown only:'
	@echo '        BENCH=--quick, to see that it works, BENCH="--only scalar kill"; bench-parts: engine and store on their own'
	@echo '        bench-trainings: what logging adds to trainings of the frameworks, shown only; BENCH as above'
	@echo 'lock    write requirements/*.txt anew; UPGRADE=1: with newer versions'
	@echo 'proto   write metrana/server/_proto anew from proto/'
	@echo 'clean   remove everything that these targets made'

$(stamps)/uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"metrana is developed on Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@mkdir -p $(stamps) && touch $@

$(stamps)/demo: requirements/demo.txt $(stamps)/uv
	$(uv) pip install --require-hashes -r requirements/demo.txt
	@touch $@

$(stamps)/dev: requirements/dev.txt $(torch_locks) $(stamps)/uv
	$(uv) pip install --require-hashes -r requirements/dev.txt $(torch)
	@touch $@

# An editable install: the Python sources are live, only the native module has to be built again.
$(stamps)/build: $(native_sources) $(stamps)/demo $(if $(wildcard metrana/_native*.so),,missing)
	$(uv) pip install --quiet --no-deps --no-build-isolation --no-index \
		--refresh-package metrana --reinstall-package metrana --editable .
	@touch $@

setup: $(stamps)/demo $(stamps)/dev

build: $(stamps)/build

# For a quick look while the Rust sources change; the next `make build` builds the release again.
debug: $(stamps)/demo
	rm -f $(stamps)/build
	VIRTUAL_ENV=$(VENV) $(bin)/maturin develop --uv --skip-install

demo: build
	$(bin)/python examples/demo.py

test: setup build
	$(cargo_test)
	$(cargo_model)
	$(bin)/python $(pytest) --ignore tests/conformance
	$(bin)/python $(pytest) tests/conformance

# What `make build` installed is put there as it is: the native module fits any Python, and lies in the checkout.
test-oldest: build $(OLDEST)/stamp
	rm -rf $(OLDEST)/lib/python*/site-packages/metrana*
	cp -r $(VENV)/lib/python*/site-packages/metrana* $(OLDEST)/lib/python*/site-packages
	$(OLDEST)/bin/python $(pytest) tests/unit/integrations tests/conformance

lint: setup
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --no-default-features --all-targets -- -D warnings
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

format:
	cargo fmt --all
	$(bin)/ruff check --fix-only --quiet .
	$(bin)/ruff format --quiet .

# Of the Python of $(VENV), whose torch it shares.
$(OLDEST)/stamp: requirements/oldest.txt $(torch_locks) $(stamps)/uv
	@$(bin)/python -c 'import sys; sys.exit(sys.version_info >= (3, 13) and \
		"the oldest versions are tested on Python 3.11 or 3.12: make clean, make PYTHON=python3.11 ...")'
	$(bin)/python -m venv --clear $(OLDEST)
	$(oldest_uv) --require-hashes -r requirements/oldest.txt $(torch)
	@touch $@

# The peers share no package with metrana: what they need must not decide what it is tested with. If they cannot all be
# installed, each is tried on its own, and the table says which are missing.
$(PEERS)/stamp: requirements/peers.in requirements/peers.txt $(stamps)/uv
	$(PYTHON) -m venv --clear $(PEERS)
	$(peers_uv) --require-hashes -r requirements/peers.txt || \
		for peer in $$(grep -v '^#' requirements/peers.in); do \
			$(peers_uv) --constraint requirements/peers.txt numpy $$peer || echo "no $$peer: see above" >&2; \
		done
	@touch $@

# Only a whole table is published.
bench: setup build $(PEERS)/stamp
	$(bin)/python -m benchmarks --peers-python $(PEERS)/bin/python \
		$(if $(filter --quick --only,$(BENCH)),,--output docs/benchmarks.md) $(BENCH)

bench-parts: build
	cargo bench --locked
	$(bin)/python -m benchmarks.points_store

bench-trainings: setup build $(PEERS)/stamp
	$(bin)/python -m benchmarks.trainings --peers-python $(PEERS)/bin/python $(BENCH)

lock: $(stamps)/uv
	UV=$(bin)/uv WHEELS=$(WHEELS) requirements/compile

# The first argument places the modules, which protoc would put beside the client, in the server's package.
proto: setup
	$(bin)/python -m grpc_tools.protoc -I metrana/server/_proto=proto/metrana/v1 --python_out=. --pyi_out=. \
		--grpc_python_out=. metrana/server/_proto/ingestion.proto

clean:
	rm -rf $(VENV) $(PEERS) $(OLDEST) .demo target dist metrana/_native*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find metrana tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
