"""The line of each key in a TOML file, by hand and for any tables."""

import json
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from rankwise.study.toml_lines import line_of, lines_of_keys


def test_lines_of_keys_by_hand():
    text = """\
a = 1
"b c" = [
  "not = a key",
  2,
]
d.e = '''
f = 3
'''
[g]  # comment
h = {i = 1, j = [1, 2]}
[[k]]
l = 1
[k.m]
n = 2
[[k]]
l = "]["
"""
    places = lines_of_keys(text)
    assert places == {
        ("a",): 1,
        ("b c",): 2,
        ("d", "e"): 6,
        ("g",): 9,
        ("g", "h"): 10,
        ("k",): 11,
        ("k", 0): 11,
        ("k", 0, "l"): 12,
        ("k", 0, "m"): 13,
        ("k", 0, "m", "n"): 14,
        ("k", 1): 15,
        ("k", 1, "l"): 16,
    }
    assert line_of(("g", "h", "j", 1), places) == 10
    assert line_of(("unknown",), places) == 1


NAMES = st.text("abcdefgh-_", min_size=1, max_size=6)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, st.text(max_size=8), max_size=4), max_size=4))
def test_lines_of_keys_of_any_tables(tables):
    lines, expected = ["# a comment", ""], {}
    for table, values in tables.items():
        lines.append(f"[{table}]")
        expected[(table,)] = len(lines)
        for key, value in values.items():
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=True)}".replace("\\u007f", ""))
            expected[(table, key)] = len(lines)
    text = "\n".join(lines)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # JSON's surrogate pairs aren't TOML's
    assert lines_of_keys(text) == expected
