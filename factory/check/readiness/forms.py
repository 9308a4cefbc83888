"""What secrets look like: the files that programs keep logins in, and tokens of a known form.

Every pattern takes linear time: fixed words, and runs of a class of characters with an upper limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]{1,10} )?PRIVATE KEY(?: BLOCK)?-----\s|PuTTY-User-Key-File-[23]:")
_TOKENS = {
    "GitHub token": rb"gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60}",
    "GitLab token": rb"glpat-[A-Za-z0-9_-]{20}",
    "AWS access key": rb"(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])",
    "Hugging Face token": rb"hf_[A-Za-z]{34}(?![A-Za-z])",
    "Docker Hub token": rb"dckr_pat_[A-Za-z0-9_-]{27}",
    "PyPI token": rb"pypi-AgE[A-Za-z0-9_-]{50}",
    "npm token": rb"npm_[A-Za-z0-9]{36}",
    "Slack token": rb"xox[baprs]-[A-Za-z0-9-]{20}",
    "Google API key": rb"AIza[0-9A-Za-z_-]{35}",
    "OpenAI or Anthropic key": rb"sk-(?:proj-|ant-)?[A-Za-z0-9_-]{40}",
}
_TOKEN = {what: re.compile(rb"(?<![A-Za-z0-9_-])(?:" + pattern + rb")") for what, pattern in _TOKENS.items()}
_LOGIN = re.compile(rb"[a-z+]{3,10}://[^\s/:@'\"$<{}]{1,100}:([^\s/:@'\"$<{}*]{3,200})@")
# In examples and templates, and what names another place instead of being the secret.
_PLACEHOLDER = re.compile(
    rb"[$<{%*/].*|none|null|true|false|passw(?:or)?d|pass|secret|token|user|[0-9.]{1,12}|(?:https?|file)://.*"
    rb"|.*(?:example|change[-_]?me|placeholder|your[-_]|xxxx|dummy|\.\.\.|redacted).*",
    re.IGNORECASE | re.DOTALL,
)
_LONGEST = 500  # bytes of a value that is compared with placeholders


@dataclass(frozen=True)
class Form:
    """A kind of file with a login. path: matches a whole path; what: for the message; value: group 1 is the secret."""

    path: re.Pattern[str]
    what: str
    value: re.Pattern[bytes]

    def is_in(self, content: bytes) -> bool:
        """Return whether a file's content has a secret of this form that is no placeholder."""
        return any(is_secret(match[1]) for match in self.value.finditer(content))


def is_secret(value: bytes) -> bool:
    """Return whether a value can be a secret: not a placeholder, a path or a variable."""
    return _PLACEHOLDER.fullmatch(value[:_LONGEST]) is None


def known_secrets(content: bytes) -> Iterator[str]:
    """Yield what a text contains: tokens of a known form, private keys, and logins in URLs."""
    for what, pattern in _TOKEN.items():
        if pattern.search(content):
            yield what
    if PRIVATE_KEY.search(content):
        yield "private key"
    if any(is_secret(match[1]) for match in _LOGIN.finditer(content)):
        yield "login in a URL"


_TEXT = rb"""[ \t]{0,8}[:=][ \t]{0,8}["']?([^\s"',]{6,500})"""  # the rest of an assignment
_JSON = rb"""\"[ \t]*:[ \t]*"([^"]{6,500})"""  # the rest of a member
_LINE = rb"(?im)^[ \t]{0,8}(?:export )?[A-Z0-9_]{0,60}"
_PACKAGES, _STORE = "the login of a package index", "the login of a store"


def _form(path: str, what: str, value: bytes) -> Form:
    return Form(re.compile(path, re.DOTALL), what, re.compile(value))


