"""The ``tag`` log option: Docker's Go templates over a container's facts, such as ``{{.Name}}/{{.ID}}``.

Text, fields, pipelines, parentheses and Docker's functions are here, which is what tags are written with;
Go's control structures and variables are refused with an error that names them. Which default a driver
uses, and where the tag goes, is the driver's business.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from logdrivers.driver import Info, OptionError

__all__ = ["DEFAULT_TAG", "check_tag", "render_tag"]

#: What gelf, fluentd and syslog use when no tag is given.
DEFAULT_TAG = "{{.ID}}"

Value = str | int | list[str]

_FIELDS: Mapping[str, Callable[[Info], Value]] = {
    "ID": lambda info: info.container_id[:12],
    "FullID": lambda info: info.container_id,
    "Name": lambda info: info.container_name.removeprefix("/"),
    "Command": lambda info: " ".join(info.command),
    "ImageID": lambda info: info.image_id[:12],
    "ImageFullID": lambda info: info.image_id,
    "ImageName": lambda info: info.image_name,
    "Hostname": lambda info: info.hostname,
    "DaemonName": lambda info: info.daemon_name,
    # The struct's own fields, which Docker's templates reach as well.
    "ContainerID": lambda info: info.container_id,
    "ContainerName": lambda info: info.container_name,
    "ContainerImageID": lambda info: info.image_id,
    "ContainerImageName": lambda info: info.image_name,
}

_ACTION = re.compile(r"\{\{(?P<trim>-(?=\s))?(?P<body>.*?)(?P<rtrim>(?<=\s)-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\\n]|\\.)*") | (?P<raw>`[^`]*`) | (?P<int>[+-]?\d+(?![\w.]))
        | (?P<field>\.\w+) | (?P<word>[A-Za-z_]\w*) | (?P<mark>[|()]) | (?P<bad>\S))""",
    re.VERBOSE,
)
_CONTROL = frozenset({"if", "else", "end", "range", "with", "define", "template", "block", "break"})


class _CallError(OptionError):
    """A function refused the values of this container."""


class _Token(NamedTuple):
    kind: str
    text: str


def render_tag(template: str, info: Info) -> str:
    """The tag of a container.

    Raises OptionError naming the template and the part of it that was not understood.
    """
    out: list[str] = []
    at = 0
    trim_left = False
    for action in _ACTION.finditer(template):
        text = template[at : action.start()]
        out.append(_trim(text, trim_left, action["trim"] is not None))
        trim_left = action["rtrim"] is not None
        at = action.end()
        body = action["body"].strip()
        if not (body.startswith("/*") and body.endswith("*/")):
            out.append(_print(_Action(template, body, info).run()))
    rest = template[at:]
    if "{{" in rest:
        _fail(template, "unclosed action")
    out.append(_trim(rest, trim_left, False))
    return "".join(out)


def check_tag(template: str) -> None:
    """Raise OptionError for a template that renders for no container, before there is one."""
    with contextlib.suppress(_CallError):  # whether an index is in range depends on the container
        render_tag(template, _sample_info("0" * 64))


def _sample_info(identifier: str) -> Info:
    return Info(identifier, "/name-1_2", "sha256:" + identifier, "image", ("sh",), 0, Path(), hostname="host")


def _trim(text: str, left: bool, right: bool) -> str:
    text = text.lstrip(" \t\r\n") if left else text
    return text.rstrip(" \t\r\n") if right else text


def _print(value: Value) -> str:
    return f"[{' '.join(value)}]" if isinstance(value, list) else str(value)


def _fail(template: str, why: str) -> NoReturn:
    raise OptionError(_message(template, why))


def _message(template: str, why: str) -> str:
    return f"invalid log tag template {json.dumps(template, ensure_ascii=False)}: {why}"


