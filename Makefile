# `make demo` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
BIN = $(VENV)/bin

.PHONY: demo test bench lint compat peers optimum node

demo: $(VENV)/.installed
	$(BIN)/python demo/demo.py

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

# LAM beside MiniLM on this machine, which should do nothing else meanwhile.
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench.py -o results/bench.json

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Loads a model folder in the oldest and newest releases of sentence-transformers that are promised.
compat: $(VENV)/.installed
	$(BIN)/python tests/compat.py

# transformers' and sentence-transformers' own tests of models, on a tiny LAM.
peers: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet parameterized
	$(BIN)/python tests/peers/run.py $(VENV)/peers

# Loads the ONNX files in optimum, in an environment of its own: it needs older libraries than LAM does.
optimum: $(VENV)/.installed-dev
	rm -rf $(VENV)/optimum
	$(PYTHON) -m venv $(VENV)/optimum
	$(VENV)/optimum/bin/python -m pip install --quiet "$(TORCH)"
	$(VENV)/optimum/bin/python -m pip install --quiet ".[optimum]"
	$(BIN)/lam export onnx $(VENV)/optimum/lam
	$(VENV)/optimum/bin/python tests/optimum_check.py $(VENV)/optimum/lam

# Runs the full and the portable graph in Node.js, natively and in WebAssembly. The packages bring their CPU libraries;
# an install script would fetch more.
node: $(VENV)/.installed-dev
	rm -rf $(VENV)/node
	mkdir $(VENV)/node
	cp export/node/* $(VENV)/node
	npm install --prefix $(VENV)/node --ignore-scripts --no-audit --no-fund
	$(BIN)/lam export onnx $(VENV)/node/lam --variant full --portable
	node $(VENV)/node/check.mjs $(VENV)/node/lam

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# A torch that is installed already stays. An editable install copies export/, whose import name is another.
$(VENV)/.installed: pyproject.toml $(wildcard export/*.py) | $(BIN)/python
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
