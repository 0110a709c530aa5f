"""Read the settings of a `_target_` from its source, without importing its module: composing a config loads no torch.

    declared("cptlab.training.objectives.CPT").settings["w_rank"].default        # 4.0

Names are followed through `from … import …` and base classes inside this package. Defaults, limits and choices are
literals, or constants of a module that are literals.
"""

from __future__ import annotations

import ast
import builtins
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from cptlab.errors import UserError
from cptlab.settings.setting import REQUIRED, Declaration, Part, Setting

PACKAGE = Path(__file__).resolve().parents[1]
_TYPES = {name: getattr(builtins, name) for name in ("int", "float", "str", "bool", "tuple", "list", "dict")}
_NAMES = _TYPES | {
    "Annotated": Annotated,
    "Literal": Literal,
    "Mapping": Mapping,
    "Sequence": Sequence,
    "Setting": Setting,
    "Part": Part,
    "Any": Any,
}


@dataclass(frozen=True)
class Target:
    """The parameters of a function or class of this package that a config can have. `is_open`: it takes others, too.

    `required`: those without a default.
    """

    settings: Mapping[str, Declaration]
    parts: Mapping[str, Part]
    required: tuple[str, ...] = ()
    is_open: bool = False

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.settings) | frozenset(self.parts)


@functools.cache
def declared(target: str) -> Target | None:
    """What can be set of a `_target_`; None for one of another package. Raises UserError where ours has no such name."""
    if target.split(".")[0] != PACKAGE.name:
        return None
    found = _find(target)
    if found is None:
        raise UserError(f"There is no {target}. Correct the _target_ that names it.")
    return _read(*found)


@dataclass(frozen=True)
class _Parameter:
    name: str
    annotation: ast.expr | None
    default: ast.expr | None
    module: _Module


class _Module:
    """One parsed source file: its definitions, its imports from this package, and its constants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.definitions: dict[str, ast.ClassDef | ast.FunctionDef] = {}
        self.imports: dict[str, str] = {}
        self.constants: dict[str, ast.expr] = {}
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                self.definitions[node.name] = node
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
                self.imports |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.constants[node.targets[0].id] = node.value

    def evaluate(self, node: ast.expr) -> Any:
        """The value of an annotation or a default. Raises TypeError where it is more than types and literals."""
        named = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)} - set(_NAMES)
        namespace = {name: self.constant(name) for name in named}
        code = compile(ast.Expression(node), str(self.path), "eval")
        return eval(code, {"__builtins__": {}}, _NAMES | namespace)

    def constant(self, name: str) -> Any:
        if name in self.constants:
            return self.evaluate(self.constants[name])
        if name in self.imports:
            module, _, attribute = self.imports[name].rpartition(".")
            return _module(module).constant(attribute)
        raise TypeError(f"{self.path}: {name} is neither a type that a setting can have nor a constant.")


@functools.cache
def _load(path: Path) -> _Module:
    return _Module(path)


def _module(dotted: str) -> _Module:
    path = _path(dotted)
    assert path is not None, dotted
    return _load(path)


def _path(dotted: str) -> Path | None:
    place = PACKAGE.joinpath(*dotted.split(".")[1:])
    candidates = (place / "__init__.py", place.with_name(place.name + ".py"))
    return next((path for path in candidates if path.is_file()), None)


def _find(dotted: str) -> tuple[_Module, ast.ClassDef | ast.FunctionDef] | None:
    """The definition that a dotted name leads to, through re-exports."""
    name, _, attribute = dotted.rpartition(".")
    path = _path(name) if name else None
    if path is None:
        return None
    module = _load(path)
    if attribute in module.definitions:
        return module, module.definitions[attribute]
    return _find(module.imports[attribute]) if attribute in module.imports else None


def _read(module: _Module, node: ast.ClassDef | ast.FunctionDef) -> Target:
    parameters = {parameter.name: parameter for parameter in _parameters(module, node)}
    settings, parts, required = {}, {}, []
    for name, parameter in parameters.items():
        marked = None if parameter.annotation is None else _marked(parameter.annotation, parameter.module)
        if marked is None:
            continue
        kind, mark, home = marked
        if parameter.default is None:
            required.append(name)
        if _calls(mark, "Part"):
            parts[name] = home.evaluate(mark)
        else:
            default = REQUIRED if parameter.default is None else parameter.module.evaluate(parameter.default)
            settings[name] = Declaration(home.evaluate(kind), default, home.evaluate(mark))
    function = node if isinstance(node, ast.FunctionDef) else _initialiser(node)
    is_open = function is not None and function.args.kwarg is not None
    return Target(MappingProxyType(settings), MappingProxyType(parts), tuple(required), is_open)


def _marked(annotation: ast.expr, module: _Module) -> tuple[ast.expr, ast.expr, _Module] | None:
    """Type and mark of an annotation `Annotated[…, Setting(…)]` or with `Part`, or of the alias that it names, with its
    module; None for any other annotation."""
    if isinstance(annotation, ast.Name):
        home, _, name = module.imports.get(annotation.id, "").rpartition(".")
        path = _path(home) if home else None
        place, name = (_load(path), name) if path else (module, annotation.id)
        return _marked(place.constants[name], place) if name in place.constants else None
    if not (isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated"):
        return None
    assert isinstance(annotation.slice, ast.Tuple)
    kind, *marks = annotation.slice.elts
    return next(((kind, mark, module) for mark in marks if _calls(mark, "Setting") or _calls(mark, "Part")), None)


def _calls(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == name


def _initialiser(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)


def _parameters(module: _Module, node: ast.ClassDef | ast.FunctionDef) -> Iterator[_Parameter]:
    """The parameters of a function, of a class's `__init__`, or the fields of a dataclass with those of its bases."""
    if isinstance(node, ast.FunctionDef):
        yield from _arguments(module, node)
        return
    initialiser = _initialiser(node)
    if initialiser is not None:
        yield from _arguments(module, initialiser)
        return
    for base in node.bases:
        if isinstance(base, ast.Name):
            if base.id in module.definitions:
                yield from _parameters(module, module.definitions[base.id])
            elif (found := _find(module.imports.get(base.id, ""))) is not None:
                yield from _parameters(*found)
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if "ClassVar" not in ast.unparse(statement.annotation):
                yield _Parameter(statement.target.id, statement.annotation, _default(statement.value), module)


def _arguments(module: _Module, node: ast.FunctionDef) -> Iterator[_Parameter]:
    positional = node.args.posonlyargs + node.args.args
    defaults = [None] * (len(positional) - len(node.args.defaults)) + list(node.args.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    for argument, default in pairs:
        if argument.arg != "self":
            yield _Parameter(argument.arg, argument.annotation, default, module)


def _default(value: ast.expr | None) -> ast.expr | None:
    """The default of a dataclass's field, which may stand in `field(default=…)`."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "field":
        return next((keyword.value for keyword in value.keywords if keyword.arg == "default"), None)
    return value
