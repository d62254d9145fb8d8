"""Generated requests, a few of each kind (schema.py sends as many as one likes)."""

import pathlib
import subprocess
import sys


def test_every_answer_is_as_the_openapi_document_says():
    script = pathlib.Path(__file__).with_name("schema.py")
    subprocess.run([sys.executable, script], check=True)
