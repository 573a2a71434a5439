"""Runs a query of DuckDB and prints its rows as JSON: a program for ``.venv-clients``."""

from __future__ import annotations

import json
import sys

import duckdb

sys.stdout.write(json.dumps(duckdb.execute(sys.argv[1]).fetchall(), default=str))
