# Every target sets up what it needs: Python tools in $(VENV), everything built in $(BUILD).
# Needed on the host: python3 (3.11 or newer, with headers and venv), gcc or clang, make.

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
MAKEFLAGS += --no-print-directory
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
CMAKE ?= $(or $(shell command -v cmake),$(VENV)/bin/cmake)
CTEST = $(patsubst %cmake,%ctest,$(CMAKE))
PYTEST_ARGS ?=
RUNS ?= 1
BENCH_RUNS = $(shell seq $(RUNS))
TABLE_ARGS ?=
NEON_TESTS ?= kernels|leaf|merge|pageset|protocol
COVERAGE_LINE ?= 95
COVERAGE_BRANCH ?= 90

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
STAMPS := $(VENV)/stamps
C_DIRS := src tests/c tests/fuzz benchmarks
C_FILES = $(shell find $(wildcard $(C_DIRS)) -name '*.[ch]')
PY_DIRS = $(foreach dir,pysharedpages tests benchmarks examples,\
	$(if $(shell find $(dir) -name '*.py' -print -quit 2>/dev/null),$(dir)))
PACKAGE_FILES := pyproject.toml CMakeLists.txt $(shell find src pysharedpages -type f \
	\( -name '*.[ch]' -o -name '*.py*' -o -name py.typed -o -name CMakeLists.txt \) \
	-not -path '*/__pycache__/*')

# The package at the top of the tree is not compiled: Python must not look for modules there.
export PYTHONSAFEPATH := 1

# TSAN needs the address-space layout it expects; where the host allows it, switch ASLR off.
NO_ASLR := $(shell setarch -R true 2>/dev/null && echo setarch -R)
export ASAN_OPTIONS ?= detect_stack_use_after_return=1:allocator_may_return_null=1
export UBSAN_OPTIONS ?= print_stacktrace=1
export TSAN_OPTIONS ?= second_deadlock_stack=1

.PHONY: help demo test ctest pytest sanitize neon lint format typecheck coverage bench bench-counts \
	clean distclean
.DELETE_ON_ERROR:

help:
	@echo 'demo       install into $(VENV) and run pysharedpages migrate'
	@echo 'test       C tests, then the Python suite on the installed package'
	@echo 'ctest      C tests alone: no Python needed but to fetch a missing cmake'
	@echo 'sanitize   C tests under ASAN and UBSAN, torture tests under TSAN'
	@echo 'neon       some C tests built for AArch64 and run by QEMU'
	@echo 'lint       ruff and clang-format, nothing changed; format changes'
	@echo 'typecheck  mypy --strict, and stubtest on the installed package'
	@echo 'coverage   line and branch coverage of the C core by its C tests'
	@echo 'bench      the benchmarks, ours beside every rival, as one table; SCALE=full for all'
	@echo 'bench-counts  heap bytes, sizes, allocations and instructions, as JSON'
	@echo 'clean      remove $(BUILD) and caches; distclean removes $(VENV) too'

demo: $(STAMPS)/install
	$(VENV)/bin/pysharedpages migrate

test: ctest pytest

pytest: $(STAMPS)/install $(STAMPS)/test $(BUILD)/bench/librivals.so
	SP_RIVALS=$(abspath $(BUILD)/bench/librivals.so) \
		$(PY) -m pytest --junit-xml=$(BUILD)/pytest.xml $(PYTEST_ARGS)

comma := ,

# $(1): build directory, $(2): cmake options, $(3): ctest options, $(4): a command to run it under
define run_c_tests
$(CMAKE) -S . -B $(1) -DSP_BUILD_TESTS=ON $(2)
$(CMAKE) --build $(1) --parallel $(JOBS)
$(4) $(CTEST) --test-dir $(1) --output-on-failure --no-tests=error $(3)
endef

ctest: | $(CMAKE)
	$(call run_c_tests,$(BUILD)/c,-DCMAKE_BUILD_TYPE=Debug -DSP_WERROR=ON)

sanitize: | $(CMAKE)
	$(call run_c_tests,$(BUILD)/asan,-DCMAKE_BUILD_TYPE=Debug -DSP_SANITIZE=address$(comma)undefined)
	$(call run_c_tests,$(BUILD)/tsan,-DCMAKE_BUILD_TYPE=Debug -DSP_SANITIZE=thread,-L torture,$(NO_ASLR))

