"""`qsub -v` against what a real Torque showed for the same submissions (torque-reference c)."""

import pytest

from xcsim.qsub import directives, words_of
from xcsim.variables import BadVariableList, environment_of, qsub_list, server_items, shown

INHERITED = {"INH": "from;env <&> \"q\" 's' a,b=c"}


def through_torque(text: str) -> tuple[str, dict[str, str]]:
    items = server_items(qsub_list(text, INHERITED))
    return shown(items), environment_of(items)


@pytest.mark.parametrize(
    ("given", "listed", "seen"),
    [
        ("UDI=image:tag,V=/a:/b;/c:/d", "UDI=image:tag,V=/a:/b;/c:/d", {"UDI": "image:tag", "V": "/a:/b;/c:/d"}),
        ('V="/a:/b,/c:/d",Z=1', 'V=\\"/a:/b,/c:/d\\"=,Z=1', {"V": '"/a:/b', '/c:/d"': "", "Z": "1"}),
        ("V=/a:/b\\,/c:/d,Z=1", "V=/a:/b\\,/c:/d=,Z=1", {"V": "/a:/b,/c:/d=", "Z": "1"}),
        ('X=<a&b>"q" tick\',Y=back\\slash\\n', 'X=<a&b>\\"q\\" tick\\\',Y=backslashn', {"Y": "backslashn"}),
        ("U=1,INH,Z", "U=1,INH=from;env <&> \\\"q\\\" \\'s\\' a\\,b=c,Z=", {"INH": INHERITED["INH"], "Z": ""}),
        ("U=a b c,E=,F==x=y,G", "U=a b c,E=,F==x=y,G=", {"F": "=x=y", "E": "", "G": ""}),
        ("NL=line1\nline2,T=a\tb", "NL=line1,line2,T=a\tb", {"NL": "line1", "T": "a\tb"}),
    ],
)
def test_as_the_real_one(given: str, listed: str, seen: dict[str, str]) -> None:
    shows, environment = through_torque(given)
    assert shows == listed
    assert {name: environment[name] for name in seen} == seen


@pytest.mark.parametrize("given", ["=a", ",a=1", "a=1,,b=2", ""])
def test_a_list_that_qsub_refuses(given: str) -> None:
    with pytest.raises(BadVariableList):
        qsub_list(given, {})


def test_directives_end_at_the_first_command() -> None:
    script = "#!/bin/sh\n# words\n#PBS -N one -v \"A=b c\",D='e'\n\necho\n#PBS -N two\n"
    assert directives(script) == [["-N", "one", "-v", "A=b c,D=e"]]


def test_words_of_a_directive() -> None:
    assert words_of(r""" -l  nodes=1 -v X=a\ b "" """) == ["-l", "nodes=1", "-v", "X=a b", ""]
