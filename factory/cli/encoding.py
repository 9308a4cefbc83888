"""Text in and out: file names need not be UTF-8, and terminals may lack characters. Neither is an error."""

from __future__ import annotations

import codecs
import io
import os
import sys
from pathlib import Path

_ERRORS = "singfactory"  # the name of our error handler
_ASCII = frozenset({"", "C", "POSIX"})  # Python takes these locales for UTF-8 (PEP 540)


def require_utf8() -> None:
    """Start this program again in UTF-8 mode if the locale has another encoding, as Python does for the C locale.

    File names and arguments are then the same text everywhere, and the bytes of other encodings survive in it as
    surrogates (PEP 383, PEP 540). The environment stays as it is. Python 3.9 does not know its own arguments: there the
    locale's encoding stays.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        command = Path("/proc/self/cmdline").read_bytes()  # sys.orig_argv came with Python 3.10
        program, *arguments = command.split(b"\0")[:-1]
        os.execv(sys.executable, [program, b"-X", b"utf8", *arguments])  # noqa: S606 - ourselves


def prepare_output() -> None:
    """Let stdout and stderr take any text: undecodable bytes of file names as they are, missing characters as ``?``."""
    codecs.register_error(_ERRORS, _replacement)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # the caller has closed it
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=_encoding(stream), errors=_ERRORS)


def _encoding(stream: io.TextIOWrapper) -> str:
    """The locale's encoding for a terminal; else the stream's own, which is UTF-8 or what PYTHONIOENCODING says."""
    chosen = os.environ.get("PYTHONIOENCODING") and not sys.flags.ignore_environment
    if chosen or not stream.isatty() or _locale() in _ASCII or "utf" in _locale().lower():
        return stream.encoding
    import locale  # noqa: PLC0415 - few terminals are not UTF-8

    try:
        locale.setlocale(locale.LC_CTYPE, "")
        return codecs.lookup(locale.nl_langinfo(locale.CODESET)).name
    except (locale.Error, LookupError):
        return stream.encoding


def _locale() -> str:
    """The locale of characters, such as ``en_US.ISO-8859-1`` (POSIX: LC_ALL, LC_CTYPE, LANG)."""
    return next((text for name in ("LC_ALL", "LC_CTYPE", "LANG") if (text := os.environ.get(name))), "")


def _replacement(error: UnicodeError) -> tuple[bytes, int]:
    """Encode what the stream cannot: surrogates as the bytes that they stand for (PEP 383), the rest as ``?``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    encoded = b"".join(bytes([ord(one) - 0xDC00]) if "\udc80" <= one <= "\udcff" else b"?" for one in letters)
    return encoded, error.end
