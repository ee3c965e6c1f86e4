# Everything a newcomer needs: `make demo` to see it work, `make test` to check it. `make help` lists the rest.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
DEMO := artifacts/demo
AXE := artifacts/axe/node_modules/axe-core/axe.min.js
# What the image of a Space is built from.
SPACE := .dockerignore LICENSE README.md constraints.txt pyproject.toml cli data finetune heads indexer service ui
define CHECK_PYTHON
$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	|| { echo "Modiste needs Python 3.11, 3.12 or 3.13; set PYTHON=/path/to/one."; exit 1; }
endef

.PHONY: help setup demo axe tour space test model crash soak finetune check fix bench
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

demo: .venv/ready .venv-ui/ready $(DEMO)/catalog/items.csv ## Draw a sample catalog, index it, fit heads, and show it in a browser until Ctrl-C; ONCE=1 ends by itself
	$(BIN)/modiste demo --catalog $(DEMO)/catalog --gallery $(DEMO)/gallery \
		$(if $(ONCE),--once --port 0 --service-port 0)

# Looks for faults of accessibility in the page; where there is no npm, its tests say that they were left out.
$(AXE):
	@if command -v npm >/dev/null; then \
		npm install --silent --no-save --ignore-scripts --no-audit --no-fund --prefix artifacts/axe axe-core@4.14.1 \
			|| echo "axe-core could not be installed."; \
	else echo "There is no npm, so no axe-core."; fi

axe: $(AXE) ## Fetch axe-core, which tests the page's accessibility

tour: .venv/ready .venv-ui/ready ## Take the screenshots of docs/tour.md
	$(BIN)/python -m tests.ui.tour

space: ## Put together a Hugging Face Space, to be pushed to one, in artifacts/space
	rm -rf artifacts/space
	mkdir -p artifacts/space
	git archive HEAD $(SPACE) | tar -x -C artifacts/space
	cp ui/space/README.md ui/space/Dockerfile artifacts/space/

# Two at a time: many tests wait for processes of their own. More would want more memory than many machines have.
test: .venv/ready .venv-ui/ready $(AXE) ## Run the tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

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

bench: .venv/ready .venv-ui/ready ## Print every table of docs/benchmarks.md (2 hours; wants ../shared/datasets)
	$(BIN)/python -m bench.startup
	$(BIN)/python -m bench.index
	$(BIN)/python -m bench.quality
	$(BIN)/python -m bench.search
	$(BIN)/python -m bench.refresh
	$(BIN)/python -m bench.heads
	$(BIN)/python -m bench.projection
	$(BIN)/python -m bench.explain
	$(BIN)/python -m bench.service
	$(BIN)/python -m bench.train
	$(BIN)/python -m bench.page
	$(BIN)/python -m bench.page_large
	$(BIN)/python -m bench.page_batch
