"""What an image keeps: its environment, its labels, and `%runscript` from ENTRYPOINT, CMD and WORKDIR.

Docker's rules (Dockerfile reference, "Understand how CMD and ENTRYPOINT interact"): the arguments of a run replace CMD;
ENTRYPOINT comes before them. What a Dockerfile does not set is the base image's, and ENTRYPOINT drops the base's CMD.
"""

from __future__ import annotations

from factory.recipes.dockerfile.shell import join, quote, value
from factory.recipes.dockerfile.stage import StageState

_BASE = "/.singularity.d/runscript"  # made by the engine from the base image's ENTRYPOINT and CMD
_KEPT = "/.singularity.d/runscript.base"


def finish(state: StageState, line: int) -> None:
    """Add what the image keeps. line: of the stage, for messages."""
    constants = [f"export {name}={quote(text)}" for name, text in state.constants.items()]
    state.out.environment[:0] = constants
    for name, text in state.labels.items():
        if state.has_shell:
            state.run(f'echo {value(f"{name} {text}".strip())} >>"$APPTAINER_LABELS"')
        else:
            state.out.labels.append(f"{name} {text}")
    _add_program(state, line)


def _add_program(state: StageState, line: int) -> None:
    entrypoint, command, folder = state.entrypoint, state.command, state.workdir
    if entrypoint is None and command is None and folder in ("", "/"):
        return  # the base image's own program, in the caller's folder
    if not state.has_shell:
        if entrypoint or command:
            words = join([*(entrypoint or ()), *(command or ())])
            message = "the image has no /bin/sh, so singfactory run cannot start its program"
            state.report.lose(line, message, f"start it with: singfactory exec IMAGE {words}")
        return
    script = state.out.runscript
    if folder not in ("", "/"):
        script.append(f"cd {value(folder)} || exit")
    elif not folder and (started := (entrypoint or command or ())) and started[0].startswith(("./", "../")):
        message = f"{started[0]} is relative to the base image's WORKDIR, which cannot be seen here"
        state.report.lose(line, message, "write WORKDIR with an absolute path")
    if entrypoint is None and command is None:
        state.run(f"cp {_BASE} {_KEPT}")
        script.append(f'exec {_KEPT} "$@"')
    elif entrypoint is None:
        # The base's ENTRYPOINT is a shell's word list in the engine's own script.
        state.run(f"grep '^OCI_ENTRYPOINT=' {_BASE} >{_KEPT} || :")
        script += [f". {_KEPT}", *_default(command or ()), 'eval "set -- $OCI_ENTRYPOINT \\"\\$@\\""', 'exec "$@"']
    else:
        script += [*_default(command or ()), f'exec {join(entrypoint)} "$@"' if entrypoint else 'exec "$@"']


def _default(command: tuple[str, ...]) -> list[str]:
    return [f"[ $# -gt 0 ] || set -- {join(command)}"] if command else []
