# `make run` and `make test` need nothing but Python 3.11+, Node 18+ with npm, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Of `make faults`: how many seconds; of `make fuzz`: how many inputs; of both: which ones; of `make fuzz-guided`
# also what they are for.
DURATION ?= 60
INPUTS ?= 1000000
SEED ?= 1
TARGET ?= chat
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
# A checkout that is installed as an editable package: no dependency is resolved again, the pins decide.
INSTALL_SELF := $(PIP) --no-deps --no-build-isolation --editable .
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --upgrade \
  --custom-compile-command "make lock"
NODE_PEER := bench/peers/node/node_modules/.package-lock.json
CLIENT := static-demo/vendor/socket.io.esm.min.js
# Helm, for the tests of the chart. The package is for Linux on x86_64; elsewhere they take the one on the PATH.
HELM_STAMP := tests/chart/node_modules/.package-lock.json
# A Groovy parser, for the tests of the Jenkinsfile; it runs where there is a Java.
GROOVY_LINT := tests/pipeline/node_modules/.package-lock.json

.PHONY: run install install-dev browser check format test image-test faults fuzz fuzz-guided screenshots bench lock clean help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

run: install ## set everything up, then serve on http://localhost:8080
	@exec $(BIN)/ditochat

install: $(VENV)/.runtime $(CLIENT) ## .venv/bin/ditochat and the JavaScript client
install-dev: $(VENV)/.dev $(CLIENT) ## the same, and what tests and checks need

check: install-dev ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install-dev ## write the format, mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

browser: ## Chromium, for the tests of the demo page
	@command -v "$${CHROMIUM:-chromium}" >/dev/null || command -v chromium-browser >/dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	else \
	  echo "The demo page is tested in Chromium: install it (Debian: apt-get install chromium)," >&2; \
	  echo "or name the program of yours: make test CHROMIUM=/path/to/it" >&2; \
	  exit 1; \
	fi

test: install-dev browser $(HELM_STAMP) $(GROOVY_LINT) ## all tests; PYTEST_ARGS="-k name" for some
	$(BIN)/pytest $(PYTEST_ARGS)

image-test: install-dev ## build the container image and test it; a Docker engine must run
	$(BIN)/pytest -m image tests/image $(PYTEST_ARGS)

faults: install-dev ## break everything under load for DURATION=60 seconds, as SEED=1 says, and judge the record
	$(BIN)/python -m tests.faults --duration $(DURATION) --seed $(SEED) $(FAULTS_ARGS)

fuzz: install-dev ## feed the parsers INPUTS=1000000 generated inputs; SEED=2 for others
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS) --seed $(SEED)

fuzz-guided: $(VENV)/.fuzz ## the same for one TARGET=chat, guided by coverage (Linux)
	$(BIN)/python -m tests.fuzz.guided --target $(TARGET) --inputs $(INPUTS) --seed $(SEED)

screenshots: install-dev browser ## the pictures of the demo page, into docs/images
	$(BIN)/python -m tests.demo.screenshots

bench: install-dev $(VENV)/.bench $(NODE_PEER) ## measure beside other servers; writes docs/benchmarks.md
	$(BIN)/python -m bench $(BENCH_ARGS)

lock: ## pin the newest allowed versions, with hashes
	$(LOCK) pyproject.toml --group dev --output-file requirements/dev.txt
	$(LOCK) pyproject.toml --constraint requirements/dev.txt --output-file requirements/runtime.txt
	$(LOCK) --group build --constraint requirements/dev.txt --output-file requirements/build.txt
	$(LOCK) --group bench --constraint requirements/dev.txt --output-file requirements/bench.txt
	$(LOCK) --group fuzz --constraint requirements/dev.txt --output-file requirements/fuzz.txt

clean: ## remove what make made; the messages in data/ stay
	rm -rf .venv* node_modules static-demo/vendor dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf bench/build bench/peers/node/node_modules tests/chart/node_modules tests/pipeline/node_modules
	find server tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: $(BIN)/python requirements/runtime.txt requirements/build.txt pyproject.toml
	$(PIP) --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	$(INSTALL_SELF)
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.txt
	$(PIP) --require-hashes -r requirements/bench.txt
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev requirements/fuzz.txt
	$(PIP) --require-hashes -r requirements/fuzz.txt
	@touch $@

$(NODE_PEER): bench/peers/node/package.json bench/peers/node/package-lock.json
	cd bench/peers/node && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(HELM_STAMP): tests/chart/package.json tests/chart/package-lock.json
	cd tests/chart && npm ci --no-audit --no-fund --loglevel=error
	@mkdir -p $(@D) && touch $@

$(GROOVY_LINT): tests/pipeline/package.json tests/pipeline/package-lock.json
	cd tests/pipeline && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(CLIENT): node_modules/.package-lock.json
	@mkdir -p $(@D)
	cp node_modules/socket.io-client/dist/socket.io.min.js node_modules/socket.io-client/dist/socket.io.esm.min.js $(@D)/
	@touch $@
