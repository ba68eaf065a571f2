"""The command line: one file a verb; it names the function to call and prints what came back. No logic."""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from typing import Any, get_args, get_origin

INCOMPLETE = 1
"""Exit code of a run that is done but for inputs that could not be read, as of `grep`, `tar` or `gzip`: what a script
makes of its result would lack something."""

RANK = "RANK"
"""torchrun's variable for the number of a process among those that share a run: the first speaks for all."""

VERBS = {
    "demo": "the whole of cupola on a rendered street, from nothing, with an HTML report",
    "render": "render stereo video of a street, with truth",
    "inspect": "what a data set holds and how good its stereo and flow are",
    "pseudo-label": "stage 1: panoptic pseudo labels from stereo video",
    "semantics": "the pseudo classes of stage 1 alone",
    "import-labels": "pseudo labels of the published code become a label store",
    "export-labels": "a label store as the published code's pseudo labels",
    "export onnx": "a trained network as an ONNX file, which runs without torch",
    "learn semantics": "train the pseudo classes' network on stereo images, without labels",
    "train": "stage 2: train the panoptic network on a label store",
    "self-train": "stage 3: the network teaches itself on images without labels",
    "finetune": "a network learns true classes from a few annotated images, or from many",
    "predict": "panoptic maps of single images",
    "evaluate": "PQ, SQ, RQ, mIoU, accuracy and AP against truth",
    "ablate pseudo-labels": "what each part of stage 1 is worth: the paper's tables, measured",
    "ablate training": "what each part of training is worth: the paper's table 7c on rendered streets",
    "weights list": "published weights: what there is, licences, where they are",
    "weights get": "fetch published weights, resumable, checked",
    "weights convert": "a published checkpoint becomes safetensors with a card",
    "weights verify": "check that weights are whole",
    "doctor": "explain this machine: what is installed, what will run",
}


def split_verb(words: list[str]) -> tuple[str | None, list[str]]:
    """The verb that `words` begin with, which may be of two words, and the rest; None where it is no verb."""
    for count in (2, 1):
        if " ".join(words[:count]) in VERBS:
            return " ".join(words[:count]), words[count:]
    return None, words


def module_of(verb: str) -> str:
    """The module of a verb."""
    return f"cupola.cli.{re.sub('[- ]', '_', verb)}"