FORMS = (
    _form(r".*/[._]netrc", "the login of a server", rb"(?:^|\s)password[ \t\n]{1,20}(\S{1,500})"),
    _form(r".*/\.git-credentials", "the login of a git server", _LOGIN.pattern),
    _form(r".*/\.git/config", "the login of a git server", _LOGIN.pattern),
    _form(r".*/(?:\.docker/config|\.dockercfg|\.?config/containers/auth|docker-config)(?:\.json)?",
          "the login of a registry", rb'"(?:auth|identitytoken)' + _JSON),
    _form(r".*/\.pypirc", _PACKAGES, rb"password" + _TEXT),
    _form(r".*/(?:pip\.conf|pip\.ini|uv\.toml|\.?condarc)", _PACKAGES, _LOGIN.pattern),
    _form(r".*/\.?condarc", "the token of a channel", rb"/t/([A-Za-z0-9-]{8,200})/"),
    _form(r".*/\.?(?:npmrc|yarnrc(?:\.yml)?)", _PACKAGES, rb"(?:_auth|_authToken|_password|npmAuthToken)" + _TEXT),
    _form(r".*/\.aws/credentials", "an AWS key", rb"aws_secret_access_key" + _TEXT),
    _form(r".*/\.(?:s3cfg|boto)", _STORE, rb"(?:secret_key|secret_access_key)" + _TEXT),
    _form(r".*/rclone\.conf", _STORE, rb"(?:pass|token|secret_access_key)" + _TEXT),
    _form(r".*/(?:gcloud/[^/]+|[^/]*(?:credential|service[-_]?account)[^/]*)\.json", "a Google credential",
          rb'"(?:private_key|refresh_token)' + _JSON),
    _form(r".*/\.azure/(?:accessTokens|msal_token_cache)\.json", "an Azure token", rb'"(?:accessToken|secret)' + _JSON),
    _form(r".*/\.kube/config", "the login of a Kubernetes cluster", rb"(?:token|password|client-key-data)" + _TEXT),
    _form(r".*/\.config/(?:gh/hosts\.yml|hub)", "a GitHub token", rb"oauth_token" + _TEXT),
    _form(r".*/\.?huggingface/(?:token|stored_tokens)", "a Hugging Face token", rb"(hf_[A-Za-z]{20,60})"),
    _form(r".*/\.kaggle/kaggle\.json", "a Kaggle key", rb'"key' + _JSON),
    _form(r".*/\.my\.cnf", "the password of a database", rb"password" + _TEXT),
    _form(r".*/\.pgpass", "the password of a database", rb"(?m)^[^#\n:]{1,200}(?::[^\n:]{1,200}){3}:([^\n]{3,500})$"),
    _form(r".*/\.vault-token", "a Vault token", rb"(\S{8,500})"),
    _form(r".*/\.env(?:\.[a-z]{1,20})?", "a password or token",
          _LINE + rb"(?:TOKEN|SECRET|PASSWORD|API_KEY|ACCESS_KEY)" + _TEXT),
    _form(r".*/\.Renviron", "a password or token", _LINE + rb"(?:TOKEN|SECRET|PASSWORD|PAT|KEY)" + _TEXT),
    _form(r"/etc/apt/auth\.conf(?:\.d/.*)?", "the login of an archive", rb"password[ \t]{1,20}(\S{1,500})"),
    _form(r"/etc/(?:apt/sources\.list(?:\.d/.*)?|yum\.repos\.d/.*|apk/repositories)", "the login of an archive",
          _LOGIN.pattern),
)  # fmt: skip
# A quick look at the last part of a path: most files of an image are none of these.
TELLING = re.compile(
    r"[._]netrc|\.git-credentials|config(?:\.json)?|\.dockercfg|auth(?:\.json)?|docker-config\.json|\.pypirc|pip\.(?:conf|ini)"
    r"|uv\.toml|\.?condarc|\.?npmrc|\.?yarnrc(?:\.yml)?|credentials|\.s3cfg|\.boto|rclone\.conf|[^/]+\.json|hosts\.yml|hub"
    r"|token|stored_tokens|\.my\.cnf|\.pgpass|\.vault-token|\.env(?:\.[a-z]{1,20})?|\.Renviron|auth\.conf|sources\.list"
    r"|[^/]+\.(?:conf|list|sources|repo)|repositories",
    re.DOTALL,
)
