"""Python source as pieces, each in a normal form that keeps what computes and leaves out what only informs people.

A piece is a function, the header of a class, a method, a class attribute that a contract declares, an assignment or an import; it
counts as a whole or not at all. Left out, because it changes no number (docs/architecture.md, "Identity", has the reasons):

- comments, formatting, docstrings, type hints, and code that is only for a type checker or for `python -m`;
- the arguments of calls that only inform (TELLS: progress bars, errors for users, logging), and the texts of all other errors;
- what our contracts declare for people alone (PRESENTATION), in their subclasses and calls and nowhere else;
- a spec's fields and validators: its values are part of an identity already.

It is for our own code, whose conventions are known. A user's file counts as it is (`whole`).
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

TELLS = (
    "metaopt_core.progress",
    "metaopt_core.errors",
    "prefect.get_run_logger",
    "pydantic_core.PydanticCustomError",
    "logging",
    "warnings.warn",
    "sys.stderr",
    "print",
)
"""Modules, and names in them, that only inform people."""

SPEC = "metaopt_core.spec.base.Spec"
"""The base of all models whose values are part of an identity."""

PRESENTATION: Mapping[str, frozenset[str]] = {
    SPEC: frozenset(),
    "metaopt_core.spec.distribution.DistributionSpec": frozenset({"not_shown", "noun"}),
    "metaopt_core.spec.method.MethodInfo": frozenset({"about", "color", "label", "line", "title"}),
    "metaopt_core.spec.metric.metric": frozenset({"about", "title", "unit"}),
    "metaopt_core.spec.train.TrainSpec": frozenset({"label"}),
    "metaopt_core.training.phase.Phase": frozenset({"title"}),
    "pydantic.Field": frozenset({"description", "title"}),
}
"""Contract, which is a base class or what is called → the names of what it declares for people alone."""

BY_VALUE: Mapping[str, frozenset[str]] = {
    "metaopt_core.spec.distribution.DistributionSpec": frozenset({"judged_by", "libraries", "usual_baselines"}),
    "metaopt_core.spec.method.MethodInfo": frozenset({"libraries", "rank"}),
    "metaopt_core.spec.metric.metric": frozenset({"rank"}),
}
"""What only decides which methods and metrics there are, in which order, and which libraries count, is a value of an identity."""

_LEFT_OUT = {contract: names | BY_VALUE.get(contract, frozenset()) for contract, names in PRESENTATION.items()}

_CHECKS = {"model_validator", "field_validator", "model_serializer", "field_serializer"}  # pydantic's
_INERT = {  # decorators that only change how a function is called
    "cache",
    "cached_property",
    "classmethod",
    "contextmanager",
    "dataclass",
    "lru_cache",
    "override",
    "property",
    "staticmethod",
    "task",
    "wraps",
}
_FIELDS_LEFT_OUT = {"ctx", "kind", "type_comment", "type_ignores", "type_params", "returns", "annotation"}


@dataclass
class Piece:
    """A part of a module.

    text: its normal form. name: what it defines; none for a statement that runs whenever the module is imported.
    kind: class, function, import or other. owner: the class that it is a method of. always: counts whenever its module or its class
    does. target: of an import, the module, and the name there. bases: of a class, as written. says: whether a class computes
    anything outside its methods. The rest is what it mentions: names, attributes of names, attributes of anything else, names in
    type hints, short texts (which may name an attribute or a file), and what imported names refer to.
    """

    text: str = ""
    name: str | None = None
    kind: str = "other"
    owner: str | None = None
    always: bool = False
    target: tuple[str, str] | None = None
    bases: tuple[str, ...] = ()
    says: bool = False
    names: set[str] = field(default_factory=set)
    qualified: set[tuple[str, str]] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    typed: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def qualname(self) -> str:
        """Python's qualified name of what it defines."""
        return f"{self.owner}.{self.name}" if self.owner else self.name or ""


