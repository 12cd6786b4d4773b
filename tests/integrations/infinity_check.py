# /// script
# dependencies = ["infinity-emb[server,torch]==0.0.78", "numba", "openai==3.57.0", "torch"]
# ///
"""LAM in infinity, a server that speaks OpenAI's API. It runs the code of the model folder, without lam-model."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from golden import TEXTS, check
from openai import OpenAI

COMMAND = "infinity_emb v2 --model-id my-lam --trust-remote-code --url-prefix /v1 --host 127.0.0.1 --port 7997"
PATIENCE = 900  # seconds until it has loaded the model and read a first batch, on a machine that is busy


def wait(server):
    for _ in range(PATIENCE):
        if server.poll() is not None:
            sys.exit(f"infinity has ended with {server.returncode}")
        try:
            return urllib.request.urlopen("http://127.0.0.1:7997/health")
        except OSError:
            time.sleep(1)
    sys.exit("infinity does not answer")


program, *arguments = COMMAND.split()
server = subprocess.Popen([Path(sys.executable).parent / program, *arguments], env=os.environ | {"DO_NOT_TRACK": "1"})
try:
    wait(server)
    client = OpenAI(base_url="http://127.0.0.1:7997/v1", api_key="none")
    answer = client.embeddings.create(model="my-lam", input=TEXTS)
    vectors = [row.embedding for row in answer.data]
finally:
    server.terminate()
    server.wait()
check(vectors, COMMAND)
