"""Classes as their source has them: the types as they are written, and what is said below a field."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import is_dataclass


def declaration(kind: type) -> ast.ClassDef:
    """The class statement."""
    (statement,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(statement, ast.ClassDef)
    return statement


def fields(kind: type) -> Iterator[tuple[str, str]]:
    """The name of each annotated field, and its docstring."""
    body = declaration(kind).body
    for statement, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, _text(after)


def methods(kind: type) -> Iterator[tuple[str, str]]:
    """The signature of the constructor and of each public method, and its docstring."""
    if is_dataclass(kind):
        yield f"{kind.__name__}{inspect.signature(kind)}".removesuffix(" -> None"), ""
    for statement in declaration(kind).body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if statement.name == "__init__":
                yield _signature(statement, kind.__name__), ""
            elif not statement.name.startswith("_"):
                yield _signature(statement, statement.name), ast.get_docstring(statement) or ""


def _signature(function: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
    arguments = ast.unparse(function.args).removeprefix("self").removeprefix(", ").replace("=", " = ")
    returned = f" -> {ast.unparse(function.returns)}" if function.returns and name == function.name else ""
    prefix = "await " if isinstance(function, ast.AsyncFunctionDef) else ""
    return f"{prefix}{name}({arguments}){returned}"


def _text(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return str(statement.value.value)
    return ""
