from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from factory.check.readiness.forms import FORMS, TELLING
from tests.unit.check.readiness.images import findings, places
from tests.unit.check.readiness.test_hidden import environment
from tests.unit.sif.packing import write

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n"
SECRET = "hunter2-" + "q" * 8
TOKEN = "ghp_" + "a1B2" * 9

FILES = {
    "/root/.netrc": f"machine x.org login me password {SECRET}\n",
    "/root/.git-credentials": f"https://me:{SECRET}@git.example.org\n",
    "/opt/app/.git/config": f'[remote "origin"]\n\turl = https://me:{SECRET}@x.org/a.git\n',
    "/root/.docker/config.json": '{"auths": {"x.org": {"auth": "bWU6aHVudGVyMg=="}}}',
    "/root/.pypirc": f"[pypi]\nusername = me\npassword = {SECRET}\n",
    "/etc/pip.conf": f"[global]\nindex-url = https://me:{SECRET}@pypi.x.org/simple\n",
    "/root/.config/uv/uv.toml": f'[[index]]\nurl = "https://me:{SECRET}@pypi.x.org/simple"\n',
    "/root/.condarc": "channels:\n  - https://conda.x.org/t/ab-12345678-cd/channel\n",
    "/root/.npmrc": f"//registry.x.org/:_authToken={SECRET}\n",
    "/root/.aws/credentials": f"[default]\naws_secret_access_key = {SECRET}\n",
    "/root/.s3cfg": f"[default]\nsecret_key = {SECRET}\n",
    "/root/.config/rclone/rclone.conf": f"[a]\ntype = sftp\npass = {SECRET}\n",
    "/opt/service-account.json": f'{{"type": "service_account", "private_key": "{SECRET}"}}',
    "/root/.azure/msal_token_cache.json": f'{{"secret": "{SECRET}"}}',
    "/root/.kube/config": f"users:\n- name: a\n  user:\n    token: {SECRET}\n",
    "/root/.config/gh/hosts.yml": f"github.com:\n    oauth_token: {SECRET}\n",
    "/root/.cache/huggingface/token": "hf_" + "aB" * 17,
    "/root/.kaggle/kaggle.json": f'{{"username": "me", "key": "{SECRET}"}}',
    "/root/.my.cnf": f"[client]\npassword={SECRET}\n",
    "/root/.pgpass": f"localhost:5432:db:me:{SECRET}\n",
    "/root/.vault-token": f"{SECRET}\n",
    "/opt/app/.env": f"DEBUG=1\nDJANGO_SECRET={SECRET}\n",
    "/root/.Renviron": f"GITHUB_PAT={SECRET}\n",
    "/etc/apt/auth.conf.d/x.conf": f"machine x.org login me password {SECRET}\n",
    "/etc/apt/sources.list.d/x.list": f"deb https://me:{SECRET}@x.org/debian stable main\n",
}
KEYS = ("/root/.ssh/id_ed25519", "/etc/ssl/server.key", "/opt/app/key.pem", "/home/a/.ssh/deploy_rsa")
HARMLESS = {
    "/root/.netrc": "machine x.org login me password $TOKEN\n",
    "/etc/pip.conf": "[global]\nindex-url = https://pypi.x.org/simple\n",
    "/opt/a/pip.conf": "index-url = https://user:password@x.org/simple\n",
    "/opt/app/.env": "DJANGO_SECRET=change-me-now\nAPI_KEY=your-key\nTOKEN=<token>\nSECRET_FILE=/run/secret\n",
    "/root/.docker/config.json": '{"auths": {}, "credsStore": "pass"}',
    "/opt/ca.pem": "-----BEGIN CERTIFICATE-----\nMIID\n",
    "/usr/lib/python3/dist-packages/twisted/test/key.pem": KEY,
    "/opt/v/lib/python3.11/site-packages/tornado/test/test.key": KEY,
    "/usr/share/doc/x/examples/id_rsa": KEY,
    "/opt/app/tests/key.pem": KEY,
    "/opt/app/public.key": "-----BEGIN PUBLIC KEY-----\nMIIB\n",
    "/opt/app/.aws/credentials": "[default]\naws_secret_access_key = EXAMPLEKEYEXAMPLE\n",
}


def write_all(folder: Path, contents: dict[str, str]) -> None:
    for path, content in contents.items():
        write(folder, path, content)


