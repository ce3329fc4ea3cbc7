# Needs Python 3.11 or newer and make; everything else is installed into .venv from requirements.lock, once.
# Another interpreter: make PYTHON=python3.13 test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-hardware hardware-packages lint ops-check alerts-live load-locust load-rolling closed-open bench bench-bytes bench-cluster bench-sizes bench-framers bench-page bench-camera bench-tracing bench-till bench-console bench-logs bench-rebuild chaos chaos-planted cluster fuzz rolling sim tour lock clean

demo: $(INSTALLED)
	$(BIN)/tillgate demo

# Four files at a time, on two cores: most tests wait for other processes.
test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile

# Scanners against a real kernel in a virtual machine: USB serial, HID, keyboards, unplugged and plugged in. One test:
# make test-hardware HARDWARE="-- -k ssi". It needs QEMU and Debian's apt-get, and says so where they are absent, which
# is a failure only with HARDWARE_REQUIRED=1. The kernel (70 MB) is downloaded once, into ~/.cache/tillgate.
test-hardware: $(INSTALLED)
	$(BIN)/python tests/hardware/run.py $(HARDWARE)

# What it needs, ahead of time: QEMU installed (root), the kernel downloaded.
hardware-packages: $(INSTALLED)
	apt-get install --yes --no-install-recommends qemu-system-x86
	$(BIN)/python tests/hardware/run.py --fetch

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layout.py

# Everything under ops/, offline: rules and their unit tests, Alertmanager, and whatever else lies in tests/ops. The same
# tests are part of `make test`, where they skip what this machine has no program for; here that is a failure.
ops-check: $(INSTALLED)
	@$(BIN)/python -c 'import kubernetes_validate' 2>/dev/null || $(BIN)/python -m pip install -qq --editable '.[ops]'
	$(BIN)/python -m pytest tests/ops --require-tools

# Alerts, tried for real: a Prometheus and an Alertmanager of their own watch a gateway that is broken in a dozen ways,
# with time-scaled rules. Ten minutes. Needs prometheus, prometheus-alertmanager and cc; the full disk needs root.
alerts-live: $(INSTALLED)
	ALERTS_LIVE=1 $(BIN)/python -m pytest -v -rs tests/fault/test_alerts_live.py

bench: $(INSTALLED)
	$(BIN)/tillgate bench

# Whether a scan costs the same after ten thousand redemptions and after ten million; the last size writes 3 GB and takes
# some minutes. A few of them: make bench-sizes SIZES=10000,1000000
SIZES ?= 10000,100000,1000000,10000000
bench-sizes: $(INSTALLED)
	$(BIN)/python -m loadtest.bench_sizes --sizes $(SIZES)

# What a million redeemed vouchers take in Valkey, in the log and in the index.
bench-bytes: $(INSTALLED)
	$(BIN)/python -m gateway.state_bench

# A scenario from Locust, against a gateway of its own: make load-locust SCENARIO=mixed WORKERS=2. Against yours, with
# TILLGATE_ADMIN_TOKEN in the environment: make load-locust LOCUST="--host http://gateway:8080". The same with its web
# page: the line below without --headless.
SCENARIO ?= smoke
load-locust: $(INSTALLED)
	$(BIN)/locust -f loadtest/locustfile.py --headless --only-summary --verify --scenario $(SCENARIO) \
	  $(if $(WORKERS),--processes $(WORKERS)) $(LOCUST)

# The scenario rolling-restart with two workers on PostgreSQL, then verified: make load-rolling LOAD="--seconds 20"
load-rolling: $(INSTALLED)
	$(BIN)/python tests/load_rolling.py $(LOAD)

# What a closed model hides: a gateway frozen for five seconds, measured by both kinds of test. Two minutes.
closed-open: $(INSTALLED)
	$(BIN)/python -m loadtest.closed_open $(CLOSED_OPEN)

# The project itself is installed last, without build isolation, so that its build needs are pinned as well.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tillgate needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; try: make PYTHON=python3.11")'
	@echo "Installing into $(VENV) (once, about a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@

# make chaos FAULTS=1000, or SECONDS=480 for as many as fit; SEED=7 for a schedule that was seen before. With many answers
# around each fault: make chaos FAULTS=1000 ANSWERS=10000000
FAULTS ?= 100
SECONDS ?= 0
ANSWERS ?= 0
chaos: $(INSTALLED)
	$(BIN)/python tests/fault/chaos.py --faults $(FAULTS) --seconds $(SECONDS) --answers $(ANSWERS) \
	  $(if $(filter-out 0,$(ANSWERS)),--rate 30000 --scans 240) $(if $(SEED),--seed $(SEED)) $(CHAOS)

