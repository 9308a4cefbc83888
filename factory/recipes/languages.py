"""Languages that load packages from the user's home folder or from variables of the host.

Engines pass the user's variables and mount the home folder, so on a cluster such packages come before the image's own:
tests pass, and users run something else. Variables under `%environment` take precedence over the host's.

References: Python, "Command line and environment"; R, ?Startup and ?.libPaths; Julia, "Environment Variables";
perlrun(1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """A language. variables: with values that keep the user's packages out. images, words: signs of it.

    images matches in the name of an image, words a whole word of a command: a program, or a package that brings it.
    """

    name: str
    variables: Mapping[str, str]
    images: re.Pattern[str]
    words: re.Pattern[str]

    def assignments(self) -> str:
        """Return the variables as an `export` command takes them."""
        return " ".join(f"{name}={value}" for name, value in self.variables.items())


PYTHON = Language(
    "Python",
    {"PYTHONNOUSERSITE": "1", "PYTHONPATH": ""},
    re.compile(
        r"python|torch|tensorflow|keras|jax|conda|mamba|jupyter|scipy|numpy|sklearn|scikit|rapids|vllm|huggingface"
    ),
    re.compile(
        r"(?:.*/)?(?:i?python[0-9.]*|pip[0-9.]*|python3?-[a-z0-9.+-]+|(?:mini|micro)?(?:conda|mamba)[0-9]*|uv|poetry|jupyter)"
    ),
)
LANGUAGES = (
    PYTHON,
    Language(
        "R",
        {"R_LIBS_USER": "NULL", "R_LIBS": ""},
        re.compile(r"(?:^|[/_-])r-(?:ver|base|notebook|minimal|devel)|rocker/|rstudio|tidyverse|bioconductor"),
        re.compile(r"(?:.*/)?(?:R|Rscript|littler|install2?\.r|r-(?:base|cran|bioc|recommended).*)"),
    ),
    Language(
        "Julia",
        {"JULIA_DEPOT_PATH": "/opt/julia/depot:/usr/local/julia/local/share/julia:/usr/local/julia/share/julia"},
        re.compile(r"julia"),
        re.compile(r"(?:.*/)?(?:julia|juliaup)[0-9.-]*"),
    ),
    Language(
        "Perl",
        {"PERL5LIB": ""},
        re.compile(r"(?:^|[/_-])perl(?:[:/_@-]|$)"),
        re.compile(r"(?:.*/)?(?:cpan|cpanm|cpm|carton|lib[a-z0-9-]+-perl|perl-(?!base).*)"),
    ),
)


def of_image(image: str) -> tuple[Language, ...]:
    """Return the languages that an image has by its name."""
    return tuple(language for language in LANGUAGES if language.images.search(image.lower()))
