from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from factory.recipes.lint.lint import lint, lint_all
from factory.recipes.load import load_recipe
from factory.recipes.model import BasePin
from factory.recipes.pins import write_pins

MakeRecipe = Callable[..., Path]
DIGEST = "sha256:" + "a" * 64
ABOUT = '[recipe]\nname = "one"\nversion = "1"\nsummary = "s"\nlicense = "MIT"\nmaintainers = ["@a"]\n'
TEST = '[[test]]\nname = "t"\nrun = "true"\n[run.env]\nPYTHONNOUSERSITE = "1"\nPYTHONPATH = ""\n'
PINNED = f'[build]\nbase = "docker://debian:12@{DIGEST}"\n'
HEAD = "Bootstrap: docker\nFrom: {{ base }}\n"


def _lint(folder: Path) -> list[str]:
    return [str(problem).removeprefix(f"{folder}/") for problem in lint(folder, ())]


def _of_definition(make: MakeRecipe, text: str, toml: str = ABOUT + PINNED + TEST) -> list[str]:
    return _lint(make("one", toml=toml, definition=text))


def test_a_sound_recipe_has_no_problems(make: MakeRecipe) -> None:
    assert _lint(make()) == []


def test_problems_of_both_files_are_reported_together(make: MakeRecipe) -> None:
    folder = make(
        "one", toml=ABOUT + "[run]\ngpu = 'x'\n" + TEST, definition=f"Bootstrap: docker\nFrom: a@{DIGEST}\n%setup\n x\n"
    )
    assert [problem.partition(": ")[0] for problem in _lint(folder)] == ["image.def:3", "image.def:4", "recipe.toml:8"]


def test_a_missing_description_is_a_warning_each(make: MakeRecipe) -> None:
    toml = '[recipe]\nname = "one"\nversion = "1"\n' + PINNED + TEST
    assert _of_definition(make, HEAD, toml) == [
        (
            "recipe.toml:1: warning: the recipe has no summary; "
            'write summary = "…" under [recipe]; singfactory list and search show it'
        ),
        'recipe.toml:1: warning: the recipe has no license; write an SPDX identifier, as in license = "MIT"',
        (
            "recipe.toml:1: warning: the recipe has no maintainers; "
            'write maintainers = ["@name"], the people to ask when it breaks'
        ),
    ]


def test_an_untested_image_is_a_warning(make: MakeRecipe) -> None:
    assert _of_definition(make, HEAD, ABOUT + PINNED) == [
        "recipe.toml: warning: the recipe has no [[test]] and no %test; add a [[test]] with name and run"
    ]


def test_a_test_section_counts_as_a_test(make: MakeRecipe) -> None:
    assert _of_definition(make, HEAD + "%test\n true\n", ABOUT + PINNED) == []


def test_a_gpu_image_without_a_gpu_test_is_a_warning(make: MakeRecipe) -> None:
    toml = ABOUT + PINNED + '[run]\ngpu = "nvidia"\n' + TEST
    assert _of_definition(make, HEAD, toml) == [
        "recipe.toml:10: warning: the image is for nvidia GPUs, but no test uses one; add a [[test]] with gpu = true"
    ]


def test_an_unpinned_base_is_a_warning_until_update_has_run(make: MakeRecipe) -> None:
    folder = make("one", toml=ABOUT + '[build]\nbase = "docker://debian:12"\n' + TEST)
    assert _lint(folder) == [
        "recipe.toml:8: warning: the base docker://debian:12 is not pinned to a digest; run: singfactory update one"
    ]
    recipe = load_recipe(folder)
    write_pins(recipe, [BasePin("docker://debian:12", DIGEST, "2024-05-01T12:00:00Z")])
    assert _lint(folder) == []
    write_pins(recipe, [BasePin("docker://debian:11", DIGEST, "2024-05-01T12:00:00Z")])
    assert _lint(folder) == [
        (
            "base.lock:3: warning: base.lock pins docker://debian:11, which the recipe does not use; "
            "run: singfactory update one"
        ),
        "recipe.toml:8: warning: the base docker://debian:12 is not pinned to a digest; run: singfactory update one",
    ]
    (folder / "base.lock").write_text("x")
    assert _lint(folder)[0].startswith("base.lock:1: error: not TOML")


