# Each target says in one line what it does; `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
# where it is set, every process compiles every module that it imports anew: 8 s of a start of Superset
export PYTHONDONTWRITEBYTECODE :=
# processes of a test run: one more than cores, since one waits for a browser or a server most of the time
WORKERS ?= $(shell expr $$(nproc) + 1)
# a configuration for checks that load the definitions; nothing of it is read
CHECK_CONFIG := examples/company.yaml

.PHONY: help
help: ## list the commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-22s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## install both environments from their locks (done by the others when needed)
	@scripts/setup.sh

.PHONY: setup-spark
setup-spark: ## the same with the client of ingest.engine: spark, which stays in the environment from then on
	@scripts/setup.sh spark

.PHONY: demo
demo: setup ## set everything up, run the pipeline on a demo lake, start Dagster and Superset
	@$(BIN)/usage-pipeline demo start $(DEMO_OPTIONS)

.PHONY: demo-advance
demo-advance: setup ## let a week go by in the demo: OPTIONS="--late --broken --changed"
	@$(BIN)/usage-pipeline demo advance $(OPTIONS)

.PHONY: up
up: setup ## the same on your own data: make up CONFIG=sources.yaml
	@$(BIN)/usage-pipeline up $(if $(CONFIG),-c $(CONFIG))

.PHONY: stop
stop: ## end the servers that were started (of the demo, or of CONFIG=...), and nothing else
	@if [ -x $(BIN)/usage-pipeline ]; then $(BIN)/usage-pipeline stop $(if $(CONFIG),-c $(CONFIG)); \
	else echo "nothing is installed, so nothing runs"; fi

.PHONY: test
test: setup ## units, the pipeline on real files, Superset in a real browser: about ten minutes on two cores
	@scripts/need-chromium.sh
	@$(BIN)/python -m pytest -m "not long and not soak and not compose" -n $(WORKERS) --dist loadgroup $(PYTEST_OPTIONS)

.PHONY: test-long
test-long: setup ## what `make test` leaves out: other pages, inputs, faults and attacks (an hour)
	@scripts/need-chromium.sh
	@$(BIN)/python -m pytest -m "long and not alone and not soak" -n $(WORKERS) --dist loadgroup $(PYTEST_OPTIONS)
	@# these measure seconds: on a machine that others share they get a second try
	@$(BIN)/python -m pytest -q -m "alone and not soak" || $(BIN)/python -m pytest -q -m "alone and not soak"

.PHONY: test-fast
test-fast: setup ## tests that need neither Superset nor a whole refresh, in a minute
	@$(BIN)/python -m pytest -m "not slow and not superset and not long and not soak and not compose" -n $(WORKERS) --dist loadgroup $(PYTEST_OPTIONS)

.PHONY: t
t: setup ## one file or test: make t T=usage_pipeline_tests/core/test_weeks.py
	@$(BIN)/python -m pytest -q -m "not soak and not compose" $(PYTEST_OPTIONS) $(T)

.PHONY: test-compose
test-compose: setup ## the deployment on the Docker engine that DOCKER_HOST names: started, killed, backed up, restored
	@$(BIN)/python -m pytest -m compose -s $(PYTEST_OPTIONS) usage_pipeline_tests/compose

.PHONY: soak
soak: setup ## heavy proofs: large lakes, other seeds, every page, a Spark cluster (an hour and more)
	@scripts/need-chromium.sh
	@scripts/need-queue.sh
	-@scripts/need-java.sh && scripts/setup.sh spark-cluster
	@$(BIN)/python -m pytest -m soak $(PYTEST_OPTIONS)

.PHONY: benchmark-anomalies
benchmark-anomalies: setup ## anomalies beside their peers: an hour and a quarter, R from Debian's r-cran-surveillance
	@scripts/setup.sh benchmarks
	@$(BIN)/python -W ignore -m benchmarks.anomalies

.PHONY: benchmark-strangers
benchmark-strangers: setup ## anomalies in worlds that were made without knowing the detector, a minute: OPTIONS="--shapes"
	@$(BIN)/python -W ignore -m benchmarks.strangers $(OPTIONS)

.PHONY: benchmark-dashboards
benchmark-dashboards: setup ## dashboards as readers meet them, ten minutes: LAKE=folder PARTS="charts users pages"
	@scripts/need-chromium.sh
	@$(BIN)/python -W ignore -m benchmarks.dashboards $(PARTS) $(if $(LAKE),--lake $(LAKE))

.PHONY: benchmark-api
benchmark-api: setup ## the read API at 100 requests a second, a minute: LAKE=folder
	@$(BIN)/python -W ignore -m benchmarks.api $(if $(LAKE),--lake $(LAKE))

.PHONY: benchmark-scaling
benchmark-scaling: setup ## curves of growth, docs/scaling.md: PARTS="3000 9000 30000" accounts (minutes to hours)
	@$(BIN)/python -W ignore -m benchmarks.scaling $(PARTS)

.PHONY: benchmark
benchmark: setup ## measure ours beside its peers: PARTS="peers growth activity risks refresh memory" (half an hour)
	@scripts/setup.sh benchmarks
	@$(BIN)/python -W ignore -m benchmarks.ingest $(PARTS)