# From the end of a frame to the cashier's page, drawn; needs chromium, and says so.
bench-page: $(INSTALLED)
	$(BIN)/python tests/bench_page.py

bench-framers: $(INSTALLED)
	$(BIN)/python tests/bench_framers.py

# One till daemon: CPU when idle, scan to verdict, memory over SCANS scans.
SCANS ?= 100000
bench-till: $(INSTALLED)
	$(BIN)/python tests/bench_till.py --scans $(SCANS)

# The pictures of the README: a demo run, served and looked at in Chromium.
tour: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python tests/tour.py

# What OpenTelemetry spans cost a message, on and off.
bench-tracing: $(INSTALLED)
	@$(BIN)/python -c 'import opentelemetry.sdk' 2>/dev/null || $(BIN)/python -m pip install -qq --editable '.[otel]'
	$(BIN)/python tests/bench_tracing.py

# What metrics and an open console cost: CPU a verdict, watched and not, ten pairs (five minutes). On a quiet machine.
bench-console: $(INSTALLED)
	$(BIN)/python tests/bench_console.py $(if $(PAIRS),--pairs $(PAIRS))

# Drawn phone screens: what share of each kind is read, and at what cost. PICTURES=100 for more of each kind.
PICTURES ?= 24
bench-camera: $(INSTALLED)
	$(BIN)/python tests/bench_camera.py --pictures $(PICTURES)

# How long, in seconds: make fuzz FUZZ_S=600. Guided by coverage where atheris is installed (extra `fuzz`).
FUZZ_S ?= 60
fuzz: $(INSTALLED)
	FUZZ_S=$(FUZZ_S) $(BIN)/python tests/fuzz_framers.py

# Whether the chaos runs find gateways that were broken on purpose.
chaos-planted: $(INSTALLED)
	CHAOS_PLANTED=1 $(BIN)/python -m pytest -k broken_on_purpose tests/fault/test_chaos.py

# Replaces the workers of a gateway on PostgreSQL one after another under load: make rolling RATE=2000 SECONDS=30
RATE ?= 2000
rolling: $(INSTALLED)
	$(BIN)/python tests/rolling.py --rate $(RATE) --seconds $(if $(filter-out 0,$(SECONDS)),$(SECONDS),30) --workers $(or $(WORKERS),2)

# State from the log: snapshot, start, rebuild, load, beside controls: make bench-rebuild EVENTS=10000000 (some minutes)
EVENTS ?= 1000000
bench-rebuild: $(INSTALLED)
	$(BIN)/python tests/bench_rebuild.py --events $(EVENTS)

BENCH ?= --rows b,c
# The same rows with the log in SQLite, in PostgreSQL, and in NATS: make bench-logs BENCH="--rows b,c --seconds 4"
bench-logs: $(INSTALLED)
	$(BIN)/python tests/bench_logs.py $(BENCH)

# Two gateways on PostgreSQL and a Valkey Cluster: a primary is stopped, replaced, and wakes without knowing it.
cluster: $(INSTALLED)
	CLUSTER=1 $(BIN)/python -m pytest -v -rs tests/fault/test_cluster.py

# What a Valkey Cluster costs a gateway beside one Valkey, in turns: make bench-cluster ROUNDS=9
ROUNDS ?= 5
bench-cluster: $(INSTALLED)
	$(BIN)/python tests/bench_cluster.py --rounds $(ROUNDS)

# The simulator; 2,000 seeds take two to three minutes on two cores. For an hour, and the same again goes on there:
# make sim SEEDS=200000 SIM="--minutes 60 --done build/sim.json". One seed again, with its trace:
# .venv/bin/python tests/sim/run.py --seed N --trace. Every planted bug: make sim SIM=--planted
# Each fault at every step of short runs, some minutes: make sim SIM=--every-step
SEEDS ?= 2000
sim: $(INSTALLED)
	$(BIN)/python tests/sim/run.py --seeds $(SEEDS) $(SIM)

# Pins the newest releases that pyproject.toml allows, with the hashes of all their files, for every platform.
lock:
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip install --quiet uv
	$(VENV)-lock/bin/uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
	  --extra gateway --extra postgres --extra jetstream --extra otel --extra load --extra locust --extra terminal --extra camera --extra receipt --extra dev --output-file requirements.lock
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) $(VENV)-lock build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find gateway devices eventstore loadtest tests -name __pycache__ -type d -prune -exec rm -rf {} +