def test_the_images_of_other_stages_are_pinned_as_the_base_is(make: MakeRecipe) -> None:
    text = "Bootstrap: docker\nFrom: golang:1.22\nStage: build\n\n" + HEAD
    folder = make(
        "one", definition=text, toml=ABOUT + '[build]\nbase = "docker://debian:12"\narch = ["amd64", "arm64"]\n' + TEST
    )
    recipe = load_recipe(folder)
    base = BasePin("docker://debian:12", DIGEST, "2024-05-01T12:00:00Z")
    write_pins(recipe, [base])
    assert _lint(folder) == [
        "image.def:2: warning: the image golang:1.22 is not pinned to a digest; run: singfactory update one"
    ]
    other = BasePin("docker://docker.io/library/golang:1.22", DIGEST, "2024-05-01T12:00:00Z", {"amd64": DIGEST})
    write_pins(recipe, [base, other])
    assert _lint(folder) == [
        "base.lock: warning: base.lock has no digest of docker://golang:1.22 for arm64; run: singfactory update one"
    ]
    write_pins(recipe, [base, replace(other, platforms={"amd64": DIGEST, "arm64": DIGEST})])
    assert _lint(folder) == []


def test_a_base_with_a_moving_tag_is_a_warning(make: MakeRecipe) -> None:
    (problem,) = _of_definition(make, HEAD, ABOUT + '[build]\nbase = "docker://debian"\n' + TEST)
    assert "is a moving tag and not pinned to a digest" in problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "%setup\n x\n",
            (
                "image.def:3: error: %setup runs on the build host, outside of the container; "
                "copy files with %files, run commands in %post, and compile in an earlier stage (%files from STAGE)"
            ),
        ),
        (
            "%pre\n x\n",
            (
                "image.def:3: error: %pre runs on the build host, outside of the container; "
                "copy files with %files, run commands in %post, and compile in an earlier stage (%files from STAGE)"
            ),
        ),
        (
            "%files\n /etc/shadow /x\n",
            (
                "image.def:4: error: %files: /etc/shadow is an absolute path of the build host; "
                "put the file in the recipe's folder and write its relative path, as in: files/app /opt/app"
            ),
        ),
        (
            "%appfiles a\n x ../../y\n",
            (
                "image.def:3: error: %appfiles can read and write any file of the build host; "
                "copy the files with %files to /scif/apps/NAME/"
            ),
        ),
        (
            '%files from nowhere\n "$(id)" /x\n',
            (
                "image.def:3: error: %files from nowhere: no earlier stage has this name; "
                "name the earlier stage with the header Stage:"
            ),
        ),
        (
            "%post\n apt-get update\n apt-get install foo\n rm -rf /var/lib/apt/lists/*\n",
            (
                "image.def:5: warning: apt-get install without -y asks a question that nobody answers in a build; "
                "add -y to it"
            ),
        ),
        (
            "%post\n apt-get install -y foo && rm -rf /var/lib/apt/lists/*\n",
            (
                "image.def:4: warning: apt-get install without apt-get update before it finds old packages or none; "
                "add apt-get update before it"
            ),
        ),
        (
            "%post\n cp -r app /root/app\n",
            (
                "image.def:4: warning: /root/app is written in %post, but /root is the user's own, or unreadable, "
                "when the image runs; write it below /opt or /usr/local, or remove it in %post"
            ),
        ),
        (
            "%post\n curl -o /tmp/x.tar https://x\n",
            (
                "image.def:4: warning: /tmp/x.tar is written in %post, but /tmp is the host's when the image runs; "
                "write it below /opt or /usr/local, or remove it in %post"
            ),
        ),
        (
            "Bootstrap: debootstrap\nInclude: --installroot=/\n",
            "image.def:4: error: Include: an option is among the packages; list package names only",
        ),
        (
            "Bootstrap: debootstrap\nOSVersion: ../../x\n",
            (
                "image.def:4: error: OSVersion: '../../x' is not a plain word; "
                "use letters, digits and . _ - only, as in bookworm"
            ),
        ),
        (
            "Registry: ghcr.io\n",
            (
                "image.def:3: error: Registry: cannot be used with Bootstrap: docker; "
                "write it in From:, as in From: REGISTRY/NAMESPACE/NAME:TAG"
            ),
        ),
        (
            "%labels\n v {{ versoin }}\n",
            (
                "image.def:4: error: the argument 'versoin' is not defined; set it in recipe.toml, "
                '[build] args = { versoin = "…" }, or give it a default under %arguments'
            ),
        ),
        (
            "%pots\n",
            (
                "image.def:3: error: unknown section '%pots'; did you mean %post?; for Apptainer every line "
                "that starts with % begins a section, also in scripts"
            ),
        ),
    ],
)
def test_each_problem_of_a_definition_is_reported(make: MakeRecipe, text: str, problem: str) -> None:
    assert problem in _of_definition(make, HEAD + text)


