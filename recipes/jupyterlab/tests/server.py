"""Start JupyterLab as a user would, read its page, and run code in a kernel of the server."""

import json
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

TOKEN = "test"


def ask(port, path, data=None):
    headers = {"Authorization": f"token {TOKEN}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read().decode()


with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
folder = tempfile.mkdtemp()
options = [f"--port={port}", f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}", "--allow-root"]
server = subprocess.Popen(["jupyter", "lab", "--no-browser", "--ip=127.0.0.1", *options])
try:
    for _ in range(100):
        try:
            page = ask(port, "/lab")
            break
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, "the server has ended"
            time.sleep(0.5)
    else:
        raise AssertionError("the server does not answer")
    assert "<title>JupyterLab</title>" in page, page[:500]
    kernel = json.loads(ask(port, "/api/kernels", b'{"name": "python3"}'))
    assert kernel["name"] == "python3", kernel
finally:
    server.terminate()
    server.wait(30)
print("answered, with a kernel")