def _unknown(words: list[str]) -> str:
    """What to say of words that begin with no verb."""
    from difflib import get_close_matches

    longer = [verb for verb in VERBS if verb.startswith(f"{words[0]} ")]
    if longer:
        return f"`{words[0]}` needs to know what: {', '.join(f'`cupola {verb}`' for verb in longer)}"
    near = get_close_matches(words[0], VERBS, n=1) or get_close_matches(" ".join(words[:2]), VERBS, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "`cupola --help` lists the verbs"
    return f"there is no verb `{words[0]}`; {hint}"


def _usage() -> str:
    from cupola import __version__

    lines = [
        f"cupola {__version__}: a panoptic network from nothing but stereo video",
        "",
        "usage: cupola VERB ...",
        "",
    ]
    width = max(len(verb) for verb in VERBS) + 2
    lines += [f"  {verb:{width}}{what}" for verb, what in VERBS.items()]
    lines += ["", "`cupola VERB --help` explains one verb. Start with `cupola demo`."]
    return "\n".join(lines)


def _parse(verb: str, command: Any, arguments: list[str], presets: Any = None) -> dict[str, Any]:
    """Arguments of `command` from the command line and YAML files, dataclasses built. Raises `ConfigError`."""
    from argparse import ArgumentError

    from jsonargparse import ArgumentParser

    from cupola.cli.choices import PRESET_WEIGHTS, PRESET_WORDS, method_help, need_weights, resolve

    methods, arguments = resolve(command, arguments, presets or {})
    description = (command.__doc__ or "").split("Args:")[0].strip()
    parser = ArgumentParser(prog=f"cupola {verb}", description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file of arguments, such as the config.yaml of a result")
    if presets:
        parser.add_argument("--preset", help=f"methods and settings by one name: {', '.join(presets)}")
    if need_weights(presets or {}):
        parser.add_argument("--weights", help=f"folder of the preset's weights (default: {PRESET_WEIGHTS})")
    parser.add_function_arguments(command, as_group=False, as_positional=True, sub_configs=False, skip=set(methods))
    for argument, method in methods.items():
        parser.add_class_arguments(method, argument, sub_configs=False)
    optional = _optional_positionals(command)
    action: Any
    for action in parser._actions:
        if action.dest in optional:
            action.nargs, action.option_strings = "?", []
        if action.dest in methods:
            action.metavar, action.help = "NAME", method_help(command, action.dest)
        # A positional list is written as on any command line (A B C), not as JSON: the parser then checks each element.
        hint = getattr(action, "_typehint", None)
        if not action.option_strings and get_origin(hint) is list:
            action._typehint, action.nargs, action.metavar = get_args(hint)[0], "+", action.dest.upper()
    try:
        values = parser.instantiate_classes(parser.parse_args(_with_values(parser, arguments)))
    except ArgumentError as error:
        raise _explained(verb, parser, error) from error
    return {
        name: value for name, value in values.items() if name != "config" and not (presets and name in PRESET_WORDS)
    }


def _optional_positionals(command: Any) -> set[str]:
    """Arguments of `command` before its `*` that have a default: on the command line, words that may be left out."""
    from inspect import Parameter, signature

    return {
        name
        for name, parameter in signature(command).parameters.items()
        if parameter.kind is Parameter.POSITIONAL_OR_KEYWORD and parameter.default is not Parameter.empty
    }


def _with_values(parser: Any, arguments: list[str]) -> list[str]:
    """The arguments, where a yes-or-no option without a value means yes: `--tta`."""
    actions = [action for action in parser._actions if getattr(action, "_typehint", None) is bool]
    switches = {option for action in actions for option in action.option_strings}
    return [
        f"{word}=true" if word in switches and value.lower() not in ("true", "false", "yes", "no") else word
        for word, value in zip(arguments, [*arguments[1:], ""], strict=False)
    ]


def _explained(verb: str, parser: Any, error: Exception) -> Exception:
    """The parser's complaint as one sentence, with the nearest known option for an unknown one."""
    from difflib import get_close_matches

    from cupola.errors import ConfigError

    message = " ".join(str(error).split())
    unknown = re.search(r"unrecognized arguments: (--[^\s=]+)", message)
    if unknown:
        options = [option for action in parser._actions for option in action.option_strings]
        near = get_close_matches(unknown[1], options, n=1)
        message = f"there is no option {unknown[1]}" + (f"; did you mean {near[0]}?" if near else "")
    choice = re.search(r'key "(\w+)": Does not validate .*?Literal\[(.*?)\].* Given value: ([\w.-]+)$', message)
    if choice:
        known = [name.strip("' ") for name in choice[2].split(",")]
        near = get_close_matches(choice[3], known, n=1)
        message = f"there is no {choice[1]} `{choice[3]}`, known are {', '.join(known)}"
        message += f"; did you mean {near[0]}?" if near else ""
    message = re.sub(
        r'Parser key "([^"]+)".*?: Expected an? <class \'(\w+)\'>\. Got value: (.*)',
        r"\1 must be of type \2, but is \3",
        message,
    )
    return ConfigError(f"{message.rstrip('.')} (`cupola {verb} --help` explains every option)")


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb. Returns the exit code: 0; `INCOMPLETE`, which the verb's `show` returns, where inputs were left
    out; 2 after a user error, told in one sentence on stderr; 130 after Ctrl-C."""
    from cupola.errors import CupolaError

    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        from cupola import __version__

        print(__version__)
        return 0
    verb, rest = split_verb(arguments)
    if verb is None:
        asks = arguments[-1] in ("-h", "--help")  # `cupola learn --help`
        print(f"cupola: {_unknown(arguments)}", file=sys.stdout if asks else sys.stderr)
        return 0 if asks else 2
    module = import_module(module_of(verb))
    try:
        result = module.command(**_parse(verb, module.command, rest, getattr(module, "presets", None)))
        return 0 if os.environ.get(RANK, "0") != "0" else module.show(result) or 0
    except CupolaError as error:
        print(f"cupola {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"cupola {verb}: stopped; run the same command again to go on", file=sys.stderr)
        return 130
