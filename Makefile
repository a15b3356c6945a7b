# Retinal-vessel segmentation: the commands. `make` alone lists them.

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3) python3)
VENV   ?= .venv
PY     := $(VENV)/bin/python
PRESET ?= tiny

# Threads that spin while they wait cost a busy machine dearly; no result depends on this.
export OMP_WAIT_POLICY = PASSIVE
# Memory that a training step lets go of stays for the next one (glibc's names; others ignore them):
# a fifth of a large network's step went into getting it back.
export MALLOC_MMAP_THRESHOLD_ = 4294967296
export MALLOC_TRIM_THRESHOLD_ = 17179869184
export MALLOC_TOP_PAD_ = 67108864

# What is recorded with the results: $(call as_typed,NAMES) are the target and its variables, quoted
# for the shell.
as_typed = RETINA_COMMAND='$(subst ','\'',make $@ $(strip $(foreach v,$(1),$(if $($v),$v="$($v)"))))'

.DEFAULT_GOAL := help
.PHONY: help run-all verify compare report predict adapt onnx page benchmark pretrained bench test test-units test-notebooks test-browser test-robust lab import-data diff refresh site tiny badges lint lock audit clean

help: ## list the commands
	@echo "Retinal-vessel segmentation notebooks. Commands:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run-all: $(VENV)/.installed ## run the series: PRESET=tiny DATA=folder RUN=name ARGS="-p epochs 5" FRESH=1
	@$(call as_typed,PRESET DATA RUN FRESH ARGS) $(PY) -m retina_utils.commands run-all \
	  --preset $(PRESET) $(if $(DATA),--data "$(DATA)") $(if $(RUN),--run "$(RUN)") \
	  $(if $(FRESH),--fresh) $(ARGS)

verify: $(VENV)/.installed ## run a finished run anew and compare every result: RUN=name
	@$(if $(RUN),,echo 'Usage: make verify RUN=<name of a folder in outputs>' >&2; exit 2)
	@$(call as_typed,RUN ARGS) $(PY) -m retina_utils.commands verify "$(RUN)" $(ARGS)

compare: $(VENV)/.installed ## is run B better than run A, photograph by photograph? A=name B=name
	@$(if $(and $(A),$(B)),,echo 'Usage: make compare A=<name of a folder in outputs> B=<another>' >&2; exit 2)
	@$(PY) -m retina_utils.commands compare "$(A)" "$(B)" $(ARGS)

report: $(VENV)/.installed ## write the page of a finished run anew: RUN=name
	@$(if $(RUN),,echo 'Usage: make report RUN=<name of a folder in outputs>' >&2; exit 2)
	@$(PY) -m retina_utils.commands report "outputs/$(RUN)" $(ARGS)

test: test-units test-notebooks ## all tests: the package, then every notebook end to end

test-units: $(VENV)/.installed ## the package's tests alone
	$(PY) -m pytest tests --ignore tests/browser -n 2 --dist loadfile

# The notebooks run in a copy, just as they are, so that nothing here is touched. Imported data are
# gigabytes, and not needed.
test-notebooks: $(VENV)/.installed ## every notebook end to end on the tiny data (nbval)
	@copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && mkdir "$$copy/outputs" "$$copy/data" && \
	cp -r notebooks "$$copy" && cp -r data/README.md data/tiny "$$copy/data" && \
	mkdir "$$copy/benchmarks" && cp -r benchmarks/results "$$copy/benchmarks" && \
	cp tests/nbval_conftest.py "$$copy/conftest.py" && cp tests/nbval_outcome.py "$$copy/test_outcome.py" && \
	echo '[pytest]' > "$$copy/pytest.ini" && \
	RETINA_QUIET=1 $(PY) -m pytest --rootdir "$$copy" -c "$$copy/pytest.ini" -p no:cacheprovider \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout 900 --durations 5 \
	  "$$copy/notebooks" "$$copy/test_outcome.py"

test-robust: $(VENV)/.installed ## over 10,000 generated files and inputs for every reader (many minutes)
	$(PY) -m pytest tests/robust --hypothesis-profile many $(ARGS)