@pytest.mark.parametrize(
    "text",
    [
        "%post\n apt-get update\n apt-get -qq install foo; rm -rf /var/lib/apt/lists/*\n",
        (
            "%post\n apt-get update\n DEBIAN_FRONTEND=x apt-get install --yes \\\n   foo \\\n   bar\n"
            " find /var/lib/apt/lists -delete\n"
        ),
        "%post\n pip install --no-cache-dir x\n",
        "%post\n export PIP_NO_CACHE_DIR=1\n pip3 install x\n",
        "%post\n # apt-get install foo\n # pip install x\n",
        "%post\n curl -o /tmp/x.tar https://x && tar -xf /tmp/x.tar -C /opt && rm /tmp/x.tar\n",
        "%post\n git clone https://x /tmp/x\n make -C /tmp/x install\n rm -rf /tmp/x\n",
        "%post\n cd /tmp && cat /tmp/x /root/y | grep $HOME\n",
        "%post\n cat > /opt/install <<'EOF'\napt-get install foo\npip install x\ncp x /root/y\nEOF\n",
        "%files\n run.sh /opt/\n",
        '%runscript\n exec cp "$@" /tmp/x\n',
        "%labels\n v {{ name }} {{ version }} {{ arch }} {{ debian_mirror }}\n",
        "%arguments\n a=1\n%labels\n v {{ a }}\n",
    ],
)
def test_correct_definitions_have_no_problems(make: MakeRecipe, text: str) -> None:
    toml = ABOUT + PINNED + TEST + "[quiet]\ncaches = false\nhints = false\n"
    folder = make("one", toml=toml, definition=HEAD + text, files={"run.sh": "x"})
    assert _lint(folder) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "%post\n apt-get update && \\\n  apt-get install -y foo=1\n",
            (
                "image.def:4: warning: the package lists of apt-get stay in the image; "
                "end %post with rm -rf /var/lib/apt/lists/*"
            ),
        ),
        (
            "%post\n /usr/bin/python3 -m pip install torch==2\n",
            "image.def:4: warning: pip install leaves its download cache in the image; add --no-cache-dir",
        ),
    ],
)
def test_caches_are_reported_if_the_factory_does_not_remove_them(make: MakeRecipe, text: str, problem: str) -> None:
    assert _of_definition(make, HEAD + text) == []
    folder = make("two", toml=ABOUT.replace("one", "two") + PINNED + TEST + "[quiet]\ncaches = false\n")
    (folder / "image.def").write_text(HEAD + text)
    assert _lint(folder) == [problem]


HINTS = {
    "apt": (
        " apt-get update\n apt-get install -y git\n",
        "5: warning: apt-get install takes the mirror's current versions; write NAME=VERSION, or use a snapshot mirror",
    ),
    "pip": (
        " pip install numpy\n",
        "4: warning: pip install takes the newest versions; write NAME==VERSION, or use --require-hashes",
    ),
    "download": (
        " curl -fsSL https://example.org/x.tar | tar -x -C /opt\n",
        "4: warning: a download is not verified and can change; verify it with sha256sum -c",
    ),
    "clone": (
        " git clone --depth 1 https://example.org/x /opt/x\n",
        "4: warning: git clone takes the newest commit; check out a commit by its full hash",
    ),
}


@pytest.mark.parametrize("kind", HINTS)
def test_unpinned_downloads_are_reported_once_and_can_be_silenced(make: MakeRecipe, kind: str) -> None:
    text, hint = HINTS[kind]
    assert _of_definition(make, f"{HEAD}%post\n{text}{text}") == [
        f"image.def:{hint}, or set hints = false under [quiet] in recipe.toml",
    ]
    folder = make("two", toml=ABOUT.replace("one", "two") + PINNED + TEST + "[quiet]\nhints = false\n")
    (folder / "image.def").write_text(f"{HEAD}%post\n{text}")
    assert _lint(folder) == []


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "text",
    [
        "apt-get update && apt-get install -y --no-install-recommends git=1:2.39.2-1 ./local.deb",
        "apt-get update && apt-get install -y git  # from http://snapshot.example.org/debian",
        "pip install 'numpy==2.2.6' ./wheel.whl --index-url https://example.org/simple",
        "pip install --require-hashes -r /opt/requirements.txt",
        "pip install -r /opt/pinned.txt",
        "pip install x@git+https://example.org/x@1",
        f"git clone https://example.org/x /opt/x && git -C /opt/x checkout {COMMIT}",
        "curl -o /opt/x https://example.org/x && echo '00 /opt/x' | sha256sum -c",
        "echo curl is not called",
    ],
)
def test_pinned_downloads_are_not_reported(make: MakeRecipe, text: str) -> None:
    files = {"pinned.txt": "# all\nnumpy==2.2.6  # why\n--no-binary x\n"}
    definition = f"{HEAD}%files\n pinned.txt /opt/pinned.txt\n%post\n {text}\n"
    assert _lint(make("one", toml=ABOUT + PINNED + TEST, definition=definition, files=files)) == []


