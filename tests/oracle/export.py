#!/usr/bin/env python3
"""Writes the cases of a suite as JSON, for the Rust replay (tests/conformance.rs).

  export.py base cases_base.json

Run it after a change of cases*.py and commit what it wrote.
"""
import json, sys

import cases

suite, out = sys.argv[1:]
with open(out, "w", encoding="utf-8") as f:
    f.write("[\n")
    f.write(",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases.SUITES[suite]))
    f.write("\n]\n")
