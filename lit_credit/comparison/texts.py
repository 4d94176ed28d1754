"""A table of texts as plain text, Markdown and LaTeX."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table", "latex_text", "readable_form"]

_LARGE = 1e7
"""From here on, numbers are written with an exponent."""

_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"${character}$" for character in "<>|"},
    "×": r"$\times$",  # noqa: RUF001
    "±": r"$\pm$",
}
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|inf)"
_NUMBERS = re.compile(rf"<?{_NUMBER}(?: ± (?:{_NUMBER}|n/a))?|\[{_NUMBER}, {_NUMBER}\]")
_COUNT = re.compile(r" \(n=(\d+)\)$")
_EXPONENT = re.compile(r"e([-+]?)0*(\d+)")


def readable_form(value: float, form: str) -> str:
    """The format of a number; with an exponent where ``f`` would give a long row of digits.

    Example:
        >>> readable_form(2.5, ".3f"), readable_form(2.5e9, ".3f")
        ('.3f', '.4g')
    """
    return ".4g" if abs(value) >= _LARGE and form.endswith("f") else form


@dataclass(frozen=True)
class Table:
    """Heads, rows of cells, and the numbers of the columns that stand on the left.

    Attributes:
        heads: heads of the columns.
        rows: texts of the cells, ``n/a`` if undefined.
        left: columns of words; all others hold numbers and stand on the right.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[int] = (0,)

    def text(self) -> list[str]:
        """Lines with aligned columns."""
        lines = [self.heads, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return [
            "  ".join(
                cell.ljust(width) if index in self.left else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]

    def markdown(self) -> list[str]:
        """Lines of a table in Markdown."""
        rule = ["---" if index in self.left else "---:" for index in range(len(self.heads))]
        cells = [[cell.replace("|", r"\|") for cell in line] for line in (self.heads, *self.rows)]
        return [f"| {' | '.join(line)} |" for line in (cells[0], rule, *cells[1:])]

    def latex(self) -> list[str]:
        """Lines of a ``tabular`` with the rules of the package booktabs."""
        columns = "".join("l" if index in self.left else "r" for index in range(len(self.heads)))
        head, *rows = (" & ".join(map(latex_text, line)) for line in (self.heads, *self.rows))
        return [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            # After `\\`, a bracket or a star would belong to it.
            *(rf"{'{}' if row.startswith(('[', '*')) else ''}{row} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]


def latex_text(text: str) -> str:
    r"""A cell in LaTeX: numbers in math mode, special characters of other texts escaped.

    Example:
        >>> print(latex_text("1.5e+05 ± 2"), latex_text("DFA lr_max=50%"), latex_text("n/a"))
        $1.5 \times 10^{5} \pm 2$ DFA lr\_max=50\% --
    """
    if text == "n/a":
        return "--"
    counted = _COUNT.search(text)
    number = text[: counted.start()] if counted else text
    if _NUMBERS.fullmatch(number):
        number = number.removesuffix(" ± n/a").replace("±", r"\pm").replace("inf", r"\infty")
        return f"${_EXPONENT.sub(_power, number)}$" + (f" ($n={counted[1]}$)" if counted else "")
    return "".join(_ESCAPES.get(character, character) for character in text)


def _power(found: re.Match[str]) -> str:
    sign = "-" if found[1] == "-" else ""
    return rf" \times 10^{{{sign}{found[2]}}}"
