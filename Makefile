# Everything a newcomer needs: `make demo` to see it work, `make test` to check it. `make help` lists the rest.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
DEMO := artifacts/demo
define CHECK_PYTHON
$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	|| { echo "Modiste needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/one."; exit 1; }
endef

.PHONY: help setup demo test model crash soak finetune check fix bench
.DELETE_ON_ERROR:

help: ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: .venv/ready .venv-ui/ready ## Install Modiste and its tools into .venv, and its page into .venv-ui

.venv/ready: pyproject.toml constraints.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Gradio wants Pillow < 13, so the page has an environment of its own.
.venv-ui/ready: ui/requirements.txt ui/constraints.txt
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv-ui
	.venv-ui/bin/python -m pip install --quiet --disable-pip-version-check -r ui/requirements.txt -c ui/constraints.txt
	@touch $@

$(DEMO)/catalog/items.csv: | .venv/ready
	rm -rf $(DEMO)/catalog
	$(BIN)/modiste sample --out $(DEMO)/catalog --count 600 --seed 0

demo: .venv/ready $(DEMO)/catalog/items.csv ## Draw a sample catalog, index it, label a photo, and serve it until Ctrl-C
	$(BIN)/modiste index $(DEMO)/catalog --gallery $(DEMO)/gallery --encoder efficientnet-lite0
	$(BIN)/modiste search $(DEMO)/catalog/images/p00000-1.jpg --gallery $(DEMO)/gallery --sheet $(DEMO)/neighbours.png
	$(BIN)/modiste fit --gallery $(DEMO)/gallery --targets category,colour
	$(BIN)/modiste classify $(DEMO)/catalog/images/p00000-1.jpg --gallery $(DEMO)/gallery
	$(BIN)/modiste serve --gallery $(DEMO)/gallery --catalog $(DEMO)/catalog

test: .venv/ready ## Run the tests
	$(BIN)/python -m pytest

model: .venv/ready ## Compare a gallery with a plain dict over 800 long random sequences (30 minutes)
	MODISTE_MODEL_EXAMPLES=800 $(BIN)/python -m pytest tests/indexer/test_stateful.py

crash: .venv/ready ## Kill writers at 1,000 random moments, at each step and with strace (40 minutes)
	$(BIN)/python -m tests.indexer.crash --trials 1000

soak: .venv/ready ## Run the service for 30 minutes under mixed load, edits, refreshes and fits
	$(BIN)/python -m tests.service.soak

finetune: .venv/ready ## Train the seven runs of docs/benchmarks.md and compare them with frozen features (2 hours; wants ../shared/datasets)
	$(BIN)/python -m bench.finetune

check: .venv/ready ## Format, lint, types, imports, the CLI's documentation, the container and known holes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py tests/test_docs.py tests/test_container.py tests/test_floors.py \
		tests/service/test_service_page.py
	$(BIN)/python -m tests.audit

fix: .venv/ready ## Format, mend what the linter can, and write what is generated into docs/
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m tests.write_cli_help
	$(BIN)/python -m tests.write_service_page

bench: .venv/ready ## Print every table of docs/benchmarks.md (90 minutes; wants ../shared/datasets)
	$(BIN)/python -m bench.startup
	$(BIN)/python -m bench.index
	$(BIN)/python -m bench.quality
	$(BIN)/python -m bench.search
	$(BIN)/python -m bench.refresh
	$(BIN)/python -m bench.heads
	$(BIN)/python -m bench.explain
	$(BIN)/python -m bench.service
	$(BIN)/python -m bench.train