# On an AArch64 host `make ctest` tests the same, and more.
neon: | $(CMAKE)
	$(call run_c_tests,$(BUILD)/neon,-DCMAKE_TOOLCHAIN_FILE=tests/c/aarch64.cmake -DSP_WERROR=ON,\
		--parallel $(JOBS) -R '^test_($(NEON_TESTS))$$')

lint: $(STAMPS)/lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)

format: $(STAMPS)/lint
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $(C_FILES)

# stubtest puts the working directory on sys.path: it runs from where there is no package.
typecheck: $(STAMPS)/install $(STAMPS)/test $(STAMPS)/bench $(STAMPS)/lint
	$(PY) -m mypy $(filter-out benchmarks,$(PY_DIRS))
	$(PY) -m mypy benchmarks
	cd $(BUILD) && $(abspath $(PY)) -m mypy.stubtest pysharedpages

coverage: $(STAMPS)/coverage | $(CMAKE)
	find $(BUILD)/coverage -name '*.gcda' -delete 2>/dev/null || true
	$(call run_c_tests,$(BUILD)/coverage,-DCMAKE_BUILD_TYPE=Coverage)
	$(VENV)/bin/gcovr --root . --filter 'src/' --object-directory $(BUILD)/coverage \
		--txt - --txt-metric branch --print-summary \
		--fail-under-line $(COVERAGE_LINE) --fail-under-branch $(COVERAGE_BRANCH)

# The quick profile; SCALE=full takes everything, and 16 GiB.  RUNS=3 shows medians of three runs.
bench: $(STAMPS)/install $(STAMPS)/bench $(BUILD)/bench/librivals.so
	for run in $(BENCH_RUNS); do \
	SP_RIVALS=$(abspath $(BUILD)/bench/librivals.so) $(PY) -m pytest benchmarks -q \
		--benchmark-quiet --benchmark-json=$(BUILD)/bench-$$run.json $(PYTEST_ARGS) || exit; \
	done
	$(PY) benchmarks/table.py $(TABLE_ARGS) $(foreach run,$(BENCH_RUNS),$(BUILD)/bench-$(run).json)

# Numbers that may gate, for they do not depend on the time; with valgrind, instructions too.
bench-counts: $(STAMPS)/install $(STAMPS)/bench $(BUILD)/bench/librivals.so
	rm -rf $(BUILD)/wheel
	$(PIP) wheel -q --no-deps --no-build-isolation -C build-dir=$(BUILD)/python -w $(BUILD)/wheel .
	PYTHONPATH=benchmarks $(PY) benchmarks/counts.py --program $(BUILD)/bench/counts $(BUILD)/wheel/*.whl \
		> $(BUILD)/counts.json
	cat $(BUILD)/counts.json

# The rivals, which the benchmarks and their test load, and the jobs that are counted.
$(BUILD)/bench/librivals.so: CMakeLists.txt $(filter src/%,$(PACKAGE_FILES)) $(wildcard benchmarks/c/*) | $(CMAKE)
	$(CMAKE) -S . -B $(BUILD)/bench -DSP_BUILD_BENCHMARKS=ON
	$(CMAKE) --build $(BUILD)/bench --target rivals counts --parallel $(JOBS)
	touch $@

clean:
	rm -rf $(BUILD) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find pysharedpages tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf $(VENV)

$(STAMPS)/venv:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q --upgrade 'pip>=25.1'
	mkdir -p $(STAMPS) && touch $@

# What pyproject.toml asks of a build, installed once here: an isolated environment a build would
# fetch it all again and compile everything anew.
$(STAMPS)/build: pyproject.toml | $(STAMPS)/venv
	$(PY) -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		> $(STAMPS)/build.txt
	$(PIP) install -q -r $(STAMPS)/build.txt 'cmake>=3.21' ninja
	touch $@

$(STAMPS)/install: $(PACKAGE_FILES) $(STAMPS)/build
	$(PIP) install -q --no-build-isolation -C build-dir=$(BUILD)/python '.[cli]'
	touch $@

$(STAMPS)/test $(STAMPS)/lint $(STAMPS)/coverage $(STAMPS)/bench: $(STAMPS)/%: pyproject.toml | $(STAMPS)/venv
	$(PIP) install -q --group $*
	touch $@

$(VENV)/bin/cmake: | $(STAMPS)/build ;
