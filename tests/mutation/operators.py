"""The small changes that a mutant makes to a module: comparisons, signs, arithmetic, constants, conditions, min and max.

Left out, since no number depends on them: texts and f-strings, annotations, decorators, `zip(strict=)`, blocks for type
checkers, and a plugin's `version` (tests/test_plugin_versions.py holds that).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SWAPPED: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.USub: (ast.UAdd,),
}
PAIRS = (
    ("min", "max"),
    ("minimum", "maximum"),
    ("amin", "amax"),
    ("nanmin", "nanmax"),
    ("argmin", "argmax"),
    ("any", "all"),
    ("floor", "ceil"),
    ("sum", "max"),
    ("mean", "median"),
)
CALLED = {one: other for pair in PAIRS for one, other in (pair, pair[::-1])}


@dataclass(frozen=True)
class Change:
    """One change of one place. lines: of the place and of its statement. function: it is within a function's body."""

    apply: Callable[[], None]
    node: ast.AST
    lines: tuple[int, int]
    function: bool


def changes(tree: ast.Module) -> Iterator[Change]:
    """Every change that can be made to a module, in the order of its text. `apply` changes the tree itself."""
    yield from _below(tree, (1, 1), False)


def _below(node: ast.AST, lines: tuple[int, int], function: bool) -> Iterator[Change]:
    if isinstance(node, ast.stmt):
        lines = (node.lineno, node.lineno)
    elif isinstance(node, ast.expr):
        lines = (node.lineno, lines[1])
    for apply in _of(node):
        yield Change(apply, node, lines, function)
    for child, inside in _children(node):
        yield from _below(child, lines, function or inside)


def _children(node: ast.AST) -> Iterator[tuple[ast.AST, bool]]:
    """The parts of a node that may be changed, and whether each runs only when a function is called."""
    called = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases") or isinstance(node, ast.JoinedStr):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _left_out(child):
                yield child, called and name == "body"


def _left_out(node: ast.AST) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg == "strict"
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    target = node.target if isinstance(node, ast.AnnAssign) else None
    target = node.targets[0] if isinstance(node, ast.Assign) else target
    return isinstance(target, ast.Name) and target.id == "version"


def _of(node: ast.AST) -> Iterator[Callable[[], None]]:
    """The changes of one node itself."""
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            for other in SWAPPED[type(op)]:
                yield lambda place=place, other=other: node.ops.__setitem__(place, other())
    elif isinstance(node, ast.BinOp) and any(map(_is_text, (node.left, node.right))):
        return
    elif isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp | ast.UnaryOp):
        for other in SWAPPED.get(type(node.op), ()):
            yield lambda other=other: setattr(node, "op", other())
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield lambda: setattr(node, "operand", _negated(node.operand))
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):  # these are changed themselves
            yield lambda: setattr(node, "test", _negated(node.test))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield lambda: setattr(node, "value", _other(node.value))
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in CALLED:
            yield lambda: setattr(node.func, "id", CALLED[node.func.id])
        elif isinstance(node.func, ast.Attribute) and node.func.attr in CALLED:
            yield lambda: setattr(node.func, "attr", CALLED[node.func.attr])


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))


def _negated(node: ast.expr) -> ast.expr:
    return ast.copy_location(ast.UnaryOp(ast.copy_location(ast.Not(), node), node), node)


def _other(value: bool | int | float) -> bool | int | float:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) or value == 0 else value * 1.5
