"""Plan files: what an audit tests, written down in YAML, checked against a published schema before any work."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from modelward.audit.question import Question
from modelward.audit.scope import Attack, Choice, Fingerprint
from modelward.core.errors import FormatError, UsageError
from modelward.core.nearest import nearest
from modelward.evaluation.farm import TheftSpec
from modelward.io.yaml_files import YamlFile, read_yaml


def _radius(value: object) -> object:
    """Return ``"8/255"`` as a number."""
    try:
        return float(Fraction(value)) if isinstance(value, str) else value
    except (ValueError, ZeroDivisionError):
        return value


Radius = Annotated[float, BeforeValidator(_radius, json_schema_input_type=float | str), Field(ge=0)]
Settings = dict[str, Any]


class _Strict(BaseModel):
    """A part of a plan: no other keys, nothing changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Evasion(_Strict):
    """An evasion attack over radii."""

    method: str = Field(description="name of an evasion attack, as in `modelward methods`")
    norm: str = "linf"
    eps: list[Radius] = Field(min_length=1, description="radii, pixels in [0, 1]; fractions such as 8/255 are read")
    settings: Settings = Field(default_factory=dict, description="hyper-parameters of the attack")


class Stealing(_Strict):
    """A theft, made ``copies`` times with different seeds."""

    method: str = Field(description="name of a theft, as in `modelward methods`")
    group: str | None = Field(default=None, description="name it is reported under; the method's own when left out")
    settings: Settings = Field(default_factory=dict, description="hyper-parameters of the theft")
    labels: Literal["true", "stolen", "none"] | None = Field(
        default=None, description="the thief's labels; the first the method allows when left out"
    )
    arch: str | None = Field(default=None, description="the thief's architecture; the victim's when left out")
    copies: int = Field(default=1, ge=1, le=1000)


class Ownership(_Strict):
    """An ownership method, and what a suspect grants it."""

    method: str = Field(description="name of an ownership method, as in `modelward methods`")
    settings: Settings = Field(default_factory=dict, description="hyper-parameters of the method")
    access: Literal["weights", "probabilities", "label"] = "weights"


class PlanFile(_Strict):
    """What an audit tests. A part that is left out is the profile's; an empty list leaves it untested."""

    version: Literal[1] = Field(default=1, description="of this format")
    model: str | None = Field(default=None, description="safetensors file, from the current folder; the embedded model when left out")
    arch: str | None = None
    data: str | None = Field(default=None, description="name, folder, zip or file of a labelled image set")
    profile: Literal["smoke", "quick", "full"] | None = None
    seed: int | None = Field(default=None, ge=0)
    trained_on: Literal["owner", "train"] | None = None
    size: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(default=None, description="height and width")
    images: int | None = Field(default=None, ge=1, description="how many test images are attacked")
    evasion: list[Evasion] | None = None
    corruptions: list[str] | None = None
    battery: Literal["smoke", "standard", "full"] | None = Field(
        default=None, description="every theft there is, in this size; instead of a list under `theft`"
    )
    theft: list[Stealing] | None = None
    ownership: list[Ownership] | None = None
    fail_if: list[str] = Field(default_factory=list, description="conditions such as 'robust_acc < .4'")


PARTS: dict[str, type[_Strict]] = {"evasion": Evasion, "theft": Stealing, "ownership": Ownership}


def plan_schema() -> dict[str, Any]:
    """Return the JSON Schema of plan files, version 1."""
    schema = PlanFile.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "modelward/plan-1",
        **schema,
        "title": "modelward audit plan, version 1",
    }


def with_plan(question: Question, path: Path | str) -> Question:
    """Return ``question`` with what the plan file says.

    Raises
    ------
    FormatError
        for a file that is no YAML mapping.
    UsageError
        for an unknown key (with the nearest name and the line), a wrong value, an unknown method or setting, or something that both the plan and
        the question decide.
    """
    file = read_yaml(path)
    try:
        plan = PlanFile.model_validate(file.values)
    except ValidationError as error:
        raise _teach(file, error) from None
    said: dict[str, Any] = {
        name: value for name in ("arch", "battery", "data", "profile", "seed", "trained_on") if (value := getattr(plan, name)) is not None
    }
    if plan.model is not None:
        said["model"] = Path(plan.model)
    if plan.size is not None:
        said["size"] = (plan.size[0], plan.size[1])
    usual = Question()
    for name, value in said.items():
        given = getattr(question, name)
        if given not in {getattr(usual, name), value}:
            message = f"{file.name} says {name}: {value} and the command line says {given}; keep one of the two"
            raise UsageError(message)
    return dataclasses.replace(question, **said, choice=_choice(plan), fail_if=(*question.fail_if, *plan.fail_if))


def _choice(plan: PlanFile) -> Choice:
    """Return what the plan tests; ``None`` leaves a part to the profile."""
    return Choice(
        images=plan.images,
        attacks=None if plan.evasion is None else tuple(Attack(e.method, e.norm, tuple(sorted(e.eps)), e.settings) for e in plan.evasion),
        corruptions=None if plan.corruptions is None else tuple(dict.fromkeys(plan.corruptions)),
        theft=None if plan.theft is None else tuple(spec for entry in plan.theft for spec in _thefts(entry)),
        fingerprints=None if plan.ownership is None else tuple(Fingerprint(o.method, o.settings, o.access) for o in plan.ownership),
    )


def _thefts(entry: Stealing) -> list[TheftSpec]:
    """Return one theft a copy."""
    from modelward.audit.scope import require_family
    from modelward.core.families import TheftMethod

    labels = entry.labels or str(require_family(entry.method, TheftMethod, "theft").labels[0])
    return [
        TheftSpec(entry.method, entry.group or entry.method, entry.settings, labels, entry.arch, index) for index in range(entry.copies)
    ]


def _teach(file: YamlFile, error: ValidationError) -> UsageError | FormatError:
    """Return the first thing wrong with a plan as one sentence: where, what, and what was probably meant."""
    found = error.errors()[0]
    place = tuple(step for step in found["loc"] if not isinstance(step, str) or not step.startswith("function-"))
    key, inside = str(place[-1]), str(place[0])
    where = f"{file.name}, line {file.line(place)}"
    if found["type"] == "extra_forbidden":
        part = PARTS.get(inside, PlanFile) if len(place) > 1 else PlanFile
        known = list(part.model_fields)
        hint = nearest(key, known) or f"; known: {', '.join(known)}"
        return UsageError(f"{where}: there is no key {key!r}{' in ' + inside if len(place) > 1 else ''}{hint}")
    path = ".".join(map(str, place))
    return UsageError(f"{where}: {path}: {found['msg'][:1].lower()}{found['msg'][1:]}, not {found['input']!r:.80}")
