# Needs Python >= 3.11 with venv, a C compiler and make; everything else is fetched into .venv and .tox.
# Everything goes through tox: tox.ini names the checks.

TOX = .venv/bin/tox run

.PHONY: help demo test bench gate ledger docs develop clean

help:
	@echo "make demo     run a pipeline of real processes over the ring"
	@echo "make test     run every check"
	@echo "make bench    print the benchmark table"
	@echo "make gate     say whether the working tree is slower than what it is based on"
	@echo "make ledger   print the reliability ledger"
	@echo "make docs     build the documentation and run its examples"
	@echo "make develop  install the packages, editable, and all tools into .venv"
	@echo "make clean    remove everything that was built or fetched"

demo bench ledger docs: .venv/ready
	@$(TOX) -e $@

gate: .venv/ready
	@$(TOX) -e gate -- --full

test: .venv/ready
	@$(TOX)

develop: .venv/ready
	.venv/bin/python -m pip install --constraint constraints.txt --group checks \
	    --editable packages/sage-qd --editable packages/sage-compat --editable packages/sage-sim

# A .venv that works is kept. Otherwise: the first interpreter that is new enough, has venv, and really runs; a pyenv shim
# of a version that is not selected stands on the path and fails. Set PYTHON to choose another.
.venv/ready: constraints.txt
	@.venv/bin/python -c 'import pip' 2>/dev/null || \
	for python in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14 \
	    "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.*/bin/python3; do \
	    if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        "$$python" -c 'import sys; print("making .venv with", sys.executable, sys.version.split()[0])'; \
	        "$$python" -m venv --clear .venv && break; \
	    fi; \
	done
	@.venv/bin/python -c 'import pip' || { echo "needs Python >= 3.11 with venv; set PYTHON to name one" >&2; exit 1; }
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip tox
	@touch $@

clean:
	rm -rf .venv .tox build docs/_build packages/*/build packages/*/src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	find packages proof benchmarks docs -name __pycache__ -prune -exec rm -rf {} +
	find packages -name '*.so' -delete
