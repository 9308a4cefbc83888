from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from factory.cli import settings
from factory.cli.settings import Settings, load
from factory.errors import UsageError


class Places:
    """One file for each source of settings, below a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.site = root / "etc" / "config.toml"
        self.user = root / "home" / ".config" / "singfactory" / "config.toml"
        self.project = root / "project" / "factory.toml"
        self.env = {"HOME": str(root / "home")}
        for path in (self.site, self.user, self.project):
            path.parent.mkdir(parents=True)

    def load(self, flags: Mapping[str, str | None] | None = None, **env: str) -> Settings:
        return load(flags or {}, self.env | env, self.project.parent)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    found = Places(tmp_path)
    monkeypatch.setattr(settings, "SITE", found.site)
    return found


def test_options_override_environment_project_user_and_site_and_each_value_has_its_origin(places: Places) -> None:
    places.site.write_text('registry = "site.example/x"\nengine = "of-site"')
    assert places.load().values["registry"] == settings.Value("site.example/x", str(places.site))
    places.user.write_text('registry = "user.example/x"')
    assert places.load().values["registry"] == settings.Value("user.example/x", str(places.user))
    places.project.write_text('registry = "project.example/x"')
    assert places.load().values["registry"] == settings.Value("project.example/x", str(places.project))
    env = {"SINGFACTORY_REGISTRY": "env.example/x"}
    assert places.load({}, **env).values["registry"] == settings.Value("env.example/x", "SINGFACTORY_REGISTRY")
    flags = {"registry": "flag.example/x", "store": None}
    assert places.load(flags, **env).values["registry"] == settings.Value("flag.example/x", "--registry")
    assert places.load(flags, **env).values["engine"] == settings.Value("of-site", str(places.site))


def test_an_empty_variable_or_flag_counts_as_not_set(places: Places) -> None:
    places.site.write_text('registry = "site.example/x"')
    assert places.load({"registry": ""}, SINGFACTORY_REGISTRY="").text("registry") == "site.example/x"


def test_without_any_source_nothing_is_set(places: Places, tmp_path: Path) -> None:
    found = load({}, places.env, tmp_path)
    assert (found.values, found.project) == ({}, None)
    assert found.text("registry", "usual") == "usual"
    assert found.path("store") is None
    assert found.listed("plain_http") == ()
    assert found.seconds("idle_timeout", 60) == 60


def test_the_project_is_the_nearest_folder_upwards_with_its_file(places: Places) -> None:
    deep = places.project.parent / "recipes" / "x"
    deep.mkdir(parents=True)
    places.project.write_text("")
    assert load({}, places.env, deep).project == places.project.parent


def test_the_users_file_is_in_xdg_config_home(places: Places, tmp_path: Path) -> None:
    path = tmp_path / "xdg" / "singfactory" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('engine = "mine"')
    assert places.load(XDG_CONFIG_HOME=str(tmp_path / "xdg")).text("engine") == "mine"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('registri = "x"', "did you mean 'registry'?"),
        ('stor = "x"', "did you mean 'store'?"),
        ("zzzzzz = 1", "the settings are: registry, store, "),
        ("[0-9]\nx = 1", "the settings are: "),
    ],
)
def test_an_unknown_setting_is_an_error_that_names_the_nearest_one(places: Places, line: str, why: str) -> None:
    places.project.write_text(line)
    with pytest.raises(UsageError) as caught:
        places.load()
    name = line.split(maxsplit=1)[0].strip("[]")
    assert caught.value.what == f"{places.project} sets {name!r}, which is not a setting"
    assert caught.value.why.startswith(why)
    assert caught.value.fix == "fix or remove that line"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("store = 1", "a path in quotes"),
        ('store = ""', "a path in quotes"),
        ("registry = true", "a non-empty string"),
        ("registry = []", "a non-empty string"),
        ('plain_http = "one"', "a list of strings"),
        ("plain_http = [1]", "a list of strings"),
        ('idle_timeout = "60"', "a number of seconds"),
        ("idle_timeout = true", "a number of seconds"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_that_names_the_type(places: Places, line: str, kind: str) -> None:
    places.user.write_text(line)
    with pytest.raises(UsageError) as caught:
        places.load()
    assert caught.value.what == f"{places.user}: {line.split(maxsplit=1)[0]} has the wrong type"
    assert caught.value.why == f"it must be {kind}"


@pytest.mark.parametrize("content", [b"registry = ", b"registry = 'a'\nregistry = 'b'", b"\xff\xfe"])
def test_invalid_toml_is_an_error_that_names_the_file(places: Places, content: bytes) -> None:
    places.site.write_bytes(content)
    with pytest.raises(UsageError, match="is not valid TOML") as caught:
        places.load()
    assert str(places.site) in caught.value.what


def test_lists_and_seconds_are_read_from_files_and_from_the_environment(places: Places) -> None:
    places.user.write_text('plain_http = ["localhost:5000", "box"]\nidle_timeout = 2.5\nretry_budget = 9')
    found = places.load()
    assert found.listed("plain_http") == ("localhost:5000", "box")
    assert (found.seconds("idle_timeout", 60), found.seconds("retry_budget", 60)) == (2.5, 9)
    found = places.load(SINGFACTORY_PLAIN_HTTP="a b", SINGFACTORY_IDLE_TIMEOUT="7")
    assert found.listed("plain_http") == ("a", "b")
    assert found.seconds("idle_timeout", 60) == 7


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", "1e9", "60s"])
def test_an_invalid_time_is_an_error_that_names_its_origin(places: Places, text: str) -> None:
    found = places.load(SINGFACTORY_IDLE_TIMEOUT=text)
    with pytest.raises(UsageError) as caught:
        found.seconds("idle_timeout", 60)
    assert caught.value.what == f"idle_timeout is {text!r}"
    assert caught.value.why == "set in SINGFACTORY_IDLE_TIMEOUT"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/srv/store", "/srv/store"),
        ("store", "{here}/store"),
        ("../store", "{above}/store"),
        ("$SCRATCH/store", "/scratch/me/store"),
        ("${SCRATCH}/a/$SCRATCH", "/scratch/me/a/scratch/me"),
        ("~/store", "{home}/store"),
        ("~", "{home}"),
    ],
)
def test_a_path_in_a_file_is_expanded_and_relative_to_the_files_folder(places: Places, text: str, path: str) -> None:
    places.project.write_text(f'store = "{text}"\nregistry = "oci:{text}"')
    here = places.project.parent
    wanted = path.format(here=here, above=here.parent, home=places.env["HOME"])
    found = places.load(SCRATCH="/scratch/me")
    assert found.path("store") == Path(wanted)
    assert found.text("registry") == f"oci:{wanted}"


@pytest.mark.parametrize("text", ["$SCRATCH/store", "${SCRATCH}/store", "/a/$SCRATCH", "$SCRATCH_2/x", "$"])
def test_an_unset_variable_in_a_path_is_an_error(places: Places, text: str) -> None:
    places.project.write_text(f'store = "{text}"')
    with pytest.raises(UsageError, match="uses a variable that is not set"):
        places.load(SCRATCH="")


def test_an_unset_home_does_not_become_the_root_folder(places: Places) -> None:
    places.project.write_text('store = "~/store"')
    with pytest.raises(UsageError, match="uses a variable that is not set"):
        load({}, {}, places.project.parent)


def test_text_that_is_not_a_path_is_not_expanded(places: Places) -> None:
    places.project.write_text('engine = "$HOME/bin/apptainer"\nregistry = "ghcr.io/org"')
    assert places.load().text("engine") == "$HOME/bin/apptainer"
    assert places.load().text("registry") == "ghcr.io/org"


def test_an_unreadable_file_is_an_error(places: Places) -> None:
    places.site.write_text("")
    places.site.chmod(0)
    me = os.geteuid()
    try:
        if me == 0:
            os.seteuid(65534)  # root may read everything
        with pytest.raises(UsageError) as caught:
            places.load()
    finally:
        os.seteuid(me)
    assert caught.value.lines() == (f"cannot read {places.site}", "Permission denied", "fix its permissions")


@pytest.mark.parametrize(
    ("site", "own", "connections", "rate"),
    [
        ("", {}, 4, None),
        ("", {"SINGFACTORY_CONNECTIONS": "8", "SINGFACTORY_LIMIT_RATE": "20MB/s"}, 8, 20_000_000),
        ('connections = 2\nlimit_rate = "10MB/s"', {}, 2, 10_000_000),
        ("connections = 2", {"SINGFACTORY_CONNECTIONS": "1"}, 1, None),
        ("connections = 2", {"SINGFACTORY_CONNECTIONS": "3"}, 2, None),
        ('limit_rate = "10MB/s"', {"SINGFACTORY_LIMIT_RATE": "20MB/s"}, 4, 10_000_000),
        ('limit_rate = "10MB/s"', {"SINGFACTORY_LIMIT_RATE": "500KB"}, 4, 500_000),
    ],
)
def test_the_sites_connections_and_rate_are_upper_limits(
    places: Places, site: str, own: Mapping[str, str], connections: int, rate: int | None
) -> None:
    places.site.write_text(site)
    found = places.load({}, **own)
    assert (found.connections(4), found.rate()) == (connections, rate)


@pytest.mark.parametrize("text", ["0", "11", "-1", "four", "1.5", "٣"])
def test_an_invalid_number_of_connections_is_an_error_that_names_its_origin(places: Places, text: str) -> None:
    with pytest.raises(UsageError, match="connections is") as caught:
        places.load(SINGFACTORY_CONNECTIONS=text).connections(4)
    assert caught.value.why == "set in SINGFACTORY_CONNECTIONS"


@pytest.mark.parametrize("text", ["20", "20MB/h", "fast", "0MB/s", "-1MB/s"])
def test_an_invalid_rate_is_an_error_that_names_its_option(places: Places, text: str) -> None:
    with pytest.raises(UsageError, match="limit_rate is") as caught:
        places.load({"limit_rate": text}).rate()
    assert caught.value.why == "set in --limit-rate"


def test_a_factory_of_another_user_is_ignored_and_its_owner_reported(places: Places) -> None:
    places.project.write_text('engine = "/tmp/not-apptainer"')
    assert places.load().text("engine") == "/tmp/not-apptainer"
    if os.geteuid() == 0:
        os.chown(places.project, 65534, 65534)
        found = places.load()
        assert (found.values, found.project, found.untrusted) == ({}, None, places.project.parent)
        assert found.doubt == f"{places.project} belongs to another user"
        for trusting in ("65534", "root 65534"):
            assert places.load(SINGFACTORY_TRUSTED_OWNERS=trusting).project == places.project.parent
        places.user.write_text("trusted_owners = [65534]".replace("65534", '"65534"'))
        assert places.load().project == places.project.parent
        assert places.load(SINGFACTORY_TRUSTED_OWNERS="nobody-has-this-name").untrusted == places.project.parent


def test_a_factory_cannot_add_trusted_owners(places: Places) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    places.project.write_text('trusted_owners = ["65534"]')
    os.chown(places.project, 65534, 65534)
    assert places.load().untrusted == places.project.parent


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_a_special_file_is_an_error_and_is_not_waited_for(places: Places, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(places.project)
    elif kind == "folder":
        places.project.mkdir()
    else:
        places.project.symlink_to("/dev/zero")
    with pytest.raises(UsageError) as caught:
        places.load()
    assert caught.value.what == f"cannot read {places.project}"


@pytest.mark.parametrize("content", ["x = 1\n" * 20_000, "x = " + "[" * 5_000])
def test_the_size_of_a_settings_file_is_limited(places: Places, content: str) -> None:
    places.project.write_text(content)
    with pytest.raises(UsageError):
        places.load()


def test_a_dangling_link_counts_as_no_file(places: Places) -> None:
    for path in (places.project, places.user, places.site):
        path.symlink_to("gone")
    assert (places.load().values, places.load().project, places.load().untrusted) == ({}, None, None)


@pytest.mark.parametrize(
    ("text", "path"),
    [("~/store", "{home}/store"), ("~", "{home}"), ("store", "{here}/store"), ("/store", "/store"), ("../s", "{up}/s")],
)
def test_a_path_in_a_variable_or_flag_is_absolute_and_never_a_folder_called_tilde(
    places: Places, text: str, path: str
) -> None:
    here = places.project.parent
    wanted = path.format(home=places.env["HOME"], here=here, up=here.parent)
    assert places.load({}, SINGFACTORY_STORE=text).text("store") == wanted
    assert places.load({"store": text}).text("store") == wanted
    assert places.load({}, SINGFACTORY_REGISTRY=f"oci:{text}").text("registry") == f"oci:{wanted}"


def test_the_users_own_values_are_kept_apart_from_options_and_projects(places: Places) -> None:
    places.site.write_text('registry = "site.example/x"\nengine = "of-site"')
    places.project.write_text('registry = "project.example/x"')
    found = places.load({"registry": "flag.example/x"})
    assert found.text("registry") == "flag.example/x"
    assert found.own["registry"].text == "site.example/x"
    places.user.write_text('registry = "user.example/x"')
    assert places.load().own["registry"].text == "user.example/x"
    assert places.load(SINGFACTORY_REGISTRY="env.example/x").own["registry"].text == "env.example/x"


@pytest.mark.parametrize("name", [key.name for key in settings.KEYS if key.personal])
def test_a_project_must_not_set_personal_settings(places: Places, name: str) -> None:
    kinds = {"path": '"x"', "text": '"x"', "switch": "true", "table": '{ x = "/x" }'}
    kind = next(key.kind for key in settings.KEYS if key.name == name)
    line = f"{name} = " + kinds.get(kind, '["x.example"]')
    for path in (places.site, places.user):
        path.write_text(line)
    assert name in {one.partition(".")[0] for one in places.load().values}
    places.project.write_text(line)
    with pytest.raises(UsageError, match="which a project must not set") as told:
        places.load()
    assert f"SINGFACTORY_{name.upper()}" in told.value.fix


def test_binds_of_a_user_are_added_to_those_of_the_site(places: Places) -> None:
    places.site.write_text(
        'bind = ["/a", "/b:/c:ro"]\n[binds]\ndata = "$SCRATCH/data:/data"\nlog = ["/log", "/old:/o"]\n'
    )
    places.user.write_text('[binds]\ndata = "/mine"\n')
    found = places.load(SINGFACTORY_BINDS="more=/x:/y:ro")
    assert found.text("bind") == "/a,/b:/c:ro"
    assert {name: text for name, (text, _) in found.values.items() if name.startswith("binds.")} == {
        "binds.data": "/mine",
        "binds.log": "/log,/old:/o",
        "binds.more": "/x:/y:ro",
    }


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('[binds]\n"a b" = "/x"', "'a b' is not the name of a bind preset"),
        ("[binds]\ndata = 1", "the preset 'data' in [binds] has the wrong type"),
        ('[binds]\ndata = ""', "the preset 'data' in [binds] has the wrong type"),
        ("[binds]\ndata = []", "the preset 'data' in [binds] has the wrong type"),
        ('binds = "x"', "binds is not a table"),
        ("bind = 1", "bind has the wrong type"),
        ('cleanenv = "yes"', "cleanenv has the wrong type"),
    ],
)
def test_a_bind_or_switch_that_cannot_be_understood_names_the_file(places: Places, line: str, said: str) -> None:
    places.site.write_text(line)
    with pytest.raises(UsageError) as told:
        places.load()
    assert said in told.value.what
    assert str(places.site) in told.value.what


def test_a_switch_in_the_environment_is_on_or_off(places: Places) -> None:
    assert [places.load(SINGFACTORY_CLEANENV=text).switch("cleanenv") for text in ("1", "True", "no", "off")] == [
        True,
        True,
        False,
        False,
    ]
    with pytest.raises(UsageError, match="cleanenv is 'maybe'"):
        places.load(SINGFACTORY_CLEANENV="maybe").switch("cleanenv")


def test_sandbox_is_either_wanted_or_required(places: Places) -> None:
    assert not places.load().sandbox_required
    assert not places.load(SINGFACTORY_SANDBOX="wanted").sandbox_required
    assert places.load(SINGFACTORY_SANDBOX="required").sandbox_required
    with pytest.raises(UsageError, match="sandbox is 'requierd'"):
        _ = places.load(SINGFACTORY_SANDBOX="requierd").sandbox_required


def test_a_site_that_names_its_login_nodes_decides_alone_about_builds_there(places: Places) -> None:
    own = {"SINGFACTORY_LOGIN_NODES": "none", "SINGFACTORY_LOGIN_BUILDS": "allowed"}
    assert places.load({}, **own).text("login_builds") == "allowed"
    places.site.write_text('login_nodes = ["login*", "head"]')
    found = places.load({}, **own)
    assert (found.listed("login_nodes"), found.text("login_builds")) == (("login*", "head"), "")


@pytest.mark.parametrize("text", ["0", "-1", "1001", "two", "1.5"])
def test_an_invalid_number_is_an_error_that_names_its_origin(places: Places, text: str) -> None:
    with pytest.raises(UsageError, match="slurm_at_once is") as caught:
        places.load(SINGFACTORY_SLURM_AT_ONCE=text).count("slurm_at_once", 8)
    assert caught.value.lines()[1:] == ("set in SINGFACTORY_SLURM_AT_ONCE", "write 1 to 1000")
    assert places.load().count("slurm_at_once", 8) == 8
