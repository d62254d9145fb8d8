#!/usr/bin/env python3
"""Sends thousands of generated requests, valid and not, and holds every answer against the OpenAPI document.

    pip install -r tests/clients/requirements.txt && python3 tests/clients/schema.py --examples 2000

A tiny model draws (tests/fixtures/tiny), so that a picture takes milliseconds. No answer may be a 5xx, have a status or
a body that the document does not know, accept what the document forbids, or refuse what it allows.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from server import ROOT, serving

HERE = pathlib.Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=25, help="generated requests of each route [default: 25]")
    parser.add_argument("--seed", type=int, default=1)
    arguments, more = parser.parse_known_args()
    # The hooks lie in this file's folder, which Schemathesis imports them from.
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)}
    with tempfile.TemporaryDirectory() as work:
        # A copy: beside its model a server keeps what it has measured of it.
        model = shutil.copytree(ROOT / "tests/fixtures/tiny/a", pathlib.Path(work) / "tiny")
        with serving("--model", str(model)) as server:
            command = [
                pathlib.Path(sys.executable).with_name("schemathesis"), "run", f"{server.address}/openapi.json",
                "--checks", "all", "--max-examples", str(arguments.examples), "--seed", str(arguments.seed),
                "--request-timeout", "60", "--max-response-time", "60", "--continue-on-failure", *more,
            ]
            status = subprocess.run(command, cwd=work, env=environment).returncode
    sys.exit(status)


if __name__ == "__main__":
    main()
