"""Parse "name=value" texts as values of a recipe's config and of the loop's."""

from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

from ..errors import RequestError
from .loop import LoopConfig

YES_NO = {"yes": True, "no": False}


def by_name(texts: Iterable[str]) -> dict[str, str]:
    """Split "name=text" into a mapping. RequestError for another form or a duplicate name."""
    given: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise RequestError("set", text, "write NAME=VALUE, e.g. --set steps=500")
        if name in given:
            raise RequestError("set", text, f"{name} is given twice; give it once")
        given[name] = value
    return given


def parsed(config: type, given: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the recipe's and the loop's values. RequestError for unknown, invalid or missing ones."""
    own_hints, loop_hints = get_type_hints(config), get_type_hints(LoopConfig)
    del loop_hints["out"]  # given by --output
    unknown = [name for name in given if name not in own_hints and name not in loop_hints]
    if unknown:
        fix = f"no such setting; there are {', '.join([*own_hints, *loop_hints])}"
        raise RequestError("set", f"{unknown[0]}={given[unknown[0]]}", fix)
    values = {name: parse_setting(name, text, (own_hints | loop_hints)[name]) for name, text in given.items()}
    missing = [
        f.name
        for f in fields(config)
        if f.default is MISSING and f.default_factory is MISSING and f.name not in given
    ]
    if missing:
        raise RequestError(
            "set", None, f"the recipe needs {', '.join(missing)}; give it as --set {missing[0]}=FOLDER"
        )
    return {n: v for n, v in values.items() if n in own_hints}, {
        n: v for n, v in values.items() if n not in own_hints
    }


def parse_setting(name: str, text: str, hint: Any) -> Any:
    """Convert `text` to the type `hint`.

    hint: bool ("yes", "no"), int, float, str, Path (must exist), a tuple of one of these ("64,128"), or any
    of these or None.
    """
    kind = (
        next((k for k in get_args(hint) if k is not NoneType), hint) if NoneType in get_args(hint) else hint
    )
    try:
        if kind is bool:
            return YES_NO[text]
        if getattr(kind, "__origin__", None) is tuple:
            return tuple(get_args(kind)[0](part) for part in text.split(","))
        value = kind(text)
    except (KeyError, ValueError) as error:
        example = {bool: "yes or no", int: "a number (int)", float: "a number (float)"}.get(
            kind, "a comma-separated list"
        )
        raise RequestError("set", f"{name}={text}", f"must be {example}") from error
    if isinstance(value, Path) and not value.exists():
        raise RequestError("set", f"{name}={text}", "no such folder")
    return value
