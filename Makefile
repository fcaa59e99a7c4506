# Each target does its own set-up. They are thin: scripts/demo and scripts/test are the same without make.
#
#   make demo
#   make test                              lint, types and tests
#   make test ARGS="tests/engine -k wire"  only these tests
#   make test-rdma                         the tests that need RDMA devices, in a virtual machine
#   make test-serving                      the tests with real vLLM engines, on the CPU
#   make test PYTHON=python3.13 VENV=.venv-3.13

export PYTHON VENV

.PHONY: demo test test-rdma test-serving clean

demo:
	@sh scripts/demo $(ARGS)

test:
	@sh scripts/test $(ARGS)

test-rdma:
	@sh scripts/test-rdma $(ARGS)

test-serving:
	@sh scripts/test-serving $(ARGS)

clean:
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
