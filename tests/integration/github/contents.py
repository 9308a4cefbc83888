"""The endpoint of our GitHub that reads a file of a branch."""

from __future__ import annotations

import base64

from tests.integration.github.endpoints import Asked, endpoint, sent
from tests.integration.github.repository import HOST, NAME, OWNER, REPO, Answer, Refusal, Remote


@endpoint("GET", REPO + "/contents/{path}")
def get_content(remote: Remote, asked: Asked) -> Answer:
    branch, path = asked.query["ref"], asked.values["path"]
    if remote.git.ref(f"refs/heads/{branch}") is None:
        raise Refusal(404, f"No commit found for the ref {branch}")
    content = remote.git.files(branch).get(path, ("", None))[1]
    if content is None:
        raise Refusal(404, "Not Found")
    sha, page = remote.git.blob(content), f"{HOST}/{OWNER}/{NAME}/blob/{branch}/{path}"
    here, blob = f"{remote.here}/contents/{path}?ref={branch}", f"{remote.here}/git/blobs/{sha}"
    return sent(
        200,
        {
            "type": "file",
            "encoding": "base64",
            "size": len(content),
            "name": path.rpartition("/")[2],
            "path": path,
            "content": base64.encodebytes(content).decode(),  # with line ends, as GitHub sends it
            "sha": sha,
            "url": here,
            "git_url": blob,
            "html_url": page,
            "download_url": page,
            "_links": {"self": here, "git": blob, "html": page},
        },
    )