@pytest.mark.parametrize(("target", "name"), [("/opt/all.txt", "/opt/all.txt"), ("/opt/", "/opt/all.txt")])
def test_requirements_that_the_recipe_brings_are_read(make: MakeRecipe, target: str, name: str) -> None:
    definition = f"{HEAD}%files\n all.txt {target}\n%post\n pip install --requirement {name}\n"
    folder = make("one", toml=ABOUT + PINNED + TEST, definition=definition, files={"all.txt": "numpy==1\nscipy\n"})
    (hint,) = _lint(folder)
    assert hint.startswith("image.def:6: warning: pip install takes the newest versions")


def test_a_source_that_runs_on_the_host_is_an_error_even_from_a_stage(make: MakeRecipe) -> None:
    text = f"Bootstrap: docker\nFrom: go@{DIGEST}\nStage: a\n" + HEAD + '%files from a\n "$(id)" /x\n'
    (problem,) = _of_definition(make, text)
    assert problem.startswith(
        "image.def:7: error: %files: '$(id)' contains a character that the build host's shell would interpret; "
    )


def test_a_link_deep_in_a_copied_folder_is_found(make: MakeRecipe) -> None:
    folder = make("one", toml=ABOUT + PINNED + TEST, definition=HEAD + "%files\n files /x\n", files={"files/a/b": "x"})
    (folder / "files" / "a" / "c").symlink_to("/etc/passwd")
    (problem,) = _lint(folder)
    assert problem.startswith("image.def:4: error: %files: files/a/c is a link to an absolute path; ")


def test_sources_are_checked_for_each_architecture(make: MakeRecipe) -> None:
    toml = ABOUT + PINNED + 'arch = ["amd64", "arm64"]\n' + TEST
    folder = make("one", toml=toml, definition=HEAD + "%files\n bin/{{ arch }} /x\n", files={"bin/amd64": "x"})
    (problem,) = _lint(folder)
    assert problem.startswith("image.def:4: error: %files: bin/arm64 does not exist in the recipe's folder; ")


def test_a_source_comes_from_an_argument_only_after_it_is_checked(make: MakeRecipe) -> None:
    toml = ABOUT + PINNED + 'args = { s = "/etc/shadow" }\n' + TEST
    (problem,) = _of_definition(make, HEAD + "%files\n {{ s }} /x\n", toml)
    assert "/etc/shadow is an absolute path of the build host" in problem


def test_an_argument_that_begins_a_section_is_found(make: MakeRecipe) -> None:
    toml = ABOUT + PINNED + 'args = { s = "%setup" }\n' + TEST
    (problem,) = _of_definition(make, HEAD + "%post\n{{ s }}\n", toml)
    assert problem.startswith("image.def:4: error: an argument's value begins a section or a stage here: '%setup'; ")


def test_an_unused_argument_is_an_error(make: MakeRecipe) -> None:
    toml = ABOUT + PINNED + 'args = { cuda = "12" }\n' + TEST
    assert _of_definition(make, HEAD, toml) == [
        (
            "recipe.toml:9: error: the argument 'cuda' of [build] args is not used; "
            "write {{ cuda }} in image.def, or remove it"
        )
    ]


def test_base_is_set_if_and_only_if_it_is_used(make: MakeRecipe) -> None:
    (problem, *_) = _of_definition(make, HEAD, ABOUT + TEST)
    assert problem.startswith("image.def:2: error: {{ base }} is used, but the recipe has no base; ")
    other = make(
        "two",
        toml=(ABOUT + PINNED + TEST).replace('"one"', '"two"'),
        definition=f"Bootstrap: docker\nFrom: a@{DIGEST}\n",
    )
    (problem,) = _lint(other)
    assert problem.startswith("recipe.toml:8: error: base is docker://debian:12@")


