"""Rules on the columns of an audit, such as `silence_ratio < 0.8`: what a clip must fulfil to be kept.

A rule is read by the parser below and never evaluated as Python:

    rule        any of   `and`  `or`  `not`  ( )
    comparison  a < b <= c   ==   !=   x in [a, b]   "leak" not in faults
    value       a column, a number, "text", true, false, null, + - * /, abs(x), len(x)

What is unknown (null) is neither smaller nor greater than anything: such a clip fails, unless a rule asks for null.
"""

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NUMBER, TEXT, FLAG, LIST, NULL = "a number", "text", "yes or no", "a list", "null"
ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
COMPARISONS = {**ORDERS, "==": operator.eq, "!=": operator.ne}
SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
WORDS = {"true": (FLAG, True), "false": (FLAG, False), "null": (NULL, None)}
TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?)|(?P<text>\"[^\"]*\"|'[^']*')|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign><=|>=|==|!=|[-+*/<>()\[\],]))"
)
MAX_BYTES, MAX_LENGTH, MAX_DEPTH = 100_000, 1000, 40
# What training on pairs needs; what else a clean set lacks; no clip twice, and none across splits.
PAIRED = {
    "decodes": "decodes",
    "both streams": "has_video and has_audio",
    "start gap": "abs(start_gap_ms) <= 20",
    "duration gap": "abs(duration_gap_ms) <= 150",
    "sound holes": "sound_holes_ms <= 10",
    "silence": "silence_ratio < 0.8",
    "duration": "video_seconds >= 1.6",
}
UNIQUE = {"duplicate": "duplicate_of == null", "leak": "leak == null"}
CLEAN = {
    "black": "black_ratio < 0.1",
    "frozen": "frozen_ratio < 0.3",
    "bars": "bars_ratio < 0.05",
    "clipped": "clipped_ratio < 0.001",
    "loudness": "-45 < lufs < -5",
    "bandwidth": "bandwidth_khz >= 4",
    "sync": "sync_offset_ms == null or -90 <= sync_offset_ms <= 185",
}
PRESETS = {"paired": PAIRED, "unique": UNIQUE, "clean": {**PAIRED, **UNIQUE, **CLEAN}}


@dataclass(frozen=True)
class Rule:
    """A condition that kept clips fulfil: its name, its text, the columns it looks at, and the test itself."""

    name: str
    text: str
    columns: tuple[str, ...]
    holds: Callable[[Mapping[str, Any]], bool]

    def explain(self, row: Mapping[str, Any]) -> str:
        """Return why a row fails: what its columns are, and what the rule asks for."""
        values = ", ".join(f"{name} is {_told(row[name])}" for name in self.columns)
        return f"{values}; wanted: {self.text}"


@dataclass(frozen=True)
class _Node:
    kind: str
    value: Callable[[Mapping[str, Any]], Any]


def parse_rule(text: str, kinds: Mapping[str, str], name: str = "") -> Rule:
    """Read a rule; `kinds` says of every column what it is.

    Errors: `ValueError` that points at the place where the rule cannot be read or compares what cannot be compared.
    """
    parser = _Parser(text, kinds)
    node = parser.parse()
    if node.kind != FLAG:
        raise ValueError(f"rule '{text}': this is {node.kind}, no condition; write a comparison: silence_ratio < 0.8")
    return Rule(name or text, text, tuple(parser.columns), lambda row: bool(node.value(row)))


