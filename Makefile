# Each target is a line that calls cargo or a script. `make demo` and `make test` set up what they need by themselves.
.PHONY: help demo test integration e2e bench bench-peers bench-page fuzz torture model soak crds chart images krew lint fmt docs

help:  ## What there is.
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/'

demo:  ## A hundred devices get certificates and then new ones, in waves. DEVICES=n; KEEP=1 leaves it running.
	@e2e/run demo

test:  ## Everything: unit, property and end-to-end tests, foreign verifiers.
	@e2e/run test

integration:  ## The tests on a real API server and a real broker alone. CERTWAVE_E2E_CLUSTER=current runs them on the current cluster.
	@e2e/run integration

e2e:  ## The chart on a kind cluster, with 200 devices in pods. KIND_NODE_IMAGE chooses the node's image.
	@e2e/run kind

bench:  ## Speed and memory, into target/bench/results.json. GROUPS="crl ocsp" measures these alone, CRL_ENTRIES=n and CERTWAVE_BENCH_DIVISOR=n take a quick look.
	@e2e/run bench $(GROUPS)

bench-peers:  ## Certwave beside openssl, hyper, rcgen, Go, step-ca and cert-manager, into docs/benchmarks.md. GROUPS="crl rotation", ROUNDS=5, CERTWAVE_BENCH_DIVISOR=100 for a quick look.
	@e2e/run bench peers $(GROUPS)

bench-page:  ## Writes docs/benchmarks.md from docs/benchmarks.json.
	cargo run -q -p certwave-e2e --bin certwave-bench -- peers-page

fuzz:  ## Ten million random and mutated inputs through every parser of bytes from outside. SEED=n, INPUTS=n.
	@e2e/run fuzz

torture:  ## Everything goes wrong for ten minutes under 200 devices that rotate. SEED=n, MINUTES=n, DEVICES=n, LEDGER=sqlite or postgres.
	@e2e/run torture

model:  ## Every state of controller and device with up to three faults: minutes, and some GiB.
	cargo run --release -q -p certwave-proof -- 2

soak:  ## The operator and all around it in simulated time, seed after seed. HOURS=n, MINUTES=n, SEEDS=n, FROM=n, DEVICES=n, PATIENCE=seconds for each, MUTANT=name, KEEP_GOING=1; SEED=n replays one.
	cargo run --release -q -p certwave-simulation --bin certwave-soak

crds:  ## Writes the CRDs' YAML and docs/crds.md from the Rust types.
	cargo run -q -p certwave-crds --bin crds-gen

chart:  ## Writes what is made from the Helm chart: its README, snapshots, the tests' RBAC.
	cargo run -q -p certwave-e2e --bin certwave-chart

images:  ## The images, around static programs that are built here. TAG=version
	@e2e/images/build $(TAG)

krew:  ## The kubectl plugin's archive for this machine, and its krew manifest, in target/krew.
	@cli/krew

lint:  ## Formatting and lints.
	cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings

fmt:  ## Formats the code.
	cargo fmt --all

docs:  ## The API documentation; warnings are errors.
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
