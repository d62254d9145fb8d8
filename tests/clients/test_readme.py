"""Every curl line of the README, run as it stands but for the server's address."""

import pathlib
import re
import subprocess

import pytest
from PIL import Image

from server import ROOT, serving

README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8080"
BLOCKS = [block for block in re.findall(r"```sh\n(.*?)```", README, re.S) if block.startswith("curl")]


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


def test_the_readme_has_curl_lines():
    assert BLOCKS


@pytest.mark.parametrize("block", BLOCKS)
def test_a_curl_line_works_when_pasted(block, server, tmp_path):
    (tmp_path / "picture.png").write_bytes((ROOT / "tests/clients/picture.png").read_bytes())
    (tmp_path / "mask.png").write_bytes((ROOT / "tests/clients/mask.png").read_bytes())
    there = set(tmp_path.iterdir())
    shell = ["bash", "-o", "pipefail", "-ec", block.replace(ADDRESS, server.address)]
    output = subprocess.run(shell, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    files = set(tmp_path.iterdir()) - there
    for file in files:
        Image.open(file).load()
    assert files or '"error"' not in output and output