@pytest.mark.parametrize(
    ("agent", "base", "problem"),
    [
        ("library", f"docker://debian@{DIGEST}", "does not match the base"),
        ("docker", "recipe://other", "does not match the base"),
        ("recipe", f"docker://debian@{DIGEST}", "does not match the base"),
        ("localimage", "recipe://other", "reads a file of the build host"),
        ("magic", "recipe://other", "Bootstrap: 'magic' is unknown"),
    ],
)
def test_bootstrap_fits_the_base(make: MakeRecipe, agent: str, base: str, problem: str) -> None:
    make("other", toml=ABOUT.replace("one", "other"))
    text = f"Bootstrap: {agent}\nFrom: {{{{ base }}}}\n"
    problems = _of_definition(make, text, f'{ABOUT}[build]\nbase = "{base}"\n{TEST}')
    assert any(problem in line and line.startswith("image.def:1: error: ") for line in problems)


def test_bootstrap_recipe_needs_base(make: MakeRecipe) -> None:
    problems = _of_definition(make, "Bootstrap: recipe\nFrom: other\n", ABOUT + TEST)
    assert problems[0].startswith("image.def:1: error: Bootstrap: recipe works only with From: {{ base }}; ")


@pytest.mark.parametrize(("source", "moves"), [("debian", True), ("debian:latest", True), ("debian:12", False)])
def test_a_stage_from_a_tag_is_a_warning(make: MakeRecipe, source: str, moves: bool) -> None:  # noqa: FBT001
    problems = _of_definition(make, f"Bootstrap: docker\nFrom: {source}\n" + HEAD)
    assert problems == [
        (
            f"image.def:2: warning: the image {source} {'is a moving tag and' if moves else 'is'} "
            "not pinned to a digest; run: singfactory update one"
        )
    ]


def test_a_from_that_is_no_image_is_an_error(make: MakeRecipe) -> None:
    (problem,) = _of_definition(make, "Bootstrap: docker\nFrom: --x\n" + HEAD)
    assert problem.startswith("image.def:2: error: From: not an image name: ")


def _upon(make: MakeRecipe, name: str, base: str) -> Path:
    toml = ABOUT.replace('"one"', f'"{name}"') + f'[build]\nbase = "recipe://{base}"\n' + TEST
    return make(name, toml=toml, definition="Bootstrap: recipe\nFrom: {{ base }}\n")


def test_a_base_recipe_has_to_exist(make: MakeRecipe) -> None:
    assert _lint(_upon(make, "one", "two")) == [
        (
            "recipe.toml:8: error: base is recipe://two, but there is no such recipe; "
            "correct the name, or create it: singfactory new two --from IMAGE"
        )
    ]


def test_a_base_recipe_may_be_broken_itself(make: MakeRecipe) -> None:
    make("two", toml="[recipe\n")
    assert _lint(_upon(make, "one", "two")) == []


def test_recipes_whose_bases_form_a_circle_are_reported(make: MakeRecipe) -> None:
    root = _upon(make, "one", "two").parent
    _upon(make, "two", "three")
    _upon(make, "three", "one")
    _upon(make, "beside", "one")
    problems = [str(problem).removeprefix(f"{root}/") for problem in lint_all(root)]
    circle = "recipe.toml:8: error: the recipes' bases form a circle: "
    way_out = "; give one of them a docker:// base"
    assert problems == [
        f"one/{circle}one -> two -> three -> one{way_out}",
        f"three/{circle}three -> one -> two -> three{way_out}",
        f"two/{circle}two -> three -> one -> two{way_out}",
    ]


def test_a_recipe_based_on_itself_is_a_circle(make: MakeRecipe) -> None:
    (problem,) = _lint(_upon(make, "one", "one"))
    assert "form a circle: one -> one" in problem


def test_a_missing_definition_is_reported_once(make: MakeRecipe) -> None:
    folder = make()
    (folder / "image.def").unlink()
    (problem,) = _lint(folder)
    assert "there is no file image.def" in problem


def test_all_recipes_are_linted_and_folders_without_one_are_named(make: MakeRecipe) -> None:
    root = make("good").parent
    make("bad", definition="nonsense\n")
    (root / "empty").mkdir()
    problems = [str(problem).removeprefix(f"{root}/") for problem in lint_all(root)]
    assert [problem.partition(": ")[0] for problem in problems] == ["bad/image.def:1", "empty/recipe.toml"]


def test_an_empty_list_of_architectures_hides_nothing_else(make: MakeRecipe) -> None:
    problems = _of_definition(make, HEAD + "%setup\n x\n", ABOUT + PINNED + "arch = []\n" + TEST)
    assert [problem.partition(": ")[0] for problem in problems] == ["image.def:3", "image.def:4", "recipe.toml:9"]
