"""The SQL/JSON path language: text to a tree of `PathNode`, and back to PostgreSQL's canonical text.

Evaluation is in functions/jsonpath. Every construct of PostgreSQL 15 is read, `.datetime()` included (whose
evaluation is refused). Source: PostgreSQL 15, section 9.16.2; SQL:2016 part 2, 9.39.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from json.encoder import encode_basestring as quote

from shardforge.errors import QueryError

LAST_LEVEL = -1
"""The upper level of `.**` that means all the way down."""


@dataclass(frozen=True, slots=True)
class PathNode:
    """A node: `kind` names it, `value` holds its constant, `parts` its operands.

    A `path` has its base as first part and its accessors after it.
    """

    kind: str
    parts: tuple[PathNode, ...] = ()
    value: object = None


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A whole path: lax unless declared strict."""

    root: PathNode
    lax: bool


_PRIORITY = {
    "||": 0, "&&": 1, "==": 2, "!=": 2, "<": 2, ">": 2, "<=": 2, ">=": 2, "starts with": 2,
    "+": 3, "-": 3, "*": 4, "/": 4, "%": 4, "plus": 5, "minus": 5,
}  # fmt: skip
COMPARISONS = frozenset(("==", "!=", "<", ">", "<=", ">="))
PREDICATES = COMPARISONS | {"||", "&&", "!", "exists", "like_regex", "starts with", "is unknown"}
METHODS = frozenset(("abs", "size", "type", "floor", "double", "ceiling", "keyvalue", "datetime"))
_KEYWORDS = METHODS | {
    "is", "to", "lax", "flag", "last", "with", "exists", "starts", "strict", "like_regex", "unknown",
}  # fmt: skip