test-browser: $(VENV)/.installed ## the slider in JupyterLab, the report and both pages (needs Chromium)
	RETINA_REQUIRE_BROWSER=1 $(PY) -m pytest tests/browser -n 2 --dist loadfile

lab: $(VENV)/.installed ## open the notebooks in JupyterLab: ARGS="--no-browser --port 9999"
	@case "$$(id -u) $(ARGS)" in "0 "*--allow-root*) ;; "0 "*) echo 'JupyterLab does not start for root,' \
	  'for whoever reaches it is root then. If that is meant, as in a container: make lab ARGS="--allow-root' \
	  '--no-browser"' >&2; exit 2;; esac
	$(VENV)/bin/jupyter lab notebooks/01_data.ipynb $(ARGS)

import-data: $(VENV)/.installed ## an official download into data/: DATASET=fives|chase_db1|hrf|drive|stare SRC=…
	@$(if $(and $(DATASET),$(SRC)),,echo 'Usage: make import-data DATASET=chase_db1 SRC=<folder or archive>' >&2; exit 2)
	@$(PY) -m retina_utils.commands import-data "$(DATASET)" "$(SRC)" $(ARGS)

predict: $(VENV)/.installed ## vessel maps of your own photographs: IMAGES=folder-or-file OUT=folder WEIGHTS=file CLUSTER=local:2
	@$(if $(and $(IMAGES),$(OUT)),,echo 'Usage: make predict IMAGES=<folder or file> OUT=<folder>' >&2; exit 2)
	@$(call as_typed,IMAGES OUT WEIGHTS CLUSTER ARGS) \
	  $(PY) -m retina_utils.commands predict "$(IMAGES)" --out "$(OUT)" $(if $(WEIGHTS),--weights "$(WEIGHTS)") \
	  $(if $(CLUSTER),--cluster "$(CLUSTER)") $(ARGS)

adapt: $(VENV)/.installed ## fit the network to your camera by 2 to 20 annotated photographs: DATA=folder RUN=name WEIGHTS=file
	@$(if $(and $(DATA),$(RUN)),,echo 'Usage: make adapt DATA=<folder with images/ and masks/> RUN=<name>' >&2; exit 2)
	@$(call as_typed,DATA RUN WEIGHTS ARGS) $(PY) -m retina_utils.commands adapt "$(DATA)" --run "$(RUN)" \
	  $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(ARGS)

onnx: $(VENV)/.installed ## the network as an ONNX file for other programs: WEIGHTS=file
	@$(PY) -m retina_utils.commands onnx $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(ARGS)

page: $(VENV)/.installed ## the network as one HTML file that works offline, in any browser: WEIGHTS=file
	@$(PY) -m retina_utils.commands page $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(ARGS)

benchmark: $(VENV)/.installed ## the README's table by cross-validation: DATASET=chase_db1 (hours on a CPU)
	@$(if $(DATASET),,echo 'Usage: make benchmark DATASET=chase_db1' >&2; exit 2)
	@$(call as_typed,DATASET ARGS) $(PY) -m retina_utils.commands benchmark $(DATASET) $(ARGS)

bench: $(VENV)/.installed ## speed against baselines of the same run, one table: ARGS="scores topology" (minutes)
	@$(PY) benchmarks/bench.py $(ARGS)

pretrained: $(VENV)/.installed ## train the network in the box anew, on chase_db1, hrf and stare (hours on a CPU)
	@$(call as_typed,ARGS) $(PY) -m retina_utils.commands benchmark chase_db1 hrf stare --leave-one-out --ship retina_utils/weights/pretrained.pt $(ARGS)

diff: $(VENV)/.installed ## readable differences of the notebooks against the last commit: REF=main~1
	@$(VENV)/bin/nbdiff --ignore-metadata --ignore-id --ignore-details $(or $(REF),HEAD) -- notebooks

refresh: $(VENV)/.installed ## run the notebooks in place: the only way their committed outputs are made
	$(PY) tests/refresh_notebooks.py

