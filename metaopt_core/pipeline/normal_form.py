"""Python source as pieces, each in a normal form that keeps what computes and leaves out what only informs people.

A piece is a function, the header of a class, a method, an assignment or an import; it counts as a whole or not at all. Left out,
because it changes no number (docs/architecture.md, "Identity", has the reasons):

- comments, formatting, docstrings, type hints, and code that is only for a type checker or for `python -m`;
- the arguments of calls that only inform (TELLS: progress bars, errors for users, logging), and the texts of all other errors;
- texts whose name is in PRESENTATION, and functions with such a name that return one;
- pydantic's fields and validators: the values of a spec are part of an identity already.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

TELLS = (
    "metaopt_core.progress",
    "metaopt_core.errors",
    "prefect.get_run_logger",
    "pydantic_core.PydanticCustomError",
    "logging",
    "warnings",
    "sys.stderr",
    "print",
)
"""Modules, and names in them, that only inform people."""

PRESENTATION = frozenset({"caption", "color", "description", "help", "label", "noun", "title", "unit"})
"""Names of texts that describe things: a method's label and colour, a key's description, a metric's unit."""

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


def pieces_of(path: Path, module: str) -> tuple[Piece, ...]:
    """The pieces of a file, in order. module: its dotted name."""
    return _read(path, module, path.stat().st_mtime_ns)


@cache
def _read(path: Path, module: str, _modified: int) -> tuple[Piece, ...]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return tuple(_Reader(package).module(ast.parse(path.read_bytes())))


class _Reader:
    """Reads one file. package: the one that its relative imports start from."""

    def __init__(self, package: str):
        self._package = package
        self.imports: dict[str, tuple[str, str]] = {}
        self.telling: set[str] = set()

    def module(self, tree: ast.Module) -> Iterator[Piece]:
        for node in _statements(tree.body):
            inner = ast.walk(node) if isinstance(node, ast.If | ast.Try) else [node]
            for one in (one for one in inner if isinstance(one, ast.Import | ast.ImportFrom)):
                self.imports |= self.imported(one)
        for node in _statements(tree.body):
            if isinstance(node, ast.Assign) and (name := _defined(node)) and _Normal(Piece(), self).tells(node.value):
                self.telling.add(name)
        for node in _statements(tree.body):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield from self._import_pieces(node)
            elif isinstance(node, ast.ClassDef):
                yield from self._class(node)
            elif not _is_said(node):
                name, kind = _defined(node), "function" if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else "other"
                piece = Piece(name=name, always=name is None or bool(_decorators(node) - _INERT), kind=kind)
                piece.text = _Normal(piece, self).statement(node)
                if piece.text:
                    yield piece

    def _class(self, node: ast.ClassDef) -> Iterator[Piece]:
        header = Piece(name=node.name, kind="class", always=bool(_decorators(node) - _INERT))
        header.bases = tuple(ast.unparse(base) for base in node.bases)
        normal = _Normal(header, self)
        parts = [node.name, *map(normal.form, [*node.decorator_list, *node.bases, *node.keywords])]
        methods = []
        for statement in node.body:
            names = _decorators(statement)
            if _is_said(statement) or names & _CHECKS:
                continue
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                always = statement.name.startswith("__") or bool(names - _INERT)
                method = Piece(name=statement.name, owner=node.name, always=always, kind="function")
                method.text = f"{node.name}." + _Normal(method, self).statement(statement)
                methods.append(method)
            else:
                parts.append(normal.statement(statement, in_class=True))
        kept = parts[1 + len(node.decorator_list) + len(node.bases) + len(node.keywords) :]
        header.says = any(kept) or bool(node.decorator_list) or any(method.always for method in methods)
        header.text = f"class {' '.join(filter(None, parts))}"
        yield header
        yield from methods

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
        if isinstance(node, ast.If) and any(word in ast.unparse(node.test) for word in ("TYPE_CHECKING", "__main__")):
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


def _is_said(node: ast.stmt) -> bool:
    """Whether a statement defines a text named in PRESENTATION, or a function that returns one."""
    if _defined(node) not in PRESENTATION:
        return False
    match node:
        case ast.FunctionDef(returns=ast.Name(id="str")):
            return True
        case ast.Assign(value=ast.expr() as value) | ast.AnnAssign(value=ast.expr() as value):
            return _is_text(value)
    return isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) in {"str", "ClassVar[str]"}


def _is_text(node: ast.expr) -> bool:
    """Whether an expression is a text for people: a literal, or itself named in PRESENTATION (`result["label"]`)."""
    match node:
        case ast.Constant(value=str()) | ast.JoinedStr():
            return True
        case ast.Attribute(attr=name) | ast.Call(func=ast.Attribute(attr=name)) | ast.Subscript(slice=ast.Constant(value=name)):
            return name in PRESENTATION
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
        kept = [one for one in node.keywords if not (one.arg in PRESENTATION and _is_text(one.value))]
        arguments = [*map(self.form, node.args), *(f"{one.arg}={self.form(one.value)}" for one in kept)]
        return f"{self.form(node.func)}({','.join(arguments)})"

    def _annotated(self, node: ast.AnnAssign, in_class: bool) -> str:
        self._typed(node.annotation)
        if in_class and node.value is not None and self._dotted(node.value) in {"pydantic.Field", "pydantic.fields.Field"}:
            return ""
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
