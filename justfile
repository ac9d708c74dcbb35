# Tasks of the project: `just` lists them. The tools come from the extra `dev`, `just` itself among them.

[private]
default:
    @just --list --unsorted

# every test, the examples in docstrings and pages among them; more words go to pytest
test *words:
    pytest -n auto --dist worksteal {{ words }}

# the tests to run while working: under a minute on two cores
fast *words:
    pytest -n auto -m "not slow and not processors" {{ words }}

# the tests that compile kernels for other instruction sets than this machine's best
processors *words:
    pytest -n auto -m processors {{ words }}

# what reads the code and does not run it
lint:
    ruff check .
    ruff format --check .
    mypy

# write the code as ruff formats it
format:
    ruff check --fix .
    ruff format .

# the site, with warnings as errors and nothing loaded from elsewhere
docs folder="site":
    sphinx-build -q -W --keep-going -b html docs {{ folder }}
    ! grep -rlE '<(script|img|iframe)[^>]* src="https?:|<link[^>]* href="https?:' {{ folder }} --include='*.html'

# kquant beside ggml, gguf-py and libgguf; `just bench --help` tells the options
bench *words:
    python -m benchmarks {{ words }}

# all that must hold before a change lands, from nothing, in a new virtual environment
ci:
    bash .ci/run