.PHONY: check
check: setup ## lint, format, types, borders, words, texts, SQL, lineage, definitions, Superset assets, references, pinned images
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy deploy/start.py deploy/demo.py scripts/*.py pins/*.py
	@cd superset && MYPYPATH=. ../$(BIN)/mypy --config-file mypy.ini --python-executable ../.venv-superset/bin/python \
	  -p usage_superset -m superset_config
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/sqlfluff lint --nocolor -q usage_pipeline
	@USAGE_PIPELINE_CONFIG=$(CHECK_CONFIG) $(BIN)/dg check defs
	@$(BIN)/usage-pipeline dashboards check
	@$(BIN)/python -W ignore scripts/lineage.py --check
	@scripts/check-compose.sh
	@$(BIN)/python scripts/check_words.py
	@$(BIN)/python scripts/check_texts.py
	@$(BIN)/python scripts/docs_reference.py --check
	@$(BIN)/python pins/check.py

.PHONY: docs
docs: setup ## build the documentation site into data/docs-site; fails on a broken link
	@scripts/setup.sh docs
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet && echo "data/docs-site/index.html is built"

.PHONY: docs-reference
docs-reference: setup ## write docs/reference and the index of decisions anew, from the code
	@$(BIN)/python scripts/docs_reference.py

.PHONY: audit
audit: setup ## what is known against the packages of both locks; needs the network, and says so where it cannot ask
	@scripts/setup.sh tools
	@.venv-tools/bin/python pins/audit.py $(OPTIONS)

.PHONY: sbom
sbom: setup ## bills of materials of both environments (CycloneDX, JSON), into data/sbom
	@scripts/setup.sh tools
	@mkdir -p data/sbom
	@for environment in pipeline superset; do \
	  lock=$$([ $$environment = pipeline ] && echo deploy/requirements.lock || echo superset/requirements.lock); \
	  .venv-tools/bin/cyclonedx-py requirements --of JSON --sv 1.6 --validate --output-reproducible \
	    -o data/sbom/$$environment.cdx.json $$lock && echo "data/sbom/$$environment.cdx.json, of $$lock"; done

.PHONY: format
format: setup ## bring Python, SQL, texts and the Superset assets into their normal form, and lineage.yaml up to date
	@$(BIN)/ruff check --fix -q .
	@$(BIN)/ruff format -q .
	@$(BIN)/sqlfluff fix --nocolor -q usage_pipeline || true
	@$(BIN)/python scripts/check_texts.py --write
	@$(BIN)/usage-pipeline dashboards format
	@$(BIN)/python -W ignore scripts/lineage.py

.PHONY: lineage
lineage: setup ## write what each asset reads, found in its SQL, into usage_pipeline/defs/lineage.yaml
	@$(BIN)/python -W ignore scripts/lineage.py

.PHONY: lock
lock: setup ## compile the lock files anew, after a change of the requirements
	@.tools/uv/bin/uv pip compile pyproject.toml --extra dev --generate-hashes --python-version 3.11 --no-header -q -o requirements.lock
	@.tools/uv/bin/uv pip compile pyproject.toml -c requirements.lock --generate-hashes --python-version 3.11 --no-header --no-annotate -q -o deploy/requirements.lock
	@.tools/uv/bin/uv pip compile deploy/s3/requirements.in -c requirements.lock --generate-hashes --python-version 3.11 --no-header --no-annotate -q -o deploy/s3/requirements.lock
	@.tools/uv/bin/uv pip compile pins/tools.in --generate-hashes --python-version 3.11 --no-header --no-annotate -q -o pins/tools.lock
	@.tools/uv/bin/uv pip compile pins/docs.in --generate-hashes --python-version 3.11 --no-header --no-annotate -q -o pins/docs.lock
	@.tools/uv/bin/uv pip compile superset/requirements.in --generate-hashes --python-version 3.11 --no-header -q -o superset/requirements.lock
	@.tools/uv/bin/uv pip compile benchmarks/requirements.in --generate-hashes --python-version 3.11 --no-header -q -o benchmarks/requirements.lock
	@.tools/uv/bin/uv pip compile spark/client.in -c requirements.lock --generate-hashes --python-version 3.11 --no-header -q -o spark/client.lock
	@.tools/uv/bin/uv pip compile spark/cluster.in --generate-hashes --python-version 3.11 --no-header -q -o spark/cluster.lock

.PHONY: screenshots
screenshots: setup ## pictures of every page, light and dark, into docs/screenshots; of a demo that runs
	@scripts/need-chromium.sh
	@$(BIN)/python scripts/screenshots.py

.PHONY: pictures
pictures: setup ## keep the pictures of pages that tests compare with, after a change that is meant to be seen
	@scripts/need-chromium.sh
	@USAGE_KEEP_PICTURES=1 $(BIN)/python -m pytest -q usage_pipeline_tests/superset/test_pictures.py

.PHONY: clean-demo
clean-demo: stop ## remove the demo: lake, warehouse, builds, accounts
	@rm -rf data/demo