def read_rules(path: Path) -> dict[str, str]:
    """Read rules from YAML: a list of rules, or a mapping of names to rules; `preset: NAME` takes a preset in.

    Errors: `ValueError` where the file cannot be read as that.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file of rules; presets are {', '.join(PRESETS)}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: larger than {MAX_BYTES} bytes; this is no file of rules")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from error
    if isinstance(loaded, list):
        loaded = {str(rule): rule for rule in loaded}
    if not isinstance(loaded, dict) or not all(isinstance(rule, str) for rule in loaded.values()):
        raise ValueError(f"{path}: write a list of rules, or 'name: rule' lines, for example 'quiet: lufs < -30'")
    preset = _preset(loaded["preset"]) if "preset" in loaded else {}
    return preset | {str(name): rule for name, rule in loaded.items() if name != "preset"}


def collect_rules(names: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    """Return the rules of presets and files, in order, and then those given as text.

    Errors: `ValueError` where a name is neither, or nothing is asked for.
    """
    rules: dict[str, str] = {}
    for name in names:
        rules |= PRESETS[name] if name in PRESETS else read_rules(Path(name))
    rules |= {text: text for text in texts}
    if not rules:
        raise ValueError(f"no rule; give --rule 'silence_ratio < 0.8', or --rules with a file or {', '.join(PRESETS)}")
    return rules


def _preset(name: str) -> dict[str, str]:
    if name not in PRESETS:
        raise ValueError(f"preset '{name}': there is none of that name; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


class _Parser:
    """Recursive descent, one method for each level of binding; a node knows the kind of its value."""

    def __init__(self, text: str, kinds: Mapping[str, str]):
        self.text, self.kinds, self.columns, self.depth = text, kinds, {}, 0
        self.tokens, self.place = self._split(), 0

    def parse(self) -> _Node:
        node = self._or()
        if self.place < len(self.tokens):
            self._fail(f"'{self._peek()}' is too much")
        return node

    def _split(self) -> list[tuple[str, str]]:
        if len(self.text) > MAX_LENGTH:
            raise ValueError(f"rule '{self.text[:40]}...': longer than {MAX_LENGTH} characters")
        tokens, place = [], 0
        while self.text[place:].strip():
            match = TOKEN.match(self.text, place)
            if match is None:
                raise ValueError(f"rule '{self.text}': '{self.text[place:].strip()[0]}' has no meaning here")
            tokens.append((match.lastgroup, match.group(match.lastgroup)))
            place = match.end()
        return tokens

    def _peek(self) -> str:
        return self.tokens[self.place][1] if self.place < len(self.tokens) else ""

    def _take(self, *wanted: str) -> str:
        """Return the next token where it is one of those wanted, and go on; else return nothing."""
        token = self._peek()
        if token not in wanted or self.tokens[self.place][0] == "text":
            return ""
        self.place += 1
        return token

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            self._fail(f"'{sign}' is missing" + (f" before '{self._peek()}'" if self._peek() else " at the end"))

    def _fail(self, what: str) -> None:
        raise ValueError(f"rule '{self.text}': {what}; write for example: silence_ratio < 0.8 and lufs > -40")

    def _or(self) -> _Node:
        return self._joined("or", self._and, lambda a, b: lambda row: a(row) or b(row))

    def _and(self) -> _Node:
        return self._joined("and", self._not, lambda a, b: lambda row: a(row) and b(row))

    def _joined(self, word: str, part: Callable[[], _Node], join: Callable) -> _Node:
        node = part()
        while self._take(word):
            other = part()
            self._need(FLAG, node, other)
            node = _Node(FLAG, join(node.value, other.value))
        return node

    def _not(self) -> _Node:
        if not self._take("not"):
            return self._comparison()
        with_depth = self._deeper(self._not)
        self._need(FLAG, with_depth)
        return _Node(FLAG, lambda row: not with_depth.value(row))

    def _comparison(self) -> _Node:
        left = self._sum()
        if self._take("not"):
            self._expect("in")
            inside = self._membership(left)
            return _Node(FLAG, lambda row: not inside.value(row))
        if self._take("in"):
            return self._membership(left)
        node = None
        while sign := self._take(*COMPARISONS):
            right = self._sum()
            link = self._compare(sign, left, right)
            node = link if node is None else _Node(FLAG, _both(node.value, link.value))
            left = right
        return node or left

    def _compare(self, sign: str, left: _Node, right: _Node) -> _Node:
        kinds = {left.kind, right.kind} - {NULL}
        if sign in ORDERS and kinds != {NUMBER}:
            self._fail(f"'{sign}' compares numbers, not {' with '.join(sorted(kinds)) or NULL}")
        if len(kinds) > 1:
            self._fail(f"{left.kind} is never {right.kind}")
        compare, is_order = COMPARISONS[sign], sign in ORDERS

        def value(row: Mapping[str, Any]) -> bool:
            a, b = left.value(row), right.value(row)
            return not (is_order and (a is None or b is None)) and compare(a, b)

        return _Node(FLAG, value)

    def _membership(self, left: _Node) -> _Node:
        right = self._list() if self._take("[") else self._value()
        self._need(LIST, right)
        return _Node(FLAG, lambda row: left.value(row) in (right.value(row) or ()))

    def _list(self) -> _Node:
        parts = [self._value()]
        while self._take(","):
            parts.append(self._value())
        self._expect("]")
        return _Node(LIST, lambda row: [part.value(row) for part in parts])

    def _sum(self) -> _Node:
        return self._calculated(("+", "-"), lambda: self._calculated(("*", "/"), self._value))

    def _calculated(self, signs: tuple[str, ...], part: Callable[[], _Node]) -> _Node:
        node = part()
        while sign := self._take(*signs):
            other = part()
            self._need(NUMBER, node, other)
            node = _Node(NUMBER, _calculate(SIGNS[sign], node.value, other.value))
        return node

    def _value(self) -> _Node:
        if self.place >= len(self.tokens):
            self._fail("something is missing at the end")
        if self._take("-"):
            node = self._deeper(self._value)
            self._need(NUMBER, node)
            return _Node(NUMBER, _calculate(operator.sub, lambda row: 0, node.value))
        if self._take("("):
            node = self._deeper(self._or)
            self._expect(")")
            return node
        kind, token = self.tokens[self.place]
        self.place += 1
        if kind == "number":
            return _Node(NUMBER, lambda row: float(token))
        if kind == "text":
            return _Node(TEXT, lambda row: token[1:-1])
        if kind == "name" and token in ("abs", "len") and self._take("("):
            return self._function(token)
        if kind == "name" and token in WORDS:
            return _Node(WORDS[token][0], lambda row: WORDS[token][1])
        return self._column(token)

    def _function(self, name: str) -> _Node:
        inner = self._deeper(self._sum)
        self._expect(")")
        self._need(NUMBER if name == "abs" else LIST, inner)
        function = abs if name == "abs" else len
        return _Node(NUMBER, lambda row: None if inner.value(row) is None else function(inner.value(row)))

    def _column(self, name: str) -> _Node:
        if name not in self.kinds:
            near = difflib.get_close_matches(name, self.kinds, n=1)
            self._fail(f"there is no column '{name}'" + (f"; did you mean '{near[0]}'?" if near else ""))
        self.columns[name] = None
        return _Node(self.kinds[name], lambda row: row[name])

    def _deeper(self, part: Callable[[], _Node]) -> _Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self._fail("too many brackets")
        node = part()
        self.depth -= 1
        return node

    def _need(self, kind: str, *nodes: _Node) -> None:
        for node in nodes:
            if node.kind not in (kind, NULL):
                self._fail(f"{kind} is needed where {node.kind} stands")


def _both(first: Callable, second: Callable) -> Callable:
    return lambda row: first(row) and second(row)


def _calculate(function: Callable, left: Callable, right: Callable) -> Callable:
    def value(row: Mapping[str, Any]) -> float | None:
        a, b = left(row), right(row)
        if a is None or b is None or (function is operator.truediv and b == 0):
            return None
        return function(a, b)

    return value


def _told(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
