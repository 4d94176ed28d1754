import pytest

from lit_credit.comparison.texts import Table, latex_text

TABLE = Table(
    ["rule", "n", "acc_max"],
    [["DFA lr=0.1 & more|x", "3", "0.91 ± 0.02"], ["BP", "10", "n/a"]],
)


def test_text_is_aligned():
    assert TABLE.text() == [
        "rule                  n      acc_max",
        "DFA lr=0.1 & more|x   3  0.91 ± 0.02",
        "BP                   10          n/a",
    ]


def test_markdown():
    assert TABLE.markdown() == [
        "| rule | n | acc_max |",
        "| --- | ---: | ---: |",
        r"| DFA lr=0.1 & more\|x | 3 | 0.91 ± 0.02 |",
        "| BP | 10 | n/a |",
    ]


def test_latex():
    assert TABLE.latex() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"rule & n & acc\_max \\",
        r"\midrule",
        r"DFA lr=0.1 \& more$|$x & $3$ & $0.91 \pm 0.02$ \\",
        r"BP & $10$ & -- \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("-0.5", "$-0.5$"),
        ("1.2e-05 ± n/a", r"$1.2 \times 10^{-5}$"),
        ("1e+12", r"$1 \times 10^{12}$"),
        ("0.71 ± 0.06 (n=2)", r"$0.71 \pm 0.06$ ($n=2$)"),
        ("BP (n=2)", "BP (n=2)"),
        ("[-0.1, +0.2]", "$[-0.1, +0.2]$"),
        ("<0.0001", "$<0.0001$"),
        ("inf", r"$\infty$"),
        ("infra", "infra"),
        (
            "a^2 ~ {b} \\c #1 $",
            r"a\textasciicircum{}2 \textasciitilde{} \{b\} \textbackslash{}c \#1 \$",
        ),
        ("95 % interval", r"95 \% interval"),
    ],
)
def test_cells_in_latex(text, latex):
    assert latex_text(text) == latex


def test_a_row_that_begins_with_a_bracket_is_not_an_argument_of_the_line_before():
    lines = Table(["rule"], [["BP"], ["[a] run"], ["*"]]).latex()
    assert lines[4:7] == [r"BP \\", r"{}[a] run \\", r"{}* \\"]
