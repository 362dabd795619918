# Short targets; each does its own set-up. `make` alone lists them.
# Written for GNU make 3.81 and a POSIX shell: that is what macOS has.

VENV := .venv
BIN := $(VENV)/bin
# One virtual environment in two stages: someone who tries the demo should not download type checkers and test tools.
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench
MANIFESTS := $(VENV)/.installed-manifests
DOCS := $(VENV)/.installed-docs
# Most of the packages' modules are never imported. pip would spend a third of its time compiling them.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
INSTALL := $(PIP) install --require-hashes --no-deps --no-compile
# Arguments for the command behind a target: make test ARGS="-k retry -x"
ARGS :=

.DEFAULT_GOAL := help
.PHONY: help demo up test wheel package image-test chaos explore bench console-bench dashboard-check examples spam-check docs manifests-check drills matrix licences release-check check format lock clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## try the whole service in a minute, with example messages: no set-up, nothing leaves this machine
	@$(BIN)/notifier demo $(ARGS)

up: $(RUNTIME) ## run the service here, with its own database and broker where none is configured
	@$(BIN)/notifier up $(ARGS)

# Tests start hundreds of programs: keep byte code, whatever the shell's environment says.
test chaos explore: export PYTHONDONTWRITEBYTECODE =

# All tests run in three processes, each with its own servers. A selection runs in one, so servers start once.
test: $(DEV) ## every test, on real PostgreSQL, RabbitMQ and Valkey (ARGS="-k word")
	@$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),-n auto --dist worksteal)

# The build tool is already installed: nothing is downloaded.
wheel: $(RUNTIME) ## the package as a file to install elsewhere, dist/notifier-….whl
	@$(BIN)/python -m hatchling build -t wheel
	@echo "copy it to the other machine; how to install it: docs/how-to/install.md"

package: $(DEV) ## test the wheel in fresh environments: every program starts from it, on both brokers
	@$(BIN)/python -m tests.provisioning.package

image-test: $(DEV) ## test the image and the compose file as production runs them; as root on Debian, five minutes
	@$(BIN)/python -m tests.provisioning.image

chaos: $(DEV) ## the fault suite: kill, stop and cut off everything under load, 40 to 50 minutes (SHORT=1: two)
	@$(BIN)/python -m chaos $(if $(SHORT),--short) $(ARGS)

explore: $(DEV) ## try every order of the steps of a few actors, with faults between them, fifteen minutes (SECONDS=120)
	@$(BIN)/python -m chaos.explore $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

bench: $(BENCH) ## measure notifier beside its alternatives, forty minutes (SECONDS=1: a sixth of everything)
	@$(BIN)/python -m bench $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

console-bench: $(DEV) ## measure the console's pages with a million notifications, six minutes
	@$(BIN)/python -m bench.console $(ARGS)

dashboard-check: $(DEV) ## run the Grafana dashboard's queries on a Prometheus that scrapes every program; needs Debian's prometheus
	@$(BIN)/python -m pytest -q -s tests/e2e/dashboard.py

examples: $(DEV) ## run every code block of the docs and every producer's example, five minutes; says what else it needs
	@$(BIN)/python -m pytest -q -s -rs tests/e2e/examples.py tests/e2e/pages.py $(ARGS)

spam-check: $(RUNTIME) ## the spam score of every shipped mail in every language; needs Debian's spamassassin
	@NOTIFIER_TEMPLATES=templates $(BIN)/notifier templates check --spam $(ARGS)

docs: $(DOCS) ## build the documentation's site in build/docs/site; fails on a warning
	@$(BIN)/python docs/build.py $(ARGS)

drills: $(RUNTIME) ## restores, failovers, pgbouncer and a rolling upgrade under load, with every mail counted (ARGS=failover)
	@$(BIN)/python examples/drills $(ARGS)

matrix: $(DEV) ## test brokers and databases in their oldest and newest versions; as root on Debian
	@$(BIN)/python -m tests.provisioning.matrix $(ARGS)

manifests-check: $(MANIFESTS) ## check the Kubernetes manifests, KEDA's objects and the compose files against their schemas
	@$(BIN)/python -m tests.provisioning.manifests

licences: $(DEV) ## list the licence of every package that the image ships
	@$(BIN)/python -m tests.provisioning.licences --list

release-check: $(DEV) ## check whether this commit can be tagged with the version in pyproject.toml
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

lock: ## pin dependencies again after a change in pyproject.toml (ARGS=--upgrade: the newest of everything)
	@sh requirements/lock.sh $(ARGS)

clean: ## remove the virtual environment and everything that tools left
	@rm -rf $(VENV) build dist htmlcov .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find notifier tests migrations -name __pycache__ -type d -prune -exec rm -rf {} +

# A dangling link (its Python was removed or upgraded) counts as absent, so the environment is made again.
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
