# Short targets; each does its own set-up. `make` alone explains them.
# Written for GNU make 3.81 and a POSIX shell: that is what macOS has.

VENV := .venv
BIN := $(VENV)/bin
# One virtual environment, two stages: a look at the demo should not download type checkers and test tools.
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench
MANIFESTS := $(VENV)/.installed-manifests
DOCS := $(VENV)/.installed-docs
# Most modules of the packages are never imported; pip would spend a third of its time on their byte code.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
INSTALL := $(PIP) install --require-hashes --no-deps --no-compile
# Arguments for the command behind a target: make test ARGS="-k retry -x"
ARGS :=

.DEFAULT_GOAL := help
.PHONY: help demo up test wheel package image-test chaos explore bench console-bench dashboard-check examples spam-check docs manifests-check drills matrix licences release-check check format lock clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## the whole service in a minute, with example messages: no set-up, nothing leaves this machine
	@$(BIN)/notifier demo $(ARGS)

up: $(RUNTIME) ## run the service here, with its own database and broker where none is configured
	@$(BIN)/notifier up $(ARGS)

# They start hundreds of programs: byte code is kept, whatever the shell says.
test chaos explore: export PYTHONDONTWRITEBYTECODE =

# All of them in three processes, each with servers of its own; a selection in one, whose servers start once.
test: $(DEV) ## every test, on real PostgreSQL, RabbitMQ and Valkey (ARGS="-k word")
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-n auto --dist worksteal)

# Its build tool is among the tested packages: nothing is downloaded.
wheel: $(RUNTIME) ## the package as a file to install elsewhere, dist/notifier-….whl
	@$(BIN)/python -m hatchling build -t wheel
	@echo "copy it to the other machine; how to install it: docs/how-to/install.md"

package: $(DEV) ## the wheel in fresh environments: every program starts from it, on both brokers
	@$(BIN)/python -m tests.provisioning.package

image-test: $(DEV) ## the image and the compose file, as production runs them; for root on Debian, five minutes
	@$(BIN)/python -m tests.provisioning.image

chaos: $(DEV) ## the fault suite: everything killed, stopped and cut under load, 40 to 50 minutes (SHORT=1: two)
	@$(BIN)/python -m chaos $(if $(SHORT),--short) $(ARGS)

explore: $(DEV) ## every order of the steps of a few actors, with faults between them, fifteen minutes (SECONDS=120)
	@$(BIN)/python -m chaos.explore $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

bench: $(BENCH) ## how fast it is, beside what people use instead, forty minutes (SECONDS=1: a sixth of everything)
	@$(BIN)/python -m bench $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

console-bench: $(DEV) ## how fast the console's pages are with a million notifications, six minutes
	@$(BIN)/python -m bench.console $(ARGS)

dashboard-check: $(DEV) ## every query of the Grafana dashboard, on a Prometheus that scrapes every program; needs Debian's prometheus
	@$(BIN)/python -m pytest -q -s tests/e2e/dashboard.py

examples: $(DEV) ## every block of the docs, and every example of a producer's stack, on services, five minutes; says what else it needs
	@$(BIN)/python -m pytest -q -s -rs tests/e2e/examples.py tests/e2e/pages.py $(ARGS)

spam-check: $(RUNTIME) ## the spam score of every shipped mail in every language; needs Debian's spamassassin
	@NOTIFIER_TEMPLATES=templates $(BIN)/notifier templates check --spam $(ARGS)

docs: $(DOCS) ## the documentation as a site in build/docs/site, without a warning
	@$(BIN)/python docs/build.py $(ARGS)

drills: $(RUNTIME) ## restores, failovers, pgbouncer and a rolling upgrade under load, counted (ARGS=failover)
	@$(BIN)/python examples/drills $(ARGS)

matrix: $(DEV) ## the tests of brokers and databases on the oldest and newest versions; for root on Debian
	@$(BIN)/python -m tests.provisioning.matrix $(ARGS)

manifests-check: $(MANIFESTS) ## the manifests for Kubernetes, with KEDA's objects, and the compose files against their schemas
	@$(BIN)/python -m tests.provisioning.manifests

licences: $(DEV) ## the licence of every package that the image ships
	@$(BIN)/python -m tests.provisioning.licences --list

release-check: $(DEV) ## whether this commit can be tagged as the version of pyproject.toml
	@$(BIN)/python -m tests.provisioning.release

check: $(DEV) ## format, lint, types, layers, licences
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.provisioning.licences

format: $(DEV) ## format the code and fix what can be fixed
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

lock: ## pin dependencies anew after a change in pyproject.toml (ARGS=--upgrade: the newest of everything)
	@sh requirements/lock.sh $(ARGS)

clean: ## remove the virtual environment and everything that tools left
	@rm -rf $(VENV) build dist htmlcov .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find notifier tests migrations -name __pycache__ -type d -prune -exec rm -rf {} +

# A dangling link (its Python was removed or upgraded) counts as absent, so the environment is made anew.
$(BIN)/python:
	@sh requirements/make-venv.sh $(VENV) $(PYTHON)

$(RUNTIME): $(BIN)/python requirements/runtime.txt requirements/build.txt pyproject.toml
	@echo "installing $$(grep -c == requirements/runtime.txt) packages into $(VENV) (under a minute, once)"
	@$(INSTALL) -r requirements/runtime.txt -r requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m notifier.dev.byte_code
	@touch $@

$(DEV): requirements/dev.txt $(RUNTIME)
	@echo "installing the tools for tests and checks into $(VENV) (under a minute, once)"
	@$(INSTALL) -r requirements/dev.txt
	@touch $@

$(MANIFESTS): requirements/manifests.txt $(DEV)
	@$(INSTALL) -r requirements/manifests.txt
	@touch $@

$(BENCH): requirements/bench.txt $(DEV)
	@echo "installing the peers of the measurements into $(VENV) (under a minute, once)"
	@$(INSTALL) -r requirements/bench.txt
	@touch $@

$(DOCS): requirements/docs.txt $(RUNTIME)
	@echo "installing the generator of the documentation into $(VENV) (seconds, once)"
	@$(INSTALL) -r requirements/docs.txt
	@touch $@
