"""Search spaces of `tune`: which settings of a recipe vary, over what, from the command line or a YAML file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from vqa_train.core.config import StrictModel, load_yaml, parse
from vqa_train.core.errors import ConfigError, UsageError
from vqa_train.core.plugins import did_you_mean
from vqa_train.heads import HEADS
from vqa_train.heads.config import TrainConfig
from vqa_train.pipelines.fit.config import MemberConfig
from vqa_train.pipelines.tune.range import FORM, Choices, NumberRange, Param, checked, parse_range, range_of, same

SPACE_SCHEMA = "vqa-train/space/1"
_OPTIONS = "head.options."
_KIND = "head.kind"
_CLOSED = ("weight", _KIND, "head.clip_sd", "std_weighting")
"""All that a head with a closed form has beside its options."""


class _SpaceFile(StrictModel):
    schema_: Literal["vqa-train/space/1"] = Field(alias="schema")
    params: dict[str, Any] = Field(min_length=1)


def read_space(path: Path | None, params: Sequence[str], members: Sequence[MemberConfig]) -> list[Param]:
    """The space of a YAML file and of `--param` options, which win; sorted by path.

    Args:
        path: file of schema vqa-train/space/1, or None.
        params: as on the command line, e.g. `lr=float:1e-4:1e-2:log`.
        members: of the recipe whose settings vary.

    Raises:
        UsageError: a malformed option or an unknown setting (with the nearest known one).
        ConfigError: a malformed file, or a range that the setting does not take.
    """
    given: dict[str, str | NumberRange | Choices] = {}
    if path is not None:
        found_in_file = parse(_SpaceFile, load_yaml(path, "search space"), str(path)).params
        given = {name: range_of(value, f"{path}: params.{name}") for name, value in found_in_file.items()}
    for text in params:
        name, equals, rest = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--param {text!r} is not understood", hint=f"write {FORM}")
        given[name.strip()] = rest
    found: dict[str, Param] = {}
    for name, value in given.items():
        full = resolve(name, members)
        if full in found and name not in [text.partition("=")[0].strip() for text in params]:
            raise ConfigError(f"search space {str(path)!r} names {full} twice")
        found[full] = Param(full, parse_range(name, value) if isinstance(value, str) else checked(name, value))
    space = [found[name] for name in sorted(found)]
    for name in found:
        if all(_inside(member, name, members, found) is None for member in members):
            kinds = ", ".join(dict.fromkeys(member.train.head.kind for member in members))
            raise UsageError(f"parameter {name} changes nothing in this recipe: heads of kind {kinds} do not use it")
    for param in space:
        for edge in param.edges:
            apply(members, {param.path: edge}, f"{param.path}={edge!r}")
    return space


def resolve(name: str, members: Sequence[MemberConfig]) -> str:
    """The full path of a setting from a full or shortened one (`lr` for `optimizer.lr`).

    Raises:
        UsageError: none or several have that name.
    """
    known = settings(members)
    if name in known:
        return name
    ends = [path for path in known if path.endswith(f".{name}")]
    # What all members share comes before one member's.
    ends = [path for path in ends if not _is_member(path, members)] or ends
    if not ends and "." in name:
        member, _, rest = name.partition(".")
        ends = [path for path in known if path.startswith(f"{member}.") and path.endswith(f".{rest}")]
    if len(ends) > 1:
        raise UsageError(f"parameter {name!r} could be {' or '.join(ends)}", hint="write the whole path")
    if not ends:
        short = {path.rpartition(".")[2]: path for path in known}
        raise UsageError(f"unknown parameter {name!r}", hint=did_you_mean(name, [*short, *known]))
    return ends[0]


def settings(members: Sequence[MemberConfig]) -> list[str]:
    """Every path that may vary: those of `TrainConfig` and of the heads' options, and each member's own."""
    shared = list(_leaves(TrainConfig))
    for member in members:
        options: type[BaseModel] = HEADS.get(member.train.head.kind).options_type
        shared += [f"{_OPTIONS}{field}" for field in options.model_fields]
    shared = list(dict.fromkeys(shared))
    if len(members) == 1:
        return shared
    return [*shared, *(f"{member.name}.{path}" for member in members for path in ("weight", *shared))]


def apply(members: Sequence[MemberConfig], values: Mapping[str, Any], source: str) -> list[MemberConfig]:
    """The members with settings replaced; a path without a member's name is of all of them that use it.

    Raises:
        ConfigError: a value that its setting does not take.
    """
    result = []
    for member in members:
        found = member.model_dump(mode="json")
        for path, value in values.items():
            own = _inside(member, path, members, values)
            if own is None:
                continue
            place = found if own == "weight" else found["train"]
            *parents, last = own.split(".")
            for parent in parents:
                place = place[parent]
            place[last] = value
        changed = parse(MemberConfig, found, source)
        kind: type[BaseModel] = HEADS.get(changed.train.head.kind).options_type
        parse(kind, dict(changed.train.head.options), source)
        result.append(changed)
    return result


def current(members: Sequence[MemberConfig], space: Sequence[Param]) -> dict[str, Any] | None:
    """The recipe's own value of every parameter; None where one is outside its range, or members differ in one."""
    values: dict[str, Any] = {}
    paths = [param.path for param in space]
    for param in space:
        found = []
        for member in members:
            own = _inside(member, param.path, members, paths)
            if own is None:
                continue
            value: Any = member.model_dump(mode="json")
            for part in ["weight"] if own == "weight" else ["train", *own.split(".")]:
                value = value.get(part) if isinstance(value, dict) else None
            found.append(value)
        if not found or any(not same(value, found[0]) for value in found) or not param.holds(found[0]):
            return None
        values[param.path] = found[0]
    return values


def _inside(member: MemberConfig, path: str, members: Sequence[MemberConfig], varied: Collection[str]) -> str | None:
    """The path within a member; None where it is of another one, or of a setting that this kind of head does not use.

    Args:
        varied: every path that is searched; where the kind of head is among them, all settings count as used.
    """
    own = path.removeprefix(f"{member.name}.") if len(members) > 1 else path
    if own == path and _is_member(path, members):
        return None
    kind = HEADS.get(member.train.head.kind)
    options: type[BaseModel] = kind.options_type
    if own.startswith(_OPTIONS):
        return own if own.removeprefix(_OPTIONS) in options.model_fields else None
    kinds_vary = _KIND in varied or f"{member.name}.{_KIND}" in varied
    return own if own in _CLOSED or kinds_vary or not kind.closed_form else None


def _leaves(model: type[BaseModel], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += _leaves(inner, f"{prefix}{name}.")
        elif f"{prefix}{name}" not in ("head.options", "target_weights"):
            found.append(f"{prefix}{name}")
    return found


def _is_member(path: str, members: Sequence[MemberConfig]) -> bool:
    return len(members) > 1 and path.partition(".")[0] in [member.name for member in members]
