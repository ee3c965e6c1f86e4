"""Answers from JSON: the dataclasses of service/answers.py, out of what a service of this or a later version sends."""

from __future__ import annotations

import functools
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

# JSON writes 1.0 as 1 where it likes to; a bool is an int in Python, and not in JSON.
_PLAIN = {str: (str,), int: (int,), float: (int, float), bool: (bool,), types.NoneType: (types.NoneType,)}


class AnswerError(ValueError):
    """What came is not what the answer should be."""


def read_answer(kind: type[T], value: Any) -> T:
    """An instance of a dataclass out of parsed JSON; fields that it does not know are passed over.

    Args:
        kind: A dataclass whose fields are of JSON's own types, literals, unions, or lists, tuples, dicts by name and
            dataclasses of these.
        value: As `json.loads` gives it.

    Raises:
        AnswerError: A field is missing, or is something else than its type says.
    """
    answer: T = _read(kind, value, kind.__name__)
    return answer


def _read(kind: Any, value: Any, place: str) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _read_fields(kind, _check(kind, value, (dict,), place), place)
    if origin in (Union, types.UnionType):
        return _read_any(parts, value, place)
    if origin is list:
        return [_read(parts[0], each, f"{place}[{n}]") for n, each in enumerate(_check(kind, value, (list,), place))]
    if origin is dict:
        return {name: _read(parts[1], each, place) for name, each in _check(kind, value, (dict,), place).items()}
    if origin is tuple:
        if len(_check(kind, value, (list,), place)) != len(parts):
            raise AnswerError(f"{place} should be {len(parts)} values; got {value!r}.")
        return tuple(_read(part, each, place) for part, each in zip(parts, value, strict=True))
    # A later version may know more states than a literal lists.
    return value if kind is Any or origin is Literal else _read_plain(kind, value, place)


def _read_fields(kind: Any, value: dict[str, Any], place: str) -> Any:
    types_by_name = _hints(kind)
    absent = [
        each.name
        for each in fields(kind)
        if each.name not in value and each.default is MISSING and each.default_factory is MISSING
    ]
    if absent:
        raise AnswerError(f"{place} lacks {', '.join(absent)}.")
    return kind(**{n: _read(t, value[n], f"{place}.{n}") for n, t in types_by_name.items() if n in value})


def _read_any(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    """The value as the first of the kinds that takes it; None only where None is one of them."""
    if value is None and types.NoneType in kinds:
        return None
    real = [kind for kind in kinds if kind is not types.NoneType]
    for kind in real[:-1]:
        try:
            return _read(kind, value, place)
        except AnswerError:
            continue
    return _read(real[-1], value, place)


def _read_plain(kind: type, value: Any, place: str) -> Any:
    _check(kind, value, _PLAIN[kind], place)
    if isinstance(value, bool) and kind is not bool:
        raise AnswerError(f"{place} should be {kind.__name__}; got {value!r}.")
    return float(value) if kind is float else value


def _check(kind: Any, value: Any, accepted: tuple[type, ...], place: str) -> Any:
    if not isinstance(value, accepted):
        raise AnswerError(f"{place} should be {getattr(kind, '__name__', kind)}; got {value!r:.80}.")
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