_TOKEN = re.compile(
    r"""(?P<space>[ \t\n\r\f]+|/\*.*?\*/)
    |(?P<number>(?:(?:0|[1-9]\d*)\.\d*|\.\d+|0|[1-9]\d*)(?:[eE][+-]?\d+)?)
    |(?P<variable>\$(?:"(?:[^"\\]|\\.)*"|[^\s?%$.\[\]{}()|&!=<>@#,*:\-+/\\"]+))
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<operator>\*\*|&&|\|\||==|<>|!=|<=|>=|[?%$.\[\]{}()!<>@\#,*:\-+/=|&])
    |(?P<name>(?:[^\s?%$.\[\]{}()|&!=<>@\#,*:\-+/\\"]|\\.)+)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL
)
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        if code is None:
            return _CONTROL.get(match[4], match[4])
        if int(code, 16) == 0:
            raise QueryError(
                "unsupported Unicode escape sequence",
                "22P05",
                detail="\\u0000 cannot be converted to text.",
            )
        return chr(int(code, 16))

    plain = _ESCAPE.sub(one, text)
    if not any("\ud800" <= char <= "\udfff" for char in plain):
        return plain
    try:
        return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise QueryError(
            "invalid input syntax for type jsonpath",
            "22P02",
            detail="Unicode low surrogate must follow a high surrogate.",
        ) from None


def _error(near: str, message: str = "syntax error") -> QueryError:
    where = f'at or near "{near}"' if near else "at end"
    return QueryError(f"{message} {where} of jsonpath input", "42601")


Token = tuple[str, str, str]
"""Kind, decoded value, and the text as written."""


def _tokens(text: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _error(text[at])
        at = match.end()
        kind, written = str(match.lastgroup), match[0]
        if kind == "space":
            continue
        if kind == "number" and re.match(
            r"[^\s?%$.\[\]{}()|&!=<>@#,*:\-+/\\\"]", text[at : at + 1]
        ):
            raise _error(text[match.start() : at + 1], "trailing junk after numeric literal")
        value = written
        if kind in ("string", "variable"):
            value = written.removeprefix("$")
            value = _unescape(value[1:-1]) if value.startswith('"') else _unescape(value)
        elif kind == "name":
            value = _unescape(written)
            if value.lower() in _KEYWORDS and "\\" not in written:
                kind, value = "keyword", value.lower()
            elif value in ("true", "false", "null"):
                kind = "constant"
        found.append((kind, value, written))
    found.append(("end", "", ""))
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.at = 0
        self.filter_depth = 0
        self.subscript_depth = 0

    # Token helpers ----------------------------------------------------------------------------

    def is_op(self, *operators: str) -> bool:
        kind, value, _ = self.tokens[self.at]
        return kind == "operator" and value in operators

    def is_word(self, *words: str) -> bool:
        kind, value, _ = self.tokens[self.at]
        return kind == "keyword" and value in words

    def accept(self, operator: str) -> bool:
        if self.is_op(operator):
            self.at += 1
            return True
        return False

    def accept_word(self, word: str) -> bool:
        if self.is_word(word):
            self.at += 1
            return True
        return False

    def fail(self) -> QueryError:
        return _error(self.tokens[self.at][2])

    def expect(self, operator: str) -> None:
        if not self.accept(operator):
            raise self.fail()

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    # Grammar ----------------------------------------------------------------------------------

    def path(self) -> JsonPath:
        lax = True
        if self.is_word("lax", "strict"):
            lax = self.take()[1] == "lax"
        root = self.disjunction()
        if self.tokens[self.at][0] != "end":
            raise self.fail()
        return JsonPath(root, lax)

    def disjunction(self) -> PathNode:
        left = self.conjunction()
        while self.is_op("||"):
            self.require_predicate(left)
            self.at += 1
            right = self.conjunction()
            self.require_predicate(right)
            left = PathNode("||", (left, right))
        return left

    def conjunction(self) -> PathNode:
        left = self.comparison()
        while self.is_op("&&"):
            self.require_predicate(left)
            self.at += 1
            right = self.comparison()
            self.require_predicate(right)
            left = PathNode("&&", (left, right))
        return left

    def require_predicate(self, node: PathNode) -> None:
        if node.kind not in PREDICATES:
            raise self.fail()

    def value(self, node: PathNode) -> PathNode:
        """`node`, which must not be a predicate."""
        if node.kind in PREDICATES:
            raise self.fail()
        return node

    def comparison(self) -> PathNode:
        if self.accept("!"):
            if not self.is_op("(") and not self.is_word("exists"):
                raise self.fail()
            inner = self.exists() if self.accept_word("exists") else self.grouped_predicate()
            return PathNode("!", (inner,))
        left = self.additive()
        if left.kind in PREDICATES:
            return left
        if self.is_op("==", "<>", "!=", "<", ">", "<=", ">="):
            operator = self.take()[1].replace("<>", "!=")
            return PathNode(operator, (left, self.value(self.additive())))
        if self.accept_word("starts"):
            if not self.accept_word("with"):
                raise self.fail()
            return PathNode("starts with", (left, self.initial()))
        if self.accept_word("like_regex"):
            return self.regex(left)
        return left

    def initial(self) -> PathNode:
        kind, value, _ = self.tokens[self.at]
        if kind not in ("string", "variable"):
            raise self.fail()
        self.at += 1
        return PathNode(kind, value=value)

    def regex(self, left: PathNode) -> PathNode:
        kind, pattern, _ = self.tokens[self.at]
        if kind != "string":
            raise self.fail()
        self.at += 1
        flags = ""
        if self.accept_word("flag"):
            kind, flags, _ = self.tokens[self.at]
            if kind != "string":
                raise self.fail()
            self.at += 1
        for flag in flags:
            if flag not in "ismxq":
                raise QueryError(
                    "invalid input syntax for type jsonpath",
                    "42601",
                    detail=f'Unrecognized flag character "{flag}" in LIKE_REGEX predicate.',
                )
        if "x" in flags and "q" not in flags:
            raise QueryError(
                'XQuery "x" flag (expanded regular expressions) is not implemented', "0A000"
            )
        ordered = "".join(flag for flag in "ismxq" if flag in flags)
        return PathNode("like_regex", (left,), (pattern, ordered))

    def grouped_predicate(self) -> PathNode:
        self.expect("(")
        inner = self.disjunction()
        self.require_predicate(inner)
        self.expect(")")
        return inner

    def exists(self) -> PathNode:
        self.expect("(")
        inner = self.additive()
        self.expect(")")
        return PathNode("exists", (inner,))

    def additive(self) -> PathNode:
        left = self.multiplicative()
        while self.is_op("+", "-"):
            self.value(left)
            operator = self.take()[1]
            left = PathNode(operator, (left, self.value(self.multiplicative())))
        return left

    def multiplicative(self) -> PathNode:
        left = self.unary()
        while self.is_op("*", "/", "%"):
            self.value(left)
            operator = self.take()[1]
            left = PathNode(operator, (left, self.value(self.unary())))
        return left

    def unary(self) -> PathNode:
        if self.accept("-"):
            operand = self.value(self.unary())
            if operand.kind == "number":
                assert isinstance(operand.value, Decimal), "numbers hold a Decimal"
                negated = operand.value.copy_negate() if operand.value else operand.value
                return PathNode("number", value=negated)
            return PathNode("minus", (operand,))
        if self.accept("+"):
            operand = self.value(self.unary())
            return operand if operand.kind == "number" else PathNode("plus", (operand,))
        return self.accessors(self.primary())

    def primary(self) -> PathNode:
        kind, value, _ = self.tokens[self.at]
        self.at += 1
        if kind == "string":
            return PathNode("string", value=value)
        if kind == "variable":
            return PathNode("variable", value=value)
        if kind == "number":
            return PathNode("number", value=_number(value))
        if kind == "constant":
            return PathNode(value)
        if kind == "operator" and value == "$":
            return PathNode("$")
        if kind == "operator" and value == "@":
            if not self.filter_depth:
                raise QueryError("@ is not allowed in root expressions", "42601")
            return PathNode("@")
        if kind == "keyword" and value == "last":
            if not self.subscript_depth:
                raise QueryError("LAST is allowed only in array subscripts", "42601")
            return PathNode("last")
        if kind == "keyword" and value == "exists":
            return self.exists()
        if kind == "operator" and value == "(":
            return self.parenthesized()
        self.at -= 1
        raise self.fail()

    def parenthesized(self) -> PathNode:
        inner = self.disjunction()
        self.expect(")")
        if self.is_word("is"):
            self.require_predicate(inner)
            self.at += 1
            if not self.accept_word("unknown"):
                raise self.fail()
            return PathNode("is unknown", (inner,))
        return inner

    def accessors(self, base: PathNode) -> PathNode:
        steps: list[PathNode] = []
        while True:
            if self.accept("."):
                steps.append(self.member())
            elif self.accept("["):
                steps.append(self.subscripts())
            elif self.accept("?"):
                self.filter_depth += 1
                steps.append(PathNode("?", (self.grouped_predicate(),)))
                self.filter_depth -= 1
            else:
                break
        if not steps:
            return base
        if base.kind == "path":
            return PathNode("path", base.parts + tuple(steps))
        return PathNode("path", (base, *steps))

    def member(self) -> PathNode:
        if self.accept("*"):
            return PathNode(".*")
        if self.accept("**"):
            return PathNode(".**", value=self.levels())
        kind, value, written = self.take()
        if kind == "keyword" and value in METHODS and self.is_op("("):
            return self.method(value)
        if kind == "string":
            return PathNode("key", value=value)
        if kind in ("name", "constant", "keyword"):
            return PathNode("key", value=_unescape(written))
        self.at -= 1
        raise self.fail()

    def method(self, name: str) -> PathNode:
        self.expect("(")
        template = None
        if name == "datetime" and self.tokens[self.at][0] == "string":
            template = self.take()[1]
        self.expect(")")
        return PathNode("method", value=(name, template))

    def levels(self) -> tuple[int, int]:
        if not self.accept("{"):
            return 0, LAST_LEVEL
        low = self.level()
        high = self.level() if self.accept_word("to") else low
        self.expect("}")
        return low, high

    def level(self) -> int:
        if self.accept_word("last"):
            return LAST_LEVEL
        kind, value, _ = self.tokens[self.at]
        if kind != "number" or not value.isdigit():
            raise self.fail()
        self.at += 1
        return int(value)

    def subscripts(self) -> PathNode:
        if self.accept("*"):
            self.expect("]")
            return PathNode("[*]")
        ranges: list[PathNode] = []
        self.subscript_depth += 1
        while True:
            low = self.additive()
            if self.accept_word("to"):
                ranges.append(PathNode("range", (low, self.additive())))
            else:
                ranges.append(PathNode("range", (low,)))
            if not self.accept(","):
                break
        self.subscript_depth -= 1
        self.expect("]")
        return PathNode("[]", tuple(ranges))


def _number(text: str) -> Decimal:
    value = Decimal(text)
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int), "the grammar has no NaN"
    return Decimal(int(value)) if exponent > 0 else value


def parse_path(text: str) -> JsonPath:
    """Reads a path; 42601 where its grammar fails."""
    if not text.strip():
        raise QueryError(f'invalid input syntax for type jsonpath: "{text}"', "22P02")
    try:
        return _Parser(text).path()
    except RecursionError:
        raise QueryError("stack depth limit exceeded", "54001") from None


# Output -------------------------------------------------------------------------------------------


def format_path(path: JsonPath) -> str:
    """PostgreSQL's canonical text."""
    return ("" if path.lax else "strict ") + _format(path.root, brackets=True)


def _format(node: PathNode, *, brackets: bool) -> str:
    kind, parts = node.kind, node.parts
    if kind in ("string", "variable"):
        return ("$" if kind == "variable" else "") + quote(str(node.value))
    if kind == "number":
        return format(node.value, "f")
    if kind == "path":
        base = _format(parts[0], brackets=True)
        if parts[0].kind == "number":
            base = f"({base})"
        return base + "".join(_format_step(step) for step in parts[1:])
    if kind in ("plus", "minus"):
        inner = _operand(parts[0], kind)
        text = ("+" if kind == "plus" else "-") + inner
        return f"({text})" if brackets else text
    if kind == "!":
        return f"!({_format(parts[0], brackets=False)})"
    if kind == "is unknown":
        return f"({_format(parts[0], brackets=False)}) is unknown"
    if kind == "exists":
        return f"exists ({_format(parts[0], brackets=False)})"
    if kind == "like_regex":
        assert isinstance(node.value, tuple), "a pattern and its flags"
        pattern, flags = node.value
        text = f"{_operand(parts[0], 'starts with')} like_regex {quote(pattern)}"
        text += f' flag "{flags}"' if flags else ""
        return f"({text})" if brackets else text
    if kind in _PRIORITY:
        text = f"{_operand(parts[0], kind)} {kind} {_operand(parts[1], kind)}"
        return f"({text})" if brackets else text
    return kind


def _operand(node: PathNode, parent: str) -> str:
    return _format(node, brackets=_PRIORITY.get(node.kind, 6) <= _PRIORITY[parent])


def _format_step(step: PathNode) -> str:
    if step.kind == "key":
        return "." + quote(str(step.value))
    if step.kind == "?":
        return f"?({_format(step.parts[0], brackets=False)})"
    if step.kind == "method":
        assert isinstance(step.value, tuple), "a name and its template"
        name, template = step.value
        return f".{name}({quote(template) if template is not None else ''})"
    if step.kind == "[]":
        texts = [" to ".join(_format(p, brackets=False) for p in r.parts) for r in step.parts]
        return f"[{','.join(texts)}]"
    if step.kind == ".**":
        assert isinstance(step.value, tuple), "two levels"
        low, high = step.value
        if (low, high) == (0, LAST_LEVEL):
            return ".**"
        names = ["last" if level == LAST_LEVEL else str(level) for level in (low, high)]
        return f".**{{{names[0]}}}" if low == high else f".**{{{names[0]} to {names[1]}}}"
    return step.kind
