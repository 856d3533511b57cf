# Each target is a line that calls cargo or a script. `make demo` and `make test` set up what they need by themselves.
.PHONY: help demo test e2e bench crds lint fmt docs

help:  ## What there is.
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/'

demo:  ## A hundred devices get certificates and then new ones, in waves. DEVICES=n; KEEP=1 leaves it running.
	@e2e/run demo

test:  ## Everything: unit, property and end-to-end tests, foreign verifiers.
	@e2e/run test

e2e:  ## The end-to-end tests alone. CERTWAVE_E2E_CLUSTER=current runs them on the current cluster.
	@e2e/run e2e

bench:  ## Speed and memory, printed and written to target/bench/results.json.
	@e2e/run bench

crds:  ## Writes the CRDs' YAML from the Rust types.
	cargo run -q -p certwave-crds --bin crds-gen

lint:  ## Formatting and lints.
	cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings

fmt:  ## Formats the code.
	cargo fmt --all

docs:  ## The API documentation; warnings are errors.
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
