"""OpenAI's Node SDK against the real server (node/images.test.js)."""

import os
import pathlib
import subprocess

from server import serving

KEY = "sk-a-key-of-the-tests"


def test_the_node_sdk_does_all_it_can():
    folder = pathlib.Path(os.environ["EASEL_NODE_FOLDER"])
    with serving("--max-queue", "2", EASEL_API_KEYS=KEY) as server:
        environment = os.environ | {"EASEL_URL": server.base_url, "EASEL_KEY": KEY}
        subprocess.run(["npm", "test"], cwd=folder, env=environment, check=True)
