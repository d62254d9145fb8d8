#!/usr/bin/env python3
"""Runs an OpenAI SDK's own image tests against the real server.

    python3 tests/clients/sdk_suite.py ~/src/openai-python
    python3 tests/clients/sdk_suite.py ~/src/openai-node

The argument is the SDK's source folder (a clone, or the unpacked source archive). The tests upload placeholders that
are no pictures; in a copy of them, each placeholder becomes a real PNG. Nothing else of them is changed. Needs a built
easel, python3 with its venv module, and npm for the Node suite.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from server import ROOT, serving

PICTURE = ROOT / "tests/clients/picture.png"
PYTHON_TEST = "tests/api_resources/test_images.py"
NODE_TEST = "tests/api-resources/images.test.ts"
PYTHON_NEEDS = ["pytest==9.2.0", "pytest-asyncio==1.5.0", "pytest-xdist==3.8.0", "respx==0.23.1", "rich==14.2.0"]
NODE_NEEDS = ["jest@30.5.2", "@swc/core@1.16.22", "@swc/jest@0.2.39"]


def with_pictures(test, pattern, expression):
    """Puts `expression` in the place of every placeholder."""
    changed, places = re.subn(pattern, lambda _: expression, test.read_text())
    assert places, f"{test} has no placeholder {pattern}"
    test.write_text(changed)


def run_python(source, work, server):
    tests = work / "tests"
    shutil.copytree(source / "tests", tests, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(source / "pyproject.toml", work)
    with_pictures(work / PYTHON_TEST, r'b"Example data"', f'__import__("pathlib").Path({str(PICTURE)!r}).read_bytes()')
    subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
    python = work / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{source}[aiohttp]", *PYTHON_NEEDS], check=True)
    environment = os.environ | {"TEST_API_BASE_URL": server.base_url}
    command = [python, "-m", "pytest", "-n", "2", "-q", "--durations=0", PYTHON_TEST]
    return subprocess.run(command, cwd=work, env=environment).returncode


def run_node(source, work, server):
    version = json.loads((source / "package.json").read_text())["version"]
    test = work / "images.test.ts"
    shutil.copy(source / NODE_TEST, test)
    with_pictures(test, r"Buffer\.from\('[^']*'\)", f"require('fs').readFileSync({json.dumps(str(PICTURE))})")
    package = {"name": "suite", "private": True, "jest": {
        "transform": {"^.+\\.ts$": "@swc/jest"}, "testEnvironment": "node", "testTimeout": 60000}}
    (work / "package.json").write_text(json.dumps(package))
    subprocess.run(["npm", "install", "--silent", f"openai@{version}", *NODE_NEEDS], cwd=work, check=True)
    environment = os.environ | {"TEST_API_BASE_URL": server.base_url}
    return subprocess.run(["npx", "jest", "--verbose"], cwd=work, env=environment).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, help="the SDK's source folder")
    source = parser.parse_args().source.resolve()
    suites = {PYTHON_TEST: run_python, NODE_TEST: run_node}
    suite = next((run for test, run in suites.items() if (source / test).exists()), None)
    if suite is None:
        parser.error(f"source must hold {' or '.join(suites)}; {source} has neither")
    with tempfile.TemporaryDirectory() as work, serving() as server:
        sys.exit(suite(source, pathlib.Path(work), server))


if __name__ == "__main__":
    main()
