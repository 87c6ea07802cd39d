# Every target that needs an environment makes it first; see `make help`.
SHELL := bash
.DEFAULT_GOAL := help

# Which OpenMMLab packages to use: openmmlab or onedl.
STACK ?= openmmlab
# An environment of your own, used as it is; nothing is installed into it.
PYTHON ?=
# The interpreter that .venv/$(STACK) is made from (default: python3).
BASE_PYTHON ?=
# More arguments for pytest, for instance TEST_ARGS='-k shift', or '-n 0' for one process that a debugger can follow.
TEST_ARGS ?=

export BASE_PYTHON

ifneq ($(words $(STACK)) $(filter openmmlab onedl,$(STACK)),1 $(STACK))
$(error STACK='$(STACK)' is unknown; choose STACK=openmmlab or STACK=onedl)
endif

ifeq ($(PYTHON),)
RUN := .venv/$(STACK)/bin/python
RUFF := .venv/lint/bin/ruff
CLANG_FORMAT := .venv/lint/bin/clang-format
LINT_READY := $(RUFF)
else
RUN := $(PYTHON)
RUFF := "$(PYTHON)" -m ruff
CLANG_FORMAT := "$(PYTHON)" -c 'from clang_format import clang_format; clang_format()'
LINT_READY := python-exists
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
endif

.PHONY: help
help: ## show this help
	@echo 'Targets:'
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r name text; do \
		printf '  %-14s %s\n' "$$name" "$$text"; done
	@echo 'Variables:'
	@echo '  STACK=openmmlab|onedl   the OpenMMLab packages to use (now: $(STACK))'
	@echo '  PYTHON=/path/to/python  use this environment as it is instead of .venv/STACK'
	@echo '  BASE_PYTHON=python3.11  the interpreter that .venv/STACK is made from (default: python3)'
	@echo "  TEST_ARGS='-k shift'    more arguments for pytest; '-n 0' runs all in one process"
	@echo "  FIGURES_ARGS='--list'   more arguments for make figures: --only NAME, --again NAME, --list, --check"

.PHONY: setup
setup: ready-test ## make .venv/STACK: torch, the OpenMMLab packages, mmsw (done by the targets below as well)
	@echo '==> ready: $(RUN)'

# ready-PURPOSE: an environment that has what PURPOSE (demo, test or docs) needs.
.PHONY: ready-demo ready-test ready-docs
ifeq ($(PYTHON),)
ready-demo ready-test:
	@tools/setup_env.sh $(STACK)

# Installed on demand: training and tests do without. The constraints keep every version of the stack.
DOCS_PINS := requirements/docs.txt requirements/constraints-$(STACK).txt
ready-docs: ready-test
	@for pins in $(DOCS_PINS); do [[ .venv/$(STACK)/docs -nt $$pins ]] || { \
		echo '==> packages of the documentation: .venv/$(STACK)'; \
		"$(RUN)" -m pip install -q --no-input --disable-pip-version-check -c requirements/constraints-$(STACK).txt \
			-r requirements/docs.txt && \
		touch .venv/$(STACK)/docs || exit 1; }; done
else
ready-demo ready-test ready-docs: ready-%: python-exists
	@"$(RUN)" tools/check_env.py --for $* || { \
		echo "PYTHON=$(PYTHON): nothing is installed into an environment of yours;" \
			'install what is missing, or leave PYTHON out' >&2; exit 1; }
endif

.PHONY: python-exists
python-exists:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "error: PYTHON='$(PYTHON)' was not found or is not executable; name a Python interpreter" >&2; exit 1; }

.PHONY: demo-start
demo-start: ready-demo
	@echo '==> demo data: data/demo'
	@"$(RUN)" tools/make_demo_data.py data/demo
	@echo '==> a sparse checkpoint to start from: work_dirs/demo/pretrained_sparse.pth'
	@"$(RUN)" tools/make_demo_checkpoint.py --data data/demo --out work_dirs/demo/pretrained_sparse.pth

.PHONY: demo
demo: demo-start ## train, evaluate and picture a small sparse segmentor on real photographs (minutes, CPU)
	@echo '==> fine-tuning: work_dirs/demo/finetune'
	@"$(RUN)" tools/train.py configs/demo/upernet_sw_mini_scenes.py --work-dir work_dirs/demo/finetune
	@echo '==> report: work_dirs/demo'
	@"$(RUN)" tools/demo_report.py work_dirs/demo

.PHONY: demo-detection
demo-detection: demo-start ## the same for a detector: boxes and masks on the same scenes
	@echo '==> fine-tuning: work_dirs/demo/detection'
	@"$(RUN)" tools/train.py configs/demo/mask_rcnn_sw_mini_scenes.py --work-dir work_dirs/demo/detection
	@echo '==> report: work_dirs/demo'
	@"$(RUN)" tools/demo_report.py work_dirs/demo --task det

# The runs that ResNet-18 is compared with; they are looked for before anything is trained.
.PHONY: demo-finished
demo-finished: ready-demo
	@for run in finetune detection; do \
		test -f work_dirs/demo/$$run/last_checkpoint || { \
			echo "error: work_dirs/demo/$$run is not finished; run make demo and make demo-detection first" >&2; exit 1; }; \
	done

