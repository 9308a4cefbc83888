"""Debian packages that Python packages need and cannot bring: libraries, programs, and what a build from source takes.

No metadata says this, so it is a table of well-known ones. The recipe's own test imports every package and finds what
is missing here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

COMPILERS = ("gcc", "g++", "make")
_GL = ("libgl1", "libglib2.0-0")
_QT = (*_GL, "libegl1", "libxkbcommon0", "libdbus-1-3", "libfontconfig1")
_X = ("libgl1", "libxrender1")

RUNTIME: dict[str, Sequence[str]] = {
    "cairocffi": ("libcairo2",),
    "cairosvg": ("libcairo2",),
    "ffmpeg-python": ("ffmpeg",),
    "gitpython": ("git",),
    "gmsh": ("libglu1-mesa", "libxcursor1", "libxft2", "libxinerama1", *_X),
    "graphviz": ("graphviz",),
    "lightgbm": ("libgomp1",),
    "mpi4py": ("libopenmpi3", "openmpi-bin"),
    "mysqlclient": ("libmariadb3",),
    "opencv-contrib-python": _GL,
    "opencv-python": _GL,
    "pdf2image": ("poppler-utils",),
    "psycopg": ("libpq5",),
    "psycopg2": ("libpq5",),
    "pyaudio": ("libportaudio2",),
    "pycairo": ("libcairo2",),
    "pycurl": ("libcurl4",),
    "pydot": ("graphviz",),
    "pydub": ("ffmpeg",),
    "pygraphviz": ("graphviz",),
    "pyodbc": ("unixodbc",),
    "pyqt5": _QT,
    "pyqt6": _QT,
    "pyside6": _QT,
    "pytesseract": ("tesseract-ocr",),
    "python-ldap": ("libldap-2.5-0",),
    "python-magic": ("libmagic1",),
    "pyzbar": ("libzbar0",),
    "sounddevice": ("libportaudio2",),
    "vtk": _X,
    "weasyprint": ("libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0"),
}
BUILD: dict[str, Sequence[str]] = {
    "cffi": ("libffi-dev",),
    "h5py": ("libhdf5-dev", "pkg-config"),
    "lxml": ("libxml2-dev", "libxslt1-dev"),
    "mpi4py": ("libopenmpi-dev",),
    "mysqlclient": ("default-libmysqlclient-dev", "pkg-config"),
    "netcdf4": ("libnetcdf-dev",),
    "psycopg2": ("libpq-dev",),
    "pyaudio": ("portaudio19-dev",),
    "pycairo": ("libcairo2-dev", "pkg-config"),
    "pycurl": ("libcurl4-openssl-dev", "libssl-dev"),
    "pygraphviz": ("libgraphviz-dev",),
    "python-ldap": ("libldap2-dev", "libsasl2-dev"),
}
_BRINGS = {"psycopg": "psycopg-binary"}  # a package that brings what the other needs


def runtime(names: Collection[str]) -> tuple[str, ...]:
    """Return the Debian packages that stay in the image. names: normalized names of distributions."""
    needed = [name for name in names if _BRINGS.get(name) not in names]
    return tuple(sorted({package for name in needed for package in RUNTIME.get(name, ())}))


def for_builds(names: Collection[str], *, git: bool) -> tuple[str, ...]:
    """Return the Debian packages that are needed to build these, and removed afterwards. git: fetch repositories."""
    found = {package for name in names for package in BUILD.get(name, ())}
    return tuple(sorted({*found, *(COMPILERS if names else ()), *(("ca-certificates", "git") if git else ())}))