class _Action:
    """One ``{{…}}``: a recursive descent over its tokens that yields the value at once."""

    def __init__(self, template: str, body: str, info: Info) -> None:
        self.template = template
        self.info = info
        self.tokens: list[_Token] = []
        for match in _TOKEN.finditer(body):
            kind = match.lastgroup or "bad"
            if kind == "bad":
                _fail(template, f"unexpected {match['bad']!r} in {body!r}")
            self.tokens.append(_Token(kind, match[kind]))
        self.at = 0

    def run(self) -> Value:
        if not self.tokens:
            _fail(self.template, "missing value for command")
        value = self.pipeline()
        if self.at < len(self.tokens):
            _fail(self.template, f"unexpected {self.tokens[self.at].text!r}")
        return value

    def next(self) -> _Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def pipeline(self) -> Value:
        value = self.command(None)
        while (token := self.next()) is not None and token.text == "|" and token.kind == "mark":
            self.at += 1
            value = self.command(value)
        return value

    def command(self, piped: Value | None) -> Value:
        token = self.next()
        if token is None or (token.kind == "mark" and token.text != "("):
            _fail(self.template, "missing value for command")
        if token.kind == "word":
            self.at += 1
            return self.call(token.text, [*self.operands(), *([] if piped is None else [piped])])
        first, *more = self.operands()
        if more or piped is not None:
            _fail(self.template, f"{token.text!r} is not a function but has arguments")
        return first

    def operands(self) -> list[Value]:
        values: list[Value] = []
        while (token := self.next()) is not None and not (token.kind == "mark" and token.text in "|)"):
            self.at += 1
            values.append(self.operand(token))
        return values

    def operand(self, token: _Token) -> Value:
        if token.kind == "string":
            try:
                return str(json.loads(token.text))
            except ValueError:
                _fail(self.template, f"bad string {token.text}")
        if token.kind == "raw":
            return token.text[1:-1]
        if token.kind == "int":
            return int(token.text)
        if token.kind == "field":
            if token.text[1:] not in _FIELDS:
                _fail(self.template, f"no field {token.text}; there are {' '.join('.' + f for f in _FIELDS)}")
            return _FIELDS[token.text[1:]](self.info)
        if token.kind == "mark":  # "(": the others end the list of operands
            value = self.pipeline()
            closing = self.next()
            if closing is None or closing.text != ")":
                _fail(self.template, "unclosed left paren")
            self.at += 1
            return value
        return self.call(token.text, [])

    def call(self, name: str, arguments: Sequence[Value]) -> Value:
        if name in _CONTROL:
            _fail(self.template, f"{name!r} is not supported in tags")
        if name not in _FUNCTIONS:
            _fail(self.template, f"function {json.dumps(name)} not defined; there are {' '.join(_FUNCTIONS)}")
        function, kinds = _FUNCTIONS[name]
        if len(arguments) != len(kinds):
            _fail(
                self.template,
                f"wrong number of args for {name}: want {len(kinds)} got {len(arguments)}",
            )
        for value, kind in zip(arguments, kinds, strict=True):
            if not isinstance(value, kind):
                _fail(self.template, f"wrong type of value for {name}: {value!r}")
        try:
            return function(*arguments)
        except (IndexError, ValueError) as error:
            raise _CallError(_message(self.template, f"error calling {name}: {error}")) from error


def _go_json(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _go_split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else list(text)


def _go_title(text: str) -> str:
    return re.sub(r"(?<![\w'])\w", lambda match: match[0].title(), text)


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    if length < 0:
        raise ValueError(f"length {length} is negative")
    return text.encode()[:length].decode("utf-8", "replace")


def _index(values: list[str], at: int) -> str:
    if not 0 <= at < len(values):
        raise IndexError(f"index out of range: {at}")
    return values[at]


_ANY = (str, int, list)
#: Docker's template functions, and Go's ``index``, ``len`` and ``print``, with the kinds of their arguments.
_FUNCTIONS: Mapping[str, tuple[Callable[..., Value], tuple[type | tuple[type, ...], ...]]] = {
    "json": (_go_json, (_ANY,)),
    "split": (_go_split, (str, str)),
    "join": (lambda values, separator: separator.join(values), (list, str)),
    "title": (_go_title, (str,)),
    "lower": (str.lower, (str,)),
    "upper": (str.upper, (str,)),
    "pad": (_pad, (str, int, int)),
    "truncate": (_truncate, (str, int)),
    "index": (_index, (list, int)),
    "len": (len, ((str, list),)),
    "print": (_print, (_ANY,)),
}
