"""Checks of a definition's arguments, base images and stages."""

from __future__ import annotations

from collections.abc import Iterator

from factory.recipes.content import refuse_moving
from factory.recipes.definition.arguments import BUILT_IN, values_by_arch
from factory.recipes.definition.parser import bind
from factory.recipes.definition.templates import TEMPLATE, undefined, uses
from factory.recipes.lint.subject import Subject
from factory.recipes.model import Problem, ProblemError
from factory.recipes.quiet import quiet


def _arguments(subject: Subject) -> Iterator[Problem]:
    args = subject.recipe.build.args
    used = subject.definition.variables()
    known = BUILT_IN | args.keys()
    for use in used:
        if use.name not in known and not use.defined:
            yield undefined(use.name, subject.error(use.line, "", "").place)
    for name in sorted(args.keys() - {use.name for use in used} - BUILT_IN):
        remedy = f"write {{{{ {name} }}}} in {subject.recipe.build.definition}, or remove it"
        yield subject.about_recipe(
            ("build", "args", name), f"the argument {name!r} of [build] args is not used", remedy, warning=False
        )


def _values(subject: Subject) -> Iterator[Problem]:
    """Report values that would change the definition's structure, such as one that begins a section."""
    # Names without a value are reported by _arguments; here they must not hide problems of the others.
    missing = {use.name: "x" for use in subject.definition.variables() if not use.defined}
    try:
        for values in values_by_arch(subject.recipe):
            refuse_moving(subject.definition, {**missing, **values})
            if subject.is_sound:
                bind(subject.definition, {**missing, **values})
    except ProblemError as error:
        yield error.problem


def _base(subject: Subject) -> Iterator[Problem]:
    base = subject.recipe.build.base
    lines = [use.line for use in subject.definition.variables() if use.name == "base"]
    if lines and not base:
        remedy = 'write base = "docker://NAME:TAG" under [build] in recipe.toml'
        yield subject.error(lines[0], "{{ base }} is used, but the recipe has no base", remedy)
    if base and not lines:
        remedy = "write From: {{ base }} in the definition, or remove base"
        yield subject.about_recipe(
            ("build", "base"), f"base is {base}, but the definition does not use {{{{ base }}}}", remedy, warning=False
        )


def _bootstrap(subject: Subject) -> Iterator[Problem]:
    scheme = subject.recipe.build.base.partition("://")[0]
    for stage in subject.definition.stages:
        source, agent = stage.header("From"), stage.header("Bootstrap")
        of_base = source is not None and "base" in uses(source.value)
        if agent is None or TEMPLATE.search(agent.value):
            continue
        if of_base and scheme and agent.value.lower() != scheme:
            message = f"Bootstrap: {agent.value} does not match the base {subject.recipe.build.base}"
            yield subject.error(agent.line, message, f"write Bootstrap: {scheme}")
        if not of_base and agent.value.lower() == "recipe":
            remedy = 'write From: {{ base }} here, and base = "recipe://NAME" under [build] in recipe.toml'
            yield subject.error(agent.line, "Bootstrap: recipe works only with From: {{ base }}", remedy)


def _stages(subject: Subject) -> Iterator[Problem]:
    for definition in subject.bound:
        earlier: set[str] = set()
        for stage in definition.stages:
            for section in stage.named("files"):
                if section.source_stage and section.source_stage not in earlier:
                    message = f"%files from {section.source_stage}: no earlier stage has this name"
                    yield subject.error(section.line, message, "name the earlier stage with the header Stage:")
            earlier.add(stage.value("Stage"))


def _sizes(subject: Subject) -> Iterator[Problem]:
    """Report what the engine cannot read once the factory's own rules are added."""
    first = quiet.mount_points(subject.recipe.run.binds)
    for definition in subject.bound if subject.is_sound else ():
        if problem := quiet.with_rules(definition, subject.recipe.quiet, 0, first).too_long():
            yield problem


CHECKS = (_arguments, _values, _base, _bootstrap, _stages, _sizes)
