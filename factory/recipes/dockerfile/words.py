"""Variables and quotes in the arguments of a Dockerfile, as Docker's shell lexer reads them.

Specification: BuildKit's frontend/dockerfile/shell/lex.go. It is not a shell: there are no commands, no patterns of
file names, and a backslash in double quotes stays before most characters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from factory.recipes.dockerfile.matching import Matcher, WordError, Work

_LONGEST = 64 * 1024  # characters of an expanded text
_DEEPEST = 50  # ${a:-${b:-…}}
OPEN, CLOSE = "\ue000", "\ue001"  # around a reference to a variable whose value is known only during a build
_SPECIAL = "@*#?-$!0"
_NO_VARIABLES: Mapping[str, str] = {}


def expand(
    text: str,
    values: Mapping[str, str],
    escape: str = "\\",
    *,
    quotes: bool = True,
    work: Work | None = None,
    refer: bool = False,
) -> str:
    r"""Return text with its variables replaced and its quotes and escapes removed. Raises WordError.

    quotes: False for the body of a here-document, in which quotes are ordinary characters. A name without a value
    becomes '' or, with refer, a reference between OPEN and CLOSE, such as OPEN + ``NAME:-default`` + CLOSE. work:
    shared by the expansions of a file. Text and values can be untrusted: time and size are bounded.
    """
    lexer = _Lexer(text, values, escape, quotes=quotes, work=work, keep_unset=refer)
    if refer:
        lexer.around = OPEN, CLOSE
    return lexer.everything()[0]


def split(text: str, values: Mapping[str, str], escape: str = "\\", *, work: Work | None = None) -> tuple[str, ...]:
    """Return the words of a text with variables replaced: a value with spaces becomes several words (EXPOSE)."""
    return _Lexer(text, values, escape, work=work).everything()[1]


def unset(text: str, values: Mapping[str, str], escape: str = "\\") -> tuple[str, ...]:
    """Return the names that a text uses and that have no value, in order. Raises WordError."""
    lexer = _Lexer(text, values, escape)
    lexer.everything()
    return tuple(lexer.missing)


def here_words(line: str) -> tuple[str, ...]:
    """Return the words of an instruction in which `<<NAME` may begin a here-document: quotes stay, nothing expands."""
    try:
        return _Lexer(line, _NO_VARIABLES, "\\", keep=True).everything()[1]
    except WordError:
        return ()


def delimiter(word: str) -> tuple[str, bool] | None:
    """Return the name of a here-document and whether its text is expanded; None if word is not one word.

    word: what follows `<<` or `<<-`, with its quotes. Raises WordError.
    """
    plain = _Lexer(word, _NO_VARIABLES, "\\", keep_unset=True).everything()[1]
    if len(plain) != 1:
        return None
    raw = _Lexer(word, _NO_VARIABLES, "\\", keep_unset=True, keep_quotes=True).everything()[1]
    if len(raw) != 1:
        raise WordError(f"the delimiter {word} cannot be read")
    return plain[0], _quotes(plain[0]) == _quotes(raw[0])


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')


@dataclass
class _Words:
    """The words of a text. Characters of an unquoted text are separated at blanks, others are not."""

    done: list[str] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        for letter in text:
            if not letter.isspace():
                self.letters.append(letter)
            elif self.letters:
                self.finish()

    def add_raw(self, text: str) -> None:
        if text:
            self.letters.append(text)

    def finish(self) -> None:
        if word := "".join(self.letters):
            self.done.append(word)
        self.letters = []


class _Lexer:
    """Reads a text once, from left to right."""

    def __init__(
        self,
        text: str,
        values: Mapping[str, str],
        escape: str,
        *,
        quotes: bool = True,
        keep: bool = False,
        keep_unset: bool = False,
        keep_quotes: bool = False,
        work: Work | None = None,
    ) -> None:
        self._text = text
        self._values = values
        self._escape = escape
        self._at = 0
        self._depth = 0
        self._size = 0
        self._keep_quotes = keep or keep_quotes
        self._keep_escapes = keep
        self._keep_unset = keep or keep_unset
        self._work = work or Work()
        self.around = "${", "}"
        self.missing: dict[str, None] = {}
        self._special: dict[str, Callable[[], str]] = {"$": self._dollar, "<": self._here_document}
        if quotes:
            self._special |= {"'": self._single, '"': self._double}

    def everything(self) -> tuple[str, tuple[str, ...]]:
        words = _Words()
        text = self._until("", words, keep_escapes=self._keep_escapes)
        words.finish()
        return text, tuple(words.done)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        letter = self._text[self._at : self._at + 1]
        self._at += 1
        return letter

    def _until(self, stop: str, words: _Words, *, keep_escapes: bool) -> str:
        """Read up to the character stop, '' for the end of the text."""
        found: list[str] = []
        before, self._keep_escapes = self._keep_escapes, keep_escapes
        try:
            while letter := self._peek():
                if letter == stop:
                    self._at += 1
                    return "".join(found)
                if letter in self._special:
                    piece = self._special[letter]()
                    (words.add if letter == "$" else words.add_raw)(piece)
                elif self._next() == self._escape:
                    piece = self._peek()
                    self._at += 1
                    if keep_escapes:
                        piece = letter + piece
                    words.add_raw(piece)
                else:
                    piece = letter
                    words.add(piece)
                found.append(piece)
        finally:
            self._keep_escapes = before
        if stop:
            raise WordError(f"there is no closing {stop}")
        return "".join(found)

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise WordError("there is no closing single quote")
        start, self._at = self._at, end + 1
        return self._text[start : self._at] if self._keep_quotes else self._text[start + 1 : end]

    def _double(self) -> str:
        found = [self._next()] if self._keep_quotes else []
        self._at += not self._keep_quotes
        while letter := self._peek():
            if letter == "$":
                found.append(self._dollar())
                continue
            self._at += 1
            if letter == '"':
                return "".join([*found, letter]) if self._keep_quotes else "".join(found)
            if letter == self._escape:
                if self._keep_escapes:
                    found.append(letter)
                following = self._peek()
                if not following:
                    break
                if following in ('"', "$", self._escape):
                    letter = self._next()
            found.append(letter)
        raise WordError("there is no closing double quote")

    def _here_document(self) -> str:
        """Take the blanks between `<<` and the delimiter into the word."""
        start = self._at
        self._at += 1
        if self._peek() == "<":
            self._at += 1
            while self._peek() in ("\t", "\r", " "):
                self._at += 1
        return self._text[start : self._at]

    def _dollar(self) -> str:
        self._at += 1
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            found = self._value(name)
            if found is not None or not self._keep_unset:
                return self._counted(found or "")
            return self._kept(name) if self.around[0] == OPEN else f"${name}"
        self._at += 1
        if not self._peek():
            raise WordError("${ without }")
        if self._peek() in "{}:":
            raise WordError(f"${{{self._peek()} is not a substitution")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise WordError(f"more than {_DEEPEST} substitutions in each other")
        value = self._counted(self._substituted(self._name()))
        self._depth -= 1
        return value

    def _kept(self, inner: str) -> str:
        return f"{self.around[0]}{inner}{self.around[1]}"

    def _value(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is None:
            self.missing[name] = None
        return value

    def _counted(self, value: str) -> str:
        self._work.spend(characters=len(value))
        self._size += len(value)
        if self._size > _LONGEST:
            raise WordError(f"with its variables replaced, the text has more than {_LONGEST} characters")
        return value

    def _substituted(self, name: str) -> str:
        """Return the value of `${name…}`; the name is read."""
        kind = self._next()
        value = self._value(name)
        if kind == "}":
            return self._kept(name) if self._keep_unset and value is None else value or ""
        if kind == "/":
            return self._with_replacement(name, value)
        empty_counts = kind == ":"
        operator = self._next() if empty_counts else kind
        if not operator:
            raise WordError("${ without }")
        if operator not in ("-+?" if empty_counts else "-+?#%"):
            shown = kind + operator if empty_counts else kind
            raise WordError(f"${{{name}{shown}…}} is not a substitution that Docker knows")
        word = self._until("}", _Words(), keep_escapes=operator in "#%")
        if value is None and self._keep_unset:
            return self._kept(f"{name}{':' if empty_counts else ''}{operator}{word}")
        if operator in "-+?":
            return _chosen(name, operator, word, None if empty_counts and not value else value)
        greedy = word.startswith(operator)
        matcher = Matcher(value or "", self._work)
        return matcher.trimmed(word[greedy:], greedy=greedy, at_end=operator == "%")

    def _with_replacement(self, name: str, value: str | None) -> str:
        every = self._peek() == "/"
        self._at += every
        pattern = self._until("/", _Words(), keep_escapes=True)
        replacement = self._until("}", _Words(), keep_escapes=True)
        if value is None and self._keep_unset:
            if self.around[0] == OPEN:
                raise WordError(f"${{{name}/…}} needs the value of {name}, which this file does not set")
            return self._kept(f"{name}/{pattern}/{replacement}")
        return Matcher(value or "", self._work).replaced(pattern, replacement, every=every)

    def _name(self) -> str:
        """Read a name, digits, or one special character; '' if there is none."""
        start = self._at
        first = self._peek()
        if first and first in _SPECIAL and not first.isdecimal():
            self._at += 1
        elif first.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        else:
            while self._peek().isalpha() or self._peek().isdecimal() or self._peek() == "_":
                self._at += 1
        return self._text[start : self._at]


def _chosen(name: str, operator: str, word: str, value: str | None) -> str:
    """Return the value of ``${name-word}``, with + or ? for -. value: None if the variable counts as missing."""
    if operator == "+":
        return "" if value is None else word
    if value is None and operator == "?":
        raise WordError(f"{name}: {word or 'is not set, or is empty'}")
    return word if value is None else value
