"""The user's own packages stay out of an image, under a real engine."""

from __future__ import annotations

from tests.factory_project import Project

USER = {
    "PYTHONPATH": "/cluster/python",
    "PYTHONNOUSERSITE": "",
    "R_LIBS_USER": "/home/me/R",
    "PERL5LIB": "/home/me/perl5",
    "JULIA_DEPOT_PATH": "/home/me/.julia",
}


def seen(project: Project, image: str, **env: str) -> dict[str, str]:
    """The environment in an image."""
    lines = project.ok("exec", image, "--", "env", **USER, **env).out.splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_a_scaffolded_image_and_those_based_on_it_leave_out_the_users_packages(project: Project) -> None:
    project.ok("new", "tool", "--from", project.base.removeprefix("docker://"))
    project.recipe(
        "upper", base="recipe://tool", definition="Bootstrap: recipe\nFrom: {{ base }}\n%post\n echo made > /made\n"
    )
    assert "the image has Python" not in project.run("lint").out
    project.ok("make")
    project.ok("pull", "tool", "upper")
    for image in ("tool", "upper"):
        inside = seen(project, image)
        assert (inside["PYTHONNOUSERSITE"], inside.get("PYTHONPATH", "")) == ("1", "")
    chosen = seen(project, "tool", APPTAINERENV_PYTHONPATH="/mine", SINGULARITYENV_PYTHONPATH="/mine")
    assert chosen["PYTHONPATH"] == "/mine"


def test_the_exports_of_every_language_win_over_the_users_variables(project: Project) -> None:
    exports = (
        "%environment\n    export R_LIBS_USER=NULL PERL5LIB= JULIA_DEPOT_PATH=/opt/julia/depot PYTHONPATH=/opt/app\n"
    )
    project.recipe("tool", definition="Bootstrap: docker\nFrom: {{ base }}\n%post\n echo made > /made\n" + exports)
    project.ok("make")
    project.ok("pull", "tool")
    inside = seen(project, "tool")
    assert inside["R_LIBS_USER"] == "NULL"
    assert inside.get("PERL5LIB", "") == ""
    assert (inside["JULIA_DEPOT_PATH"], inside["PYTHONPATH"]) == ("/opt/julia/depot", "/opt/app")