.PHONY: demo-compare
demo-compare: demo-finished ## train ResNet-18 as both were trained, and draw it beside them (after the two above)
	@for run in upernet_r18_scenes mask_rcnn_r18_scenes; do \
		echo "==> from random values: work_dirs/demo/$$run"; \
		"$(RUN)" tools/train.py configs/demo/$$run.py --work-dir work_dirs/demo/$$run || exit 1; \
	done
	@echo '==> reports: work_dirs/demo'
	@"$(RUN)" tools/demo_report.py work_dirs/demo --beside work_dirs/demo/upernet_r18_scenes
	@"$(RUN)" tools/demo_report.py work_dirs/demo --task det --beside work_dirs/demo/mask_rcnn_r18_scenes

# More arguments: FIGURES_ARGS='--only operators', '--list', '--check'. Most jobs want an idle machine.
FIGURES_ARGS ?=
.PHONY: figures figures-quick
figures: ready-test ## measure again what the docs quote (hours; goes on where it was stopped)
	@"$(RUN)" tools/make_figures.py $(FIGURES_ARGS)

figures-quick: ready-test ## the same in its smallest form, into a copy of the pages: work_dirs/figures/quick
	@"$(RUN)" tools/make_figures.py --quick $(FIGURES_ARGS)

# Two processes of one thread each; a file's tests stay in one of them, where they share what they build. The order is
# kept, since the benchmarks, which take longest, come early in it.
PYTEST = OMP_NUM_THREADS=1 "$(RUN)" -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations 20

.PHONY: test
test: ready-test ## run the tests, except the slow ones
	$(PYTEST) -m 'not slow and not docs' $(TEST_ARGS)

# What stands for the suite where there is no time for all of it: the operator on every backend against its definition and
# the golden vectors, the networks, sparsity, checkpoint files, every config, and runs that train, save and resume.
VERSION_TESTS := $(addprefix tests/, ops/test_shift_add.py ops/test_shift_wise_conv2d.py ops/test_cross_conv2d.py \
	ops/test_cpp.py ops/test_taichi.py ops/test_compile.py models/test_shiftwise_conv_golden.py \
	models/test_shiftwise_net_golden.py models/test_shiftwise_net_deploy.py deploy/test_fold_model.py \
	sparsity/test_masks.py sparsity/test_dynamic.py checkpoint own_format test_registration.py test_configs.py \
	test_optim_constructor.py test_runner.py runner/test_formats.py test_detection_training.py)

.PHONY: test-versions
test-versions: ready-test ## run the tests that tell whether a torch, Python or stack works (docs/versions.md)
	OMP_NUM_THREADS=1 "$(RUN)" -m pytest -q -m 'not slow' $(VERSION_TESTS) $(TEST_ARGS)

.PHONY: test-slow
test-slow: ready-test ## run the slow tests only
	$(PYTEST) -m slow $(TEST_ARGS)

# A second one at once would take the demo data of the first away.
.PHONY: docs
docs: ready-docs ## run the code blocks of README and docs, then build the documentation: site/
	@mkdir -p work_dirs; exec 9>work_dirs/docs.lock; ! command -v flock >/dev/null || flock -n 9 || { \
		echo 'error: another make docs runs in this checkout; wait for it' >&2; exit 1; }; \
	rm -rf work_dirs/docs && \
	OMP_NUM_THREADS=1 "$(RUN)" -m pytest -q -n 2 --durations 20 -m docs tests/docs $(TEST_ARGS) && \
	NO_MKDOCS_2_WARNING=1 "$(RUN)" -m mkdocs build --strict

.PHONY: docs-serve
docs-serve: ready-docs ## show the documentation while you write it; runs no notebook
	NO_MKDOCS_2_WARNING=1 MMSW_DOCS_NOTEBOOKS=skip "$(RUN)" -m mkdocs serve --no-strict --watch mmsw

.venv/lint/bin/ruff: requirements/lint.txt
	@echo '==> ruff and clang-format: .venv/lint'
	@rm -rf .venv/lint
	@"$(or $(BASE_PYTHON),python3)" -m venv .venv/lint
	@.venv/lint/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@

CPP_FILES = $(shell find mmsw tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: lint
lint: $(LINT_READY) ## check style (needs nothing but ruff and clang-format)
	$(RUFF) check .
	$(RUFF) format --check .
	$(CLANG_FORMAT) --dry-run --Werror $(CPP_FILES)

.PHONY: format
format: $(LINT_READY) ## correct style
	$(RUFF) check --fix .
	$(RUFF) format .
	$(CLANG_FORMAT) -i $(CPP_FILES)

.PHONY: clean
clean: ## remove build products and caches
	rm -rf build dist site work_dirs/docs work_dirs/docs.lock *.egg-info .pytest_cache .ruff_cache
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## also remove the environments and everything the demo wrote
	rm -rf .venv data/demo work_dirs/demo