def whole(path: Path) -> str:
    """A file without comments, docstrings and formatting, but with everything else."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def pieces_of(path: Path, module: str) -> tuple[Piece, ...]:
    """The pieces of a file, in order. module: its dotted name."""
    return _reader(path, module, path.stat().st_mtime_ns).pieces


@cache
def _reader(path: Path, module: str, _modified: int) -> "_Reader":
    return _Reader(path, module)


class _Reader:
    """Reads one file."""

    def __init__(self, path: Path, module: str):
        self._module, self._tree = module, ast.parse(path.read_bytes())
        self._package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        self._root = path.parents[module.count(".") + (path.name == "__init__.py")]
        self.imports: dict[str, tuple[str, str]] = {}
        self.telling: set[str] = set()
        for node in _statements(self._tree.body):
            inner = ast.walk(node) if isinstance(node, ast.If | ast.Try) else [node]
            for one in (one for one in inner if isinstance(one, ast.Import | ast.ImportFrom)):
                self.imports |= self.imported(one)
        self._bases = {node.name: node.bases for node in self._tree.body if isinstance(node, ast.ClassDef)}

    def contracts(self, name: str) -> frozenset[str]:
        """The contracts among a class and its bases, wherever these are defined."""
        if name in self._bases:
            found = frozenset({f"{self._module}.{name}"} & PRESENTATION.keys())
            written = (ast.unparse(base).partition("[")[0] for base in self._bases[name])
            return found.union(*(self.contracts(base) for base in written if base != name))
        first, _, rest = name.partition(".")
        module, imported = self.imports.get(first, ("", ""))
        dotted = ".".join(filter(None, (module, imported, rest)))
        module, _, name = dotted.rpartition(".")
        place = self._root.joinpath(*module.split("."))
        files = (file for file in (place.with_suffix(".py"), place / "__init__.py") if module and file.is_file())
        inherited = (_reader(file, module, file.stat().st_mtime_ns).contracts(name) for file in files)
        return frozenset({dotted} & PRESENTATION.keys()).union(*inherited)

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        return tuple(self._pieces())

    def _pieces(self) -> Iterator[Piece]:
        for node in _statements(self._tree.body):
            if isinstance(node, ast.Assign) and (name := _defined(node)) and _Normal(Piece(), self).tells(node.value):
                self.telling.add(name)
        for node in _statements(self._tree.body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from self._import_pieces(node)
            elif isinstance(node, ast.ClassDef):
                yield from self._class(node)
            else:
                name, kind = _defined(node), "function" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else "other"
                piece = Piece(name=name, always=name is None or bool(_decorators(node) - _INERT), kind=kind)
                piece.text = _Normal(piece, self).statement(node)
                if piece.text:
                    yield piece

    def _class(self, node: ast.ClassDef) -> Iterator[Piece]:
        header = Piece(name=node.name, kind="class", always=bool(_decorators(node) - _INERT))
        header.bases = tuple(ast.unparse(base) for base in node.bases)
        normal = _Normal(header, self)
        contracts = self.contracts(node.name)
        said = frozenset().union(*(_LEFT_OUT[contract] for contract in contracts))
        parts = [node.name, *map(normal.form, [*node.decorator_list, *node.bases, *node.keywords])]
        members = []
        for statement in node.body:
            names = _decorators(statement)
            if _defined(statement) in said or (SPEC in contracts and names & _CHECKS):
                continue
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                always = statement.name.startswith("__") or bool(names - _INERT)
                method = Piece(name=statement.name, owner=node.name, always=always, kind="function")
                method.text = f"{node.name}." + _Normal(method, self).statement(statement)
                members.append(method)
            elif BY_VALUE.keys() & contracts and _is_declared(statement):
                declared = Piece(name=_defined(statement), owner=node.name)
                declared.text = f"{node.name}." + _Normal(declared, self).statement(statement, in_class=True)
                members.append(declared)
            else:
                parts.append("" if SPEC in contracts and normal.is_field(statement) else normal.statement(statement, in_class=True))
        kept = parts[1 + len(node.decorator_list) + len(node.bases) + len(node.keywords) :]
        header.says = any(kept) or bool(node.decorator_list) or any(member.always for member in members)
        header.text = f"class {' '.join(filter(None, parts))}"
        yield header
        yield from members

    def _import_pieces(self, node: ast.Import | ast.ImportFrom) -> Iterator[Piece]:
        for bound, (module, name) in self.imported(node).items():
            if not _told(f"{module}.{name}" if name else module):
                yield Piece(f"import {module} {name}", bound, kind="import", target=(module, name))

    def imported(self, node: ast.Import | ast.ImportFrom) -> dict[str, tuple[str, str]]:
        """The names that an import binds, each with its module and, unless it is the module itself, the name there."""
        if isinstance(node, ast.Import):
            return {alias.asname or alias.name.partition(".")[0]: (alias.name, "") for alias in node.names}
        start = self._package.split(".")[: len(self._package.split(".")) - node.level + 1] if node.level else []
        module = ".".join([*start, *([node.module] if node.module else [])])
        return {alias.asname or alias.name: (module, alias.name) for alias in node.names}


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, except those for type checkers or for `python -m`."""
    for node in body:
        test = ast.unparse(node.test) if isinstance(node, ast.If) else ""
        if isinstance(node, ast.If) and test in {"TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'"}:
            yield from _statements(node.orelse)
        else:
            yield node


