"""Arguments that are one of several methods: `--correspondence raft --correspondence.weights FILE`.

Such an argument is annotated `Annotated[Protocol, OneOf(METHODS)]`. The name picks the settings dataclass before the
parser is built, so that the parser knows, checks and explains exactly the chosen method's settings. In YAML the name
stands beside them: `correspondence: {name: raft, weights: FILE}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Presets = Mapping[str, Callable[..., dict[str, Any]]]
"""Name -> what gives the arguments of a command, from a folder of weights or from nothing."""

NO_PRESETS: Presets = {}
PRESET_WORDS = ("preset", "weights")
PRESET_WEIGHTS = "weights"
"""Folder of weights where none is named."""


def method_arguments(command: Callable[..., Any]) -> dict[str, Mapping[str, type]]:
    """Argument -> its methods by name, for each argument of `command` that is one of several."""
    from typing import get_type_hints

    from cupola.config import OneOf

    hints = get_type_hints(command, include_extras=True)
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: mark.methods for name, marked in marks.items() for mark in marked if isinstance(mark, OneOf)}


def resolve(
    command: Callable[..., Any], arguments: list[str], presets: Presets = NO_PRESETS
) -> tuple[dict[str, type], list[str]]:
    """The class chosen for each such argument, and the arguments without the choices.

    The command line goes before YAML files, these before a preset, and this before the function's own default. Settings
    of a method that is not the chosen one are left out of files and presets. Raises `ConfigError` for an unknown name.
    """
    from inspect import signature

    methods = method_arguments(command)
    if not methods and not presets:
        return {}, arguments
    content, arguments = _preset(arguments, presets)
    rest, named, configs = _split(arguments, methods)
    if content is not None:
        rest = ["--config", "", *rest]
        configs = {1: content} | {place + 2: file for place, file in configs.items()}
    choices: dict[str, str] = {}
    for content in configs.values():
        choices |= {argument: name for argument in methods if (name := _named(content.get(argument))) is not None}
    choices |= named
    defaults = {name: signature(command).parameters[name].default for name in methods}
    classes = {
        argument: _class(argument, choices[argument], known) if argument in choices else type(defaults[argument])
        for argument, known in methods.items()
    }
    texts = {place: _without_names(content, classes, defaults) for place, content in configs.items()}
    return classes, [texts.get(place, word) for place, word in enumerate(rest)]


def need_weights(presets: Presets) -> bool:
    """Whether a preset wants a folder of weights."""
    from inspect import signature

    return any(signature(preset).parameters for preset in presets.values())


def method_help(command: Callable[..., Any], argument: str) -> str:
    """What `--argument NAME` can be, for --help."""
    from inspect import signature

    default = getattr(type(signature(command).parameters[argument].default), "name", None)
    known = ", ".join(method_arguments(command)[argument])
    return f"the method, one of {known} (default: {default}); its settings are below"


def _preset(arguments: list[str], presets: Presets) -> tuple[dict[str, Any] | None, list[str]]:
    """What `--preset NAME [--weights FOLDER]` stands for, as a YAML file would say it, and the other arguments."""
    from pathlib import Path

    from cupola.config import plain
    from cupola.errors import ConfigError

    rest: list[str] = []
    given: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if presets and option in (("--preset", "--weights") if need_weights(presets) else ("--preset",)):
            given[option] = value if equals else next(words, "")
        else:
            rest.append(word)
    if "--preset" not in given:
        if given:
            raise ConfigError(f"--weights is the folder of a preset's weights; add --preset {' or '.join(presets)}")
        return None, rest
    if given["--preset"] not in presets:
        raise ConfigError(f"there is no preset `{given['--preset']}`, known are {', '.join(presets)}")
    weights = [Path(given.get("--weights", PRESET_WEIGHTS))] if need_weights(presets) else []
    return plain(presets[given["--preset"]](*weights)), rest


def _split(
    arguments: list[str], methods: Mapping[str, Any]
) -> tuple[list[str], dict[str, str], dict[int, dict[str, Any]]]:
    """(arguments without choices, argument -> chosen name, place of a YAML file among them -> its content)."""
    rest: list[str] = []
    named: dict[str, str] = {}
    configs: dict[int, dict[str, Any]] = {}
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        name = option.removeprefix("--")
        if option.startswith("--") and name in methods:
            named[name] = value if equals else _following(words, option, methods[name])
        elif option == "--config" and (path := value if equals else next(words, None)):
            rest += ["--config", path]
            content = _yaml(path)
            if content.keys() & methods.keys():
                configs[len(rest) - 1] = content
        else:
            rest.append(word)
    return rest, named, configs


def _following(words: Any, option: str, known: Mapping[str, type]) -> str:
    from cupola.errors import ConfigError

    word = next(words, None)
    if word is None or word.startswith("-"):
        raise ConfigError(f"{option} wants one of {', '.join(known)}")
    return str(word)


def _yaml(path: str) -> dict[str, Any]:
    """The content of a YAML file, empty where the parser will complain about it."""
    from pathlib import Path

    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _named(value: Any) -> str | None:
    """The name in `correspondence: raft` or `correspondence: {name: raft, ...}`."""
    value = value.get("name") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _class(argument: str, name: str, known: Mapping[str, type]) -> type:
    from difflib import get_close_matches

    from cupola.errors import ConfigError

    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"there is no {argument} `{name}`, known are {', '.join(known)}{hint}")
    return known[name]


def _without_names(content: dict[str, Any], classes: Mapping[str, type], defaults: Mapping[str, Any]) -> str:
    """YAML of a file's content as the parser wants it: settings of the chosen methods, without their names."""
    import yaml

    kept = dict(content)
    for argument, chosen in classes.items():
        value = kept.pop(argument, None)
        name = _named(value) or getattr(type(defaults[argument]), "name", None)
        if isinstance(value, dict) and name == getattr(chosen, "name", None):
            kept[argument] = {key: item for key, item in value.items() if key != "name"}
    return str(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))