def test_each_kind_of_file_with_a_login_is_found_and_what_it_holds_is_never_shown(tmp_path: Path) -> None:
    for number, part in enumerate([dict(list(FILES.items())[at : at + 9]) for at in range(0, len(FILES), 9)]):
        found = findings(tmp_path / str(number), partial(write_all, contents=part))
        assert {one.place for one in found if one.code == "secret"} == set(part)
        assert all(one.blocks for one in found if one.code == "secret")
        assert SECRET not in str([one.to_json() for one in found])


def test_every_form_of_a_file_is_tried_above() -> None:
    paths = FILES.keys()
    for form in FORMS:
        assert any(form.path.fullmatch(path) and form.is_in(FILES[path].encode()) for path in paths), form.path.pattern
    assert all(TELLING.fullmatch(path.rpartition("/")[2]) for path in paths)


def test_private_keys_are_found_but_not_those_of_packages(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda folder: write_all(folder, dict.fromkeys(KEYS, KEY)))
    assert {one.place for one in found if one.code == "secret"} == set(KEYS)


def test_what_looks_like_a_secret_but_is_none_is_not_reported(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda folder: write_all(folder, HARMLESS))
    assert [one for one in found if one.code == "secret"] == []


def test_a_key_that_a_package_made_is_a_warning(tmp_path: Path) -> None:
    found = findings(tmp_path, lambda folder: write(folder, "etc/ssh/ssh_host_rsa_key", KEY, mode=0o600))
    assert [(one.place, one.severity) for one in found if one.code == "secret"] == [
        ("/etc/ssh/ssh_host_rsa_key", "warning")
    ]


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("/.singularity.d/Singularity", f"Bootstrap: docker\n%post\n git clone https://x:{SECRET}@x.org/a.git\n"),
        ("/.singularity.d/Singularity", f"%post\n    curl -H 'Authorization: token {TOKEN}' https://x.org\n"),
        ("/.singularity.d/env/90-environment.sh", f"export TOOL_LOGIN={TOKEN}\n"),
        ("/.singularity.d/env/90-environment.sh", f"export https_proxy=http://me:{SECRET}@proxy:3128\n"),
        ("/.singularity.d/runscript", f"#!/bin/sh\nexport AWS=AKIA{'Q7' * 8}\nexec tool\n"),
        ("/.singularity.d/labels.json", f'{{"note": "{TOKEN}"}}'),
    ],
)
def test_tokens_and_logins_in_the_images_own_scripts_are_found(tmp_path: Path, place: str, content: str) -> None:
    found = [one for one in findings(tmp_path, lambda folder: write(folder, place, content, mode=0o755)) if one.blocks]
    assert [(one.code, one.place) for one in found] == [("secret", place)]
    assert SECRET not in found[0].message
    assert TOKEN not in found[0].message


def test_variables_with_telling_names_and_fixed_values_are_found(tmp_path: Path) -> None:
    lines = f"""
export DB_PASSWORD={SECRET} WANDB_API_KEY="{SECRET}"
export GPG_KEY=E3FF2839C048B25C084DEBE9B26995E310250568 TOKENIZERS_PARALLELISM=false HF_TOKEN_PATH=/opt/token
export API_TOKEN=$OTHER JUPYTER_TOKEN= SECRET_KEY=changeme ACCESS_KEY=/run/secrets/key PASSWORD=none
"""
    found = findings(tmp_path, lambda folder: environment(folder, lines))
    assert {one.place: one.severity for one in found if one.code == "secret"} == {
        "$DB_PASSWORD": "warning",
        "$WANDB_API_KEY": "warning",
    }
    assert SECRET not in str([one.to_json() for one in found])


def test_histories_and_git_folders_are_found(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        write(folder, "root/.bash_history", "mysql -pSECRET\n")
        write(folder, "home/a/.python_history", "x\n")
        write(folder, "root/.lesshst", "")
        write(folder, "opt/app/.git/objects/pack/a.pack", "x")
        write(folder, "opt/other/.git", "gitdir: ../elsewhere\n")

    assert places(findings(tmp_path, make)) == {
        ("history-file", "/root/.bash_history"),
        ("history-file", "/home/a/.python_history"),
        ("git-folder", "/opt/app/.git"),
    }
