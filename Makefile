# The commands of the README. Each does its own set-up; Python 3.11+ and make are all it takes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt

.PHONY: run test check topology containers chaos prove soak stress bench setup setup-dev

run: setup ## the whole service on this machine
	@exec $(BIN)/yolo-queue up

test: setup-dev ## all tests but the long ones
	$(BIN)/pytest --numprocesses 2 --max-worker-restart 0 --dist loadfile \
		--ignore tests/topology --ignore tests/containers

topology: setup-dev ## Sentinel, TLS, a full disk, power cuts, several hosts (as root), several queues
	$(BIN)/pytest tests/topology

containers: setup-dev ## the images and docker-compose.yml on a container engine; as root a private one
	$(BIN)/pytest -rP -o faulthandler_timeout=0 tests/containers

check: setup-dev ## lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

setup: $(VENV)/.up
setup-dev: $(VENV)/.dev

$(BIN)/uv: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@touch $@

# Without an NVIDIA driver PyTorch's CPU build will do, a third of the size; where its index is out
# of reach, the default build works on the CPU too.
$(VENV)/.%: pyproject.toml constraints.txt $(BIN)/uv
	@echo "Installing into $(VENV) ..."
	@if command -v nvidia-smi >/dev/null || ! UV_HTTP_TIMEOUT=5 UV_HTTP_RETRIES=0 $(UV) --torch-backend=cpu -e . --group $* 2>/dev/null; then \
		$(UV) -e . --group $*; fi
	@touch $@

chaos: setup-dev ## kill everything in turn under load, then account for every job
	$(BIN)/python -m tests.chaos $(CHAOS)

prove: setup-dev ## random histories and every interleaving, on the real scripts, against a model
	$(BIN)/python -m tests.proofs $(PROVE)

soak: setup-dev ## 20,000 jobs with a no-op detector; memory, files and keys must not grow
	$(BIN)/python -m bench.soak $(SOAK)

stress: setup-dev ## 100 images of 12 megapixels at a service that runs; every one accounted for
	$(BIN)/yolo-queue stress $(STRESS)

bench: setup-dev ## most figures of docs/performance.md and docs/scaling.md, into bench/results
	$(UV) -e . --group dev --group bench --override bench/overrides.txt
	$(BIN)/python -m bench.throughput $(BENCH)
	$(BIN)/python -m bench.submit_latency $(BENCH)
	$(BIN)/python -m bench.memory $(BENCH)
	$(BIN)/python -m bench.first_picture $(BENCH)
	$(BIN)/python -m bench.queue_plane
	$(BIN)/python -m bench.flat_cost
	$(BIN)/python -m bench.scaling
	$(BIN)/python -m bench.distance
	$(BIN)/python -m bench.waiters
	$(BIN)/python -m bench.chart