def _defined(node: ast.stmt) -> str | None:
    """The single name that a statement defines, if it does nothing else."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return None


def _is_declared(node: ast.stmt) -> bool:
    """Whether a statement of a class sets an attribute of the class, which counts where it is mentioned, as a method does."""
    if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
        return False
    name = _defined(node)
    return isinstance(node, ast.Assign | ast.AnnAssign) and name is not None and not name.startswith(("_", "model_"))


def _is_text(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=str()) | ast.JoinedStr():
            return True
        case ast.BinOp(left=left, right=right):
            return _is_text(left) and _is_text(right)
    return False


def _decorators(node: ast.stmt) -> set[str]:
    return set(map(_last_name, getattr(node, "decorator_list", ())))


def _last_name(node: ast.expr) -> str:
    return ast.unparse(node.func if isinstance(node, ast.Call) else node).rpartition(".")[2]


def _told(dotted: str) -> bool:
    return any(dotted == name or dotted.startswith(f"{name}.") for name in TELLS)


class _Normal:
    """Writes syntax trees without what doesn't count, and records in a piece the names that they mention."""

    def __init__(self, piece: Piece, reader: "_Reader"):
        self._piece, self._imports, self._imported = piece, dict(reader.imports), reader.imported
        self._telling = set(reader.telling)  # variables that hold what a call of TELLS returned

    def statement(self, node: ast.stmt, in_class: bool = False) -> str:
        """Its normal form; empty for one that changes no number."""
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                return ""
            case ast.Expr(value=ast.Call() as call) if self.tells(call):
                return ""
            case ast.Import() | ast.ImportFrom():
                return self._import(node)
            case ast.AnnAssign():
                return self._annotated(node, in_class)
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if self.tells(value):
                self._telling.add(name)
            case ast.Raise(exc=ast.Call(args=args) as call):
                words = ast.Call(call.func, [one for one in args if not _is_text(one)], call.keywords)
                return self.form(ast.Raise(words, node.cause))
            case ast.Assert(test=test):
                return self.form(ast.Assert(test, None))
        return self.form(node)

    def form(self, node: ast.AST) -> str:
        match node:
            case ast.Name(id=name):
                if isinstance(node.ctx, ast.Load):
                    self._name(name)
                return name
            case ast.Constant(value=value):
                if isinstance(value, str) and len(value) < 100:
                    self._piece.words.add(value)
                return repr(value)
            case ast.Attribute(value=value, attr=attr):
                if isinstance(value, ast.Name):
                    self._piece.qualified.add((value.id, attr))
                    self._local(value.id)
                    return f"{value.id}.{attr}"
                self._piece.attributes.add(attr)
                return f"{self.form(value)}.{attr}"
            case ast.Call():
                return self._call(node)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._parameters(node.args)
                decorators = [one for one in node.decorator_list if _last_name(one) not in {"task", "flow"}]
                self._typed(node.returns)
                inside = [self.form(node.args), *(f"@{self.form(one)}" for one in decorators), self._body(node.body)]
                return f"{type(node).__name__} {node.name}({','.join(inside)})"
            case ast.arg(arg=name):
                return name
            case ast.ClassDef(name=name, bases=bases, body=body):
                parts = [*map(self.form, [*node.decorator_list, *bases]), *(self.statement(one, in_class=True) for one in body)]
                return f"class {name} {' '.join(filter(None, parts))}"
            case ast.With():
                return self._with(node)
            case ast.MatchClass(kwd_attrs=names):
                self._piece.attributes.update(names)
        return f"{type(node).__name__}({','.join(self._fields(node))})"

    def _with(self, node: ast.With) -> str:
        """A `with` block, without context managers that only inform."""
        kept = []
        for item in node.items:
            if not self.tells(item.context_expr):
                kept.append(self.form(item))
            elif isinstance(item.optional_vars, ast.Name):
                self._telling.add(item.optional_vars.id)
        body = self._body(node.body)
        return f"With([{','.join(kept)}],{body})" if kept else body

    def _fields(self, node: ast.AST) -> Iterator[str]:
        for name in node._fields:
            value = None if name in _FIELDS_LEFT_OUT else getattr(node, name, None)
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                yield self._body(value)
            elif isinstance(value, list):
                yield f"[{','.join(self.form(one) if isinstance(one, ast.AST) else repr(one) for one in value)}]"
            elif isinstance(value, ast.AST):
                yield self.form(value)
            elif value is not None:
                yield repr(value)

    def _body(self, statements: Iterable[ast.stmt]) -> str:
        return f"[{';'.join(filter(None, map(self.statement, statements)))}]"

    def _call(self, node: ast.Call) -> str:
        if self.tells(node):
            return f"{self.form(node.func)}()"
        match node:
            case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(value=str() as attr), *_]):
                self._piece.attributes.add(attr)
            case ast.Call(func=ast.Name(id="cast"), args=[hint, value]):
                self._typed(hint)
                return self.form(value)
        kept = [one for one in node.keywords if one.arg not in _LEFT_OUT.get(self._dotted(node.func), ())]
        arguments = [*map(self.form, node.args), *(f"{one.arg}={self.form(one.value)}" for one in kept)]
        return f"{self.form(node.func)}({','.join(arguments)})"

    def is_field(self, node: ast.stmt) -> bool:
        """Whether a statement of a class defines a field with pydantic's `Field`; it records the names in its type hint."""
        if not (isinstance(node, ast.AnnAssign) and node.value is not None and self._dotted(node.value) == "pydantic.Field"):
            return False
        self._typed(node.annotation)
        return True

    def _annotated(self, node: ast.AnnAssign, in_class: bool) -> str:
        self._typed(node.annotation)
        if not in_class:
            return "" if node.value is None else self.statement(ast.Assign([node.target], node.value))
        kind = re.search(r"ClassVar|InitVar|KW_ONLY", ast.unparse(node.annotation))  # which a dataclass treats differently
        value = "" if node.value is None else self.form(node.value)
        return f"field {self.form(node.target)} {kind[0] if kind else ''}={value}"

    def _import(self, node: ast.Import | ast.ImportFrom) -> str:
        """An import inside a function."""
        kept = []
        for bound, (module, name) in self._imported(node).items():
            self._imports[bound] = module, name
            if not _told(f"{module}.{name}" if name else module):
                self._piece.imports[bound] = module, name
                kept.append(f"import {module} {name} as {bound}")
        return ";".join(kept)

    def _parameters(self, arguments: ast.arguments) -> None:
        given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for one in filter(None, given):
            self._typed(one.annotation)
            match one.annotation:
                case ast.Constant(value=str() as hint):
                    hinted = self._expanded(hint)
                case ast.expr() as hint:
                    hinted = self._dotted(hint)
                case _:
                    continue
            if _told(hinted):
                self._telling.add(one.arg)

    def _name(self, name: str) -> None:
        self._piece.names.add(name)
        self._local(name)

    def _local(self, name: str) -> None:
        if name in self._imports:
            self._piece.imports.setdefault(name, self._imports[name])

    def _typed(self, hint: ast.expr | None) -> None:
        """Record the names in a type hint, because instances of them may be passed in."""
        for node in ast.walk(hint) if hint is not None else ():
            if isinstance(node, ast.Name):
                self._piece.typed.add(node.id)
            elif isinstance(node, ast.Attribute):
                self._piece.typed.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                self._piece.typed.update(re.findall(r"\w+", node.value))

    def tells(self, node: ast.AST) -> bool:
        """Whether an expression is a member of TELLS, was made by one, or enters one on an exit stack."""
        match node:
            case ast.Call(func=ast.Attribute(attr="enter_context"), args=[entered]):
                return self.tells(entered)
        return _told(self._dotted(node))

    def _dotted(self, node: ast.AST) -> str:
        """The dotted name that an expression refers to; for a call, the name of what is called."""
        match node:
            case ast.Name(id=name):
                return TELLS[0] if name in self._telling else self._expanded(name)
            case ast.Attribute(value=value, attr=attr):
                return f"{self._dotted(value)}.{attr}"
            case ast.Call(func=inner) | ast.Subscript(value=inner):
                return self._dotted(inner)
        return ""

    def _expanded(self, dotted: str) -> str:
        first, dot, rest = dotted.partition(".")
        module, name = self._imports.get(first, (first, ""))
        return ".".join(filter(None, (module, name))) + dot + rest
