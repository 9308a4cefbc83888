"""Quiet builds: a rebuilt image differs only where its contents differ.

The factory adds rules to every build. They are on by default, and each has a switch in the table `[quiet]` of
recipe.toml. Rules that act inside the image run before and after the recipe's own `%post`, which becomes a separate
script: it keeps its interpreter, line numbers and exit status, and the rules run even if it ends with `exit 0` or
`exec`. User documentation: docs/reproducible.md.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from factory.oci.digest import Digest
from factory.recipes.definition.definition import Definition, Section, Stage
from factory.recipes.model import QuietSpec
from factory.recipes.quiet import scripts

_USUAL_SHELL = ("/bin/sh", "-ex")  # what Apptainer and SingularityCE start %post with
_SCRIPT = "/.post.recipe"
_AT_ONCE = 32 * 1024  # bytes of a %post; the engine reads sections of up to 64 KiB, and joins repeated ones
# Agents that create the base during the build and leave logs and caches. Such bases have a shell.
_MADE_HERE = frozenset({"debootstrap"})


@dataclass(frozen=True)
class Rule:
    """One rule. what and why: its documentation. before, after: shell commands that run before and after `%post`.

    `{epoch}` in before is replaced by SOURCE_DATE_EPOCH, in seconds since 1970.
    """

    name: str
    what: str
    why: str
    before: str = ""
    after: str = ""
    mksquashfs_options: tuple[str, ...] = ()


RULES = (
    Rule(
        "epoch",
        "`SOURCE_DATE_EPOCH` and the build-date label are the time of the last commit to the recipe",
        "no file is newer than the recipe, and programs that honor the variable write that time instead of now",
        before="export SOURCE_DATE_EPOCH={epoch}\n",
    ),
    Rule(
        "locale",
        "`TZ=UTC` and `LC_ALL=C.UTF-8` (`C` where the image lacks it) in `%post`",
        "sorting, messages and local times do not depend on the build machine",
        before=scripts.LOCALE,
    ),
    Rule(
        "caches",
        "package managers' caches and lists are removed, logs are emptied",
        "they contain times and the mirror's current state, and an image does not need them",
        after=scripts.CACHES,
    ),
    Rule(
        "identity",
        "machine-id, SSH host keys, random seeds and the build machine's host name are removed",
        "they differ in every build, and no two machines should share them",
        after=scripts.IDENTITY,
    ),
    Rule(
        "bytecode",
        "Python's `.pyc` files contain a hash of their source, not its time (PEP 552)",
        "a time differs in every build and is wrong once file times are clamped: Python would compile at each import",
        after=scripts.BYTECODE,
    ),
    Rule(
        "fragments",
        "`mksquashfs -no-fragments` (Apptainer 1.4 and later)",
        "the ends of files share no blocks, so a changed file does not change its neighbors",
        mksquashfs_options=("-no-fragments",),
    ),
)

NO_RULES = QuietSpec(**{rule.name: False for rule in RULES})


def rules_of(spec: QuietSpec) -> tuple[Rule, ...]:
    """Return the rules that are on, in order."""
    return tuple(rule for rule in RULES if getattr(spec, rule.name))


def record(spec: QuietSpec) -> str:
    """Return the rules for the input key: their names, and a digest of everything that they do."""
    rules = rules_of(spec)
    content = "".join(text for rule in rules for text in (rule.before, rule.after, *rule.mksquashfs_options))
    around = _DATE + scripts.COMMON + _BEGIN + _TIDY_UP + _RUN
    names = " ".join(rule.name for rule in rules)
    digest = Digest.of((content + around).encode())
    return f"{names} {digest.short}".strip()


def mksquashfs_options(spec: QuietSpec) -> tuple[str, ...]:
    """Return the options that the rules pass to mksquashfs."""
    return tuple(option for rule in rules_of(spec) for option in rule.mksquashfs_options)


def clamps_times(spec: QuietSpec, definition: Definition) -> bool:
    """Return whether the engine may clamp file times to the epoch.

    The bytecode rule must run too: otherwise `.pyc` files that contain times would be stale.
    """
    return spec.epoch and spec.bytecode and _is_scripted(definition.stages[-1])


def with_rules(definition: Definition, spec: QuietSpec, epoch: int, first: Sequence[str] = ()) -> Definition:
    """Apply the rules to a bound definition: all rules to the last stage, those before `%post` to the others too.

    epoch: seconds since 1970. first: shell commands to add at the beginning of the last stage's `%post`. A stage
    without `%post` gets none, so that its base needs no shell, except if the build machine creates the base
    (debootstrap) or there are commands in first.
    """
    rules = rules_of(spec)
    before = "".join(rule.before for rule in rules).replace("{epoch}", str(epoch))
    after = "".join(rule.after for rule in rules)
    *earlier, last = definition.stages
    if spec.epoch:
        last = _labelled(last, epoch)
    stages = [_wrapped(stage, before, "") if stage.named("post") else stage for stage in earlier]
    commands = "".join(f"{command}\n" for command in first)
    if _is_scripted(last) or commands:
        last = _wrapped(last, before + commands, after)
    return replace(definition, stages=(*stages, last))


def mount_points(binds: Sequence[str]) -> tuple[str, ...]:
    """Return the shell commands that create the mount points of `[run] binds`."""
    groups = (binds[at : at + 20] for at in range(0, len(binds), 20))  # a line has to fit into a section
    return tuple(f"mkdir -p -- {shlex.join(group)} || exit" for group in groups)


def labelled(definition: Definition, labels: Mapping[str, str]) -> Definition:
    """Return the definition with labels, of one line each, for its image; labels in the recipe take precedence."""
    *earlier, last = definition.stages
    body = "".join(f"    {name} {text}\n" for name, text in labels.items())
    return replace(definition, stages=(*earlier, _with_labels(last, body))) if body else definition


def _labelled(stage: Stage, epoch: int) -> Stage:
    """Return the stage with the build-date label set to the epoch; a label in the recipe takes precedence."""
    time = datetime.fromtimestamp(epoch, timezone.utc)
    return _with_labels(stage, f"    {_DATE.format(time, day=time.day)}\n")


def _with_labels(stage: Stage, body: str) -> Stage:
    return replace(stage, sections=(Section("labels", "", body, stage.line), *stage.sections))


def _is_scripted(stage: Stage) -> bool:
    return bool(stage.named("post")) or stage.value("Bootstrap").lower() in _MADE_HERE


_DATE = "org.label-schema.build-date {:%A_{day}_%B_%Y_%H:%M:%S_UTC}"  # as the engines write it
_BEGIN = """\
# Added by singfactory. The recipe's own %post is below, unchanged.
{ set +ex; } 2>/dev/null
"""
_TIDY_UP = """\
tidy_up() {
%s}
trap 'status=$?; { set +ex; } 2>/dev/null; [ "$status" -ne 0 ] || (tidy_up); exit "$status"' EXIT
"""
# The shell itself copies the lines: an image may have few programs.
_RUN = """\
while IFS= read -r line; do printf '%%s\\n' "$line"; done >%(script)s <<'%(end)s'
%(body)s%(end)s
%(interpreter)s %(script)s || exit
rm -f %(script)s || :
"""


def _wrapped(stage: Stage, before: str, after: str) -> Stage:
    """Return the stage with a `%post` that runs before, the recipe's own as a script, and after if that succeeds.

    No section becomes longer than the engine reads at once: the new `%post` is cut into several, and where the recipe
    has more than one, the others stay as empty ones.
    """
    if not before and not after:
        return stage
    sections = stage.named("post")
    parts = [_BEGIN, before]
    if after:
        parts.append(_TIDY_UP % (scripts.COMMON + after))
    if body := "".join(section.body for section in sections):
        parts.append(_RUN % _script(body, _interpreter(sections)))
    if stage.named("appinstall"):  # the engine appends these to %post
        parts.append("set -ex\n")
    posts = tuple(_cut("".join(parts), sections[0].line if sections else stage.line))
    if not sections:
        return replace(stage, sections=(*posts, *stage.sections))
    at = stage.sections.index(sections[0])
    rest = (replace(one, args="", body="") if one.name == "post" else one for one in stage.sections[at + 1 :])
    return replace(stage, sections=(*stage.sections[:at], *posts, *rest))


def _cut(body: str, line: int) -> Iterator[Section]:
    """Yield `%post` sections that together have this body."""
    lines: list[str] = []
    size = 0
    for text in (f"{bare}\n" for bare in body.split("\n")[:-1]):
        if lines and size + len(text.encode()) > _AT_ONCE:
            yield Section("post", "", "".join(lines), line)
            lines, size = [], 0
        lines.append(text)
        size += len(text.encode())
    yield Section("post", "", "".join(lines), line)


def _script(body: str, interpreter: Sequence[str]) -> dict[str, str]:
    end = "END_OF_POST"
    while f"{end}\n" in body:
        end += "_"
    return {"script": _SCRIPT, "end": end, "body": body, "interpreter": shlex.join(interpreter)}


def _interpreter(sections: Sequence[Section]) -> tuple[str, ...]:
    """Return the command that the engine would run `%post` with. The last section with arguments counts."""
    words = next((section.args.split() for section in reversed(sections) if section.args), [])
    return tuple(words[words.index("-c") + 1 :]) if "-c" in words else (*_USUAL_SHELL, *words)
