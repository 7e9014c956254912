# What people, hooks and CI run. Every target is safe to repeat.
#
#   make up      install and start Rootlink here          make down    stop what runs detached
#   make test    install what tests need; run everything  make demo    the main path, played on a throw-away home
#   make lint    style and the import law                 make types   mypy --strict, tsc
#   make bench   the benchmarks                           make lock    write requirements/*.txt anew

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin

.PHONY: help install install-test install-bench up down test lint types format bench demo lock

help:
	@sed -n 's/^#   /  /p' Makefile

install:
	@scripts/install run
	@scripts/console

install-test:
	@scripts/install test
	@scripts/console

install-bench:
	@scripts/install bench
	@scripts/console

up: install
	@$(BIN)/rootlink up

down:
	@if [ -x $(BIN)/rootlink ]; then $(BIN)/rootlink down; fi

test: install-test
	@scripts/packages
	@$(MAKE) --no-print-directory lint types
	@$(BIN)/pytest

lint: install-test
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports

types: install-test
	@$(BIN)/mypy
	@scripts/console check

format: install-test
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: install-bench
	@$(BIN)/python bench/main_path.py
	@$(BIN)/python bench/hop.py
	@$(BIN)/python bench/functions.py
	@$(BIN)/python bench/gate.py
	@$(BIN)/python bench/connect.py

demo: install-test
	@$(BIN)/python demo/main_path.py

lock: install-test
	@scripts/lock
