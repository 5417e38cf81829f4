# `make test` alone sets everything up: an environment in .venv, then the work.
# A second run finds the stamp and starts at once. PYTHON is the interpreter to build .venv from (3.11+).

PYTHON  ?= python3
WORKERS ?= 2
PROFILE ?= ci
MINUTES ?= 10
BIN     := .venv/bin
STAMP   := .venv/installed
DEMO_STAMP := .venv/installed-for-demo
OLDEST  := .venv-oldest
NEWEST  := .venv-newest
GUESTS  := .venv-integrations

# Threads that wait for each other sleep. Spinning, as is usual, two workers of two threads each take
# the cores from one another, and the same tests are many times slower.
export OMP_WAIT_POLICY := passive

.PHONY: site test explore-test demo lint types contracts pytest slow oldest newest integrations notebooks crosscheck gpu fuzz mutations format golden grammar docs clean
.DELETE_ON_ERROR:

test: lint types contracts pytest

# torch comes first: where it is installed, nothing after it pulls in a second build of it.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "attndsl needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(1)]'
	@touch $@
endef

$(STAMP): pyproject.toml constraints.txt
	$(call install,dev)

# The demo needs less than the tests do.
$(DEMO_STAMP): pyproject.toml constraints.txt
	$(call install,plot)

# Writes a pattern, verifies it, trains a small model with it; about four minutes on two cores.
demo: $(DEMO_STAMP)
	$(BIN)/attndsl demo --out demo-out

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/house/lint_prose.py

types: $(STAMP)
	$(BIN)/mypy

contracts: $(STAMP)
	$(BIN)/lint-imports --no-cache

pytest: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" --hypothesis-profile=$(PROFILE)

slow: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS) -m slow --hypothesis-profile=$(PROFILE)

# The explorer in a real browser, Chromium; takes its screenshots anew.
explore-test: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt '.[explore,lsp]' httpx playwright
	$(BIN)/python -m pytest -q tests/rooms/explorer tests/rooms/editing

# The pages, a page for each published system, and the reference, as a site: site/index.html. Fetches nothing.
site: $(STAMP)
	$(BIN)/python -m mkdocs --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --constraint constraints.txt '.[site]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The same tests with the oldest torch, triton, NumPy, lark and networkx that pyproject.toml allows, and with the newest
# there are; each in an environment of its own.
oldest: $(OLDEST)/installed
	$(OLDEST)/bin/python -m pytest -n $(WORKERS) -m "not slow" --hypothesis-profile=$(PROFILE)

$(OLDEST)/installed: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[dev]'
	@touch $@

newest: $(NEWEST)/installed
	$(NEWEST)/bin/python -m pytest -n $(WORKERS) -m "not slow" --hypothesis-profile=$(PROFILE)

$(NEWEST)/installed: pyproject.toml
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade --editable '.[dev]'
	@touch $@

# Models of transformers and diffusers, with the attention of this package; in an environment of its own.
integrations: $(GUESTS)/installed
	$(GUESTS)/bin/python -m pytest -n $(WORKERS) tests/integrations
	$(GUESTS)/bin/python -m pytest tests/rooms/interop/test_mask_mods.py -k gym
	$(GUESTS)/bin/python -m pytest tests/house/test_prose.py -k pretrained

$(GUESTS)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(GUESTS)
	$(GUESTS)/bin/python -m pip install --quiet --constraint constraints.txt torch
	$(GUESTS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,transformers,diffusers]' attn-gym hqq
	@touch $@

# The notebooks of the tutorials, each from its first cell to its last in a kernel of its own.
notebooks: $(GUESTS)/installed
	$(GUESTS)/bin/python -m pip install --quiet --constraint constraints.txt '.[notebooks]'
	$(GUESTS)/bin/python -m pytest tests/house/test_notebooks.py tests/house/test_prose.py -k "test_notebooks or looking"

# Random programs for so many minutes; what fails is saved under tests/fuzz/findings.
fuzz: $(STAMP)
	$(BIN)/python tests/fuzz/run.py --minutes $(MINUTES)

# Does a test fail when the compiler is broken? An hour or so; writes docs/mutations.md.
mutations: $(STAMP)
	$(BIN)/python tests/mutations/run.py --workers $(WORKERS) --report docs/mutations.md

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Compiles the kernels of every pattern for four GPUs, none of which need be here. About an hour; goes on where it stopped.
crosscheck: $(STAMP)
	$(BIN)/python benchmarks/crosscheck.py --json benchmarks/results/crosscheck.json

# On a machine with a GPU: are the kernels right, and how fast are they? Ten minutes at most; goes on where it stopped.
# Where PYTHON has a torch built for GPUs that one is used, and what else is missing goes to .site, without its own needs.
gpu:
	@if $(PYTHON) -c 'import torch as t, triton; exit(not (t.version.cuda or t.version.hip))' 2>/dev/null; then \
	  export PYTHONPATH="$(CURDIR)/.site:$$PYTHONPATH"; \
	  missing="$$($(PYTHON) benchmarks/gpu.py --missing)"; \
	  test -z "$$missing" || $(PYTHON) -m pip install --quiet --no-deps --constraint constraints.txt \
	    --target .site $$missing; \
	  $(PYTHON) benchmarks/gpu.py; \
	else \
	  $(MAKE) --no-print-directory $(STAMP) && $(BIN)/python benchmarks/gpu.py; \
	fi

# Rewrites the expected texts under tests/golden from what the code says today. Read the diff.
golden: $(STAMP)
	$(BIN)/python -m pytest -q --update-golden -k golden tests

# The parser's tables, from attndsl/syntax/grammar.lark.
grammar: $(STAMP)
	$(BIN)/python -c "from attndsl.syntax import grammar as g, __path__ as p; open(p[0] + '/' + g.TABLES, 'w').write(g.tables())"

# The pages that say what the code says.
docs: $(STAMP)
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv $(OLDEST) $(NEWEST) $(GUESTS) .site build dist demo-out site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