site: $(VENV)/.installed ## the series, a report and the package as pages, in outputs/site: RUN=tiny
	@$(PY) -m retina_utils.commands site outputs/site --run "outputs/$(or $(RUN),tiny)"

tiny: $(VENV)/.installed ## draw data/tiny again from its seed
	$(PY) -m retina_utils.commands tiny data/tiny --force

badges: ## point the Colab badges at your repository: REPO=owner/name, or its address on GitHub
	@$(if $(REPO),,echo 'Usage: make badges REPO=owner/name' >&2; exit 2)
	@repo=$$(printf '%s\n' "$$REPO" | sed -E 's#^(https?://|ssh://git@|git@)?(www\.)?github\.com[:/]##; s#/+$$##; s#\.git$$##') && \
	if ! printf '%s\n' "$$repo" | grep -Eqx '[A-Za-z0-9-]+/[A-Za-z0-9._-]+'; then \
	  printf 'REPO=%s: expected owner/name, or an address such as https://github.com/owner/name\n' "$$REPO" >&2; exit 2; fi && \
	sed -E -i.bak "s#(github\.com|com/github)/[A-Za-z0-9._-]+/[A-Za-z0-9._-]+#\1/$$repo#g" notebooks/*.ipynb && rm notebooks/*.bak

lint: $(VENV)/.installed ## check style and formatting
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .

# No hashes in it: pip refuses them beside the --editable of environment.yml, and PyTorch's CPU index
# has other files of the same versions. What --generate-hashes finds would be true on PyPI alone.
lock: $(VENV)/.installed ## renew requirements.lock from pyproject.toml
	$(PY) -m pip install --quiet uv && $(VENV)/bin/uv pip compile pyproject.toml --extra dev \
	  --universal --python-version 3.11 --no-annotate --no-header --upgrade --output-file requirements.lock

# --strict: of a package that the service does not know, it would else say that all is well.
audit: $(VENV)/.installed ## known weaknesses of what requirements.lock pins (asks a service on the net)
	@$(PY) -m pip install --quiet pip-audit
	@said=$$(mktemp) && trap 'rm -f "$$said" "$$said.table"' EXIT && \
	  if $(VENV)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off --desc off \
	    -r requirements.lock --output "$$said.table" $(ARGS) 2>"$$said"; \
	  then echo "No known weakness in what requirements.lock pins for this Python and system."; \
	  elif test -s "$$said.table"; then cat "$$said.table"; exit 1; \
	  else echo "Nothing was audited: the service gave no answer ($$(tail -n 1 "$$said" | cut -c 1-200))." \
	    "Try again where the registry's advisories can be reached, or ask another: make audit ARGS='-s osv'." >&2; exit 2; fi

clean: ## remove what was built and run (outputs/, .venv); data/ stays
	test ! -d outputs || find outputs -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# Set-up happens by itself, once, and again when the pins change. TORCH_INDEX may name PyTorch's
# CPU index (see README): it saves 2.5 GB of CUDA libraries where there is no GPU. By itself that
# cannot happen: the registry's torch is linked to them and does not start without.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, found: $$($(PYTHON) --version 2>&1). Say PYTHON=..." >&2; exit 1; }
	@echo "Setting up $(VENV), once: downloads about $(if $(TORCH_INDEX),0.8 GB,3.3 GB on Linux; without an NVIDIA GPU 2.5 GB of it can be spared (README: TORCH_INDEX)) ..."
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
ifdef TORCH_INDEX
	@grep -E '^torch(vision)?==' requirements.lock | xargs $(PY) -m pip install --quiet --index-url $(TORCH_INDEX)
	@grep -vE '^(torch|torchvision|triton|cuda-|nvidia-)' requirements.lock > $(VENV)/cpu.lock
	@$(PY) -m pip install --quiet -r $(VENV)/cpu.lock
else
	@$(PY) -m pip install --quiet -r requirements.lock
endif
	@$(PY) -m pip install --quiet --no-deps --editable .
	@touch $@
