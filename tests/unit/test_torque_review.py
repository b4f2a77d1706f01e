"""What a user writes about images and qsub does not pass on: refused, or said in one line; never silent."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.effort import assert_linear
from torque_hooks.directives import read_submission
from torque_hooks.review import review
from torque_hooks.submit_filter import may_request_image
from udiroot.errors import UsageError

ENVIRONMENT = {"HOME": "/home/alice", "EXPORTED": "a,b"}
IMAGE = "UDI=debian:12"


def reviewed(
    arguments: Sequence[str] = (), script: str = "#!/bin/sh\naprun x\n", environment: dict[str, str] | None = None
) -> list[str]:
    """The warnings, by the way that a submission takes: what the gate lets pass is not looked at."""
    known = ENVIRONMENT | (environment or {})
    raw = script.encode()
    if not may_request_image(list(arguments), raw, {key.encode(): value.encode() for key, value in known.items()}):
        return []
    return review(read_submission(arguments, raw, known), known)


def script(*lines: str) -> str:
    return "\n".join(("#!/bin/bash", *lines, "aprun -n 2 -b hostname", ""))


REFUSED = [
    # one list of several counts
    (["-v", "X=1"], script(f"#PBS -v {IMAGE}"), "would be lost: qsub goes by the -v on the command line alone"),
    (["-vX=1"], script(f"#PBS -v{IMAGE}"), "would be lost"),
    (["-v", "X=1"], script(f"#PBS -v X=2,{IMAGE}"), "UDI=debian:12 on line 2 of the script would be lost"),
    (["-v", "X=1"], script("#PBS -N n", f'#PBS -q x -v "{IMAGE}"'), "on line 3 of the script would be lost"),
    (["-v", "X=1", "-V"], script(f"#PBS -v {IMAGE}"), "would be lost"),
    (["-C", "#X", "-v", "X=1"], script(f"#X -v {IMAGE}"), "would be lost"),
    (["-v", IMAGE, "-v", "X=1"], script(), "UDI=debian:12 on the command line would be lost"),
    (["-v", IMAGE], script("#PBS -v UDI_VOLUMES=/a:/b"), "UDI_VOLUMES=/a:/b on line 2 of the script would be lost"),
    ([], script("#PBS -v X=1", f"#PBS -v {IMAGE}"), "the -v on line 2 of the script alone"),
    ([], script(f"#PBS -v {IMAGE}", "#PBS -v UDI_VOLUMES=/a:/b"), "UDI_VOLUMES=/a:/b on line 3"),
    ([], script(f"#PBS -v {IMAGE}", "#PBS -v UDI=other"), "UDI=other on line 3"),
    (["-v", "UDI=a,UDI=b"], script(), "given twice on the command line"),
    ([], script("#PBS -v X=1 \\", "#PBS -v UDI=a"), "'UDI=a' on line 2 of the script belongs to no -v list"),
    (["-v", "X=1"], script("#PBS -N n \\", f"-v {IMAGE}"), "would be lost"),
    (
        ["-v", "X=1"],
        script("#PBS -v A=1,\\", "B=2,\\", "UD\\", "I=a:1"),
        "UDI=a:1 on line 2 of the script would be lost",
    ),
    # what is not in a list
    ([], script(f"#PBS -v {IMAGE}, UDI_VOLUMES=/a:/b"), "'UDI_VOLUMES=/a:/b' on line 2 of the script belongs to no"),
    ([], script(f"#PBS v {IMAGE}"), "belongs to no -v list"),
    ([], script(f"#PBS -V {IMAGE}"), "belongs to no -v list"),
    ([], script(f"#PBS {IMAGE}"), "belongs to no -v list"),
    (["-v", "'UDI=a:1'"], script(), "qsub keeps quotes, and expands nothing"),
    (["-v", 'A=1,"UDI=a:1"'], script(), "qsub keeps quotes"),
    (["-v", "$UDI"], script(), "qsub keeps quotes, and expands nothing"),
    (["-v", "${UDI_VOLUMES}"], script(), "is not a variable"),
    # commas within a value
    (["-v", f"{IMAGE},UDI_VOLUMES=/a:/mnt,/b:/srv"], script(), "'/b:/srv' on the command line is not a variable"),
    (["-v", f"{IMAGE},UDI_VOLUMES=/a:/mnt,/b:/srv:ro,X=1"], script(), "'/b:/srv:ro'"),
    (["-v", f'{IMAGE},UDI_VOLUMES="/a:/mnt,/b:/srv"'], script(), "qsub splits -v at every comma"),
    (["-v", f"{IMAGE},UDI_VOLUMES=/a:/mnt\\,/b:/srv"], script(), "qsub splits -v at every comma"),
    ([], script(f"#PBS -v '{IMAGE},UDI_VOLUMES=/a:/mnt,/b:/srv'"), "on line 2 of the script is not a variable"),
    (["-v", f"{IMAGE},/b:/srv=1"], script(), "is not a variable"),
    # names
    (["-v", "udi=debian:12"], script(), "unknown variable udi on the command line"),
    (["-v", "Udi=debian:12"], script(), "did you mean UDI?"),
    (["-v", f"{IMAGE},UDI_VOLUME=/a:/b"], script(), "did you mean UDI_VOLUMES?"),
    (["-v", f"{IMAGE},udi_volumes=/a:/b"], script(), "did you mean UDI_VOLUMES?"),
    (["-v", f"{IMAGE},UDI_VOLUMNES=/a:/b"], script(), "did you mean UDI_VOLUMES?"),
    (["-v", f"{IMAGE},UDIVOLUMES=/a:/b"], script(), "did you mean UDI_VOLUMES?"),
    (["-v", f"{IMAGE},UID_VOLUMES=/a:/b"], script(), "did you mean UDI_VOLUMES?"),
    (["-v", f"{IMAGE},UDI_WAI=no"], script(), "did you mean UDI_WAIT?"),
    (["-v", "UDI_IMAGE=debian:12"], script(), "unknown variable UDI_IMAGE"),
    ([], script("#PBS -v UDI_IMAGE=debian:12"), "unknown variable UDI_IMAGE on line 2"),
    (["-v", "X=1"], script("#PBS -v udi=debian:12"), "unknown variable udi on line 2"),
    (["-v", "UDI = debian:12"], script(), "has a blank before ="),
    (["-v", "A=1,UDI =debian:12"], script(), "has a blank before ="),
    # values
    (["-v", "UDI"], script(), "UDI on the command line has no value, and none in the environment"),
    ([], script("#PBS -v UDI = debian:12"), "UDI on line 2 of the script has no value"),
    (["-v", "UDI,UDI_VOLUMES=/a:/b"], script(), "has no value"),
    (["-v", "UDI_VOLUMES=/a:/b"], script(), "UDI_VOLUMES=/a:/b is given, but no image"),
    (["-v", "UDI=,UDI_VOLUMES=/a:/b"], script(), "but no image"),
    (["-v", f"{IMAGE},UDI_WAIT=maybe"], script(), "UDI_WAIT must be yes or no"),
    (["-v", f"{IMAGE},CRAY_ROOTFS=DSL"], script(), "CRAY_ROOTFS=DSL contradicts UDI"),
    (["-v", "CRAY_ROOTFS=UDI"], script(), "CRAY_ROOTFS=UDI is given, but no image"),
    # the script's own lines
    ([], script("export UDI=debian:12"), "UDI=debian:12 on line 2 of the script is read when the job already runs"),
    ([], script("UDI=debian:12"), "is read when the job already runs"),
    ([], script("setenv UDI debian:12"), "is read when the job already runs"),
    ([], script("cd /tmp; export A=1 UDI='debian:12'"), "is read when the job already runs"),
    ([], script("UDI=debian:12 aprun -n 2 hostname"), "is read when the job already runs"),
    ([], script("env UDI=debian:12 aprun -n 2 hostname"), "is read when the job already runs"),
    ([], script("declare -x UDI=debian:12"), "is read when the job already runs"),
    ([], script("if true; then export UDI=debian:12; fi"), "is read when the job already runs"),
    ([], script("export UDI_VOLUMES=/a:/b"), "is read when the job already runs"),
    ([], script("export UDI_MODULES=mpich"), "is read when the job already runs"),
    (["-v", "UDI_MODULES=mpich"], script(), "UDI_MODULES=mpich is given, but no image"),
    (["-v", f"{IMAGE},UDI_MODULE=mpich"], script(), "did you mean UDI_MODULES?"),
    (["-v", f"{IMAGE},udi_modules=mpich"], script(), "did you mean UDI_MODULES?"),
    (["-v", f"{IMAGE},UDI_MODULES=a,UDI_MODULES=b"], script(), "UDI_MODULES is given twice"),
    (["-v", IMAGE], script("#PBS -v UDI_MODULES=mpich"), "UDI_MODULES=mpich on line 2 of the script would be lost"),
    ([], script("export CRAY_ROOTFS=UDI"), "is read when the job already runs"),
    ([], script("  : an indented colon is a command", f"#PBS -v {IMAGE}"), "is read when the job already runs"),
    ([], script("echo hello", f"#PBS -v {IMAGE}"), "on line 3 of the script is read when the job already runs"),
]


@pytest.mark.parametrize(("arguments", "text", "message"), REFUSED)
def test_what_cannot_be_meant_is_refused(arguments: list[str], text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        reviewed(arguments, text)
    assert message in f"{caught.value.message} ({caught.value.hint})"


WARNED = [
    (["-v", "UDI="], script(), {}, "UDI on the command line is empty: the job runs without an image"),
    (["-v", "UID=debian:12"], script(), {}, "UID=debian:12 on the command line is not UDI"),
    ([], script("#PBS -v UDL=debian:12"), {}, "UDL=debian:12 on line 2 of the script is not UDI"),
    (["-v", "ADI=team/app"], script(), {}, "is not UDI, and requests no image"),
    (["-v", "FOO,UDI=debian:12"], script(), {}, "FOO on the command line is not set"),
    (["-v", "UDI_WAIT=no"], script(), {}, "UDI_WAIT has no effect without UDI"),
    ([], script(), {"UDI": "debian:12"}, "UDI of the environment is not passed to the job"),
    (["-v", "X=1"], script(), {"UDI": "debian:12"}, "UDI of the environment is not passed to the job"),
    (["-v", IMAGE], script(), {"UDI_VOLUMES": "/a:/b"}, "UDI_VOLUMES of the environment is not passed"),
    (["-V"], script(), {"udi": "debian:12"}, "variable udi of the environment has no effect"),
    (["-v", IMAGE], script(), {"CRAY_ROOTFS": "DSL"}, "CRAY_ROOTFS=DSL is set in your environment"),
    (["-v", IMAGE], script("export CRAY_ROOTFS=DSL"), {}, "CRAY_ROOTFS=DSL on line 2 of the script: aprun does not"),
    (["-v", IMAGE], script("unset CRAY_ROOTFS"), {}, "line 2 of the script: aprun does not enter"),
    (["-v", IMAGE], script("setenv CRAY_ROOTFS DSL"), {}, "line 2 of the script: aprun does not enter"),
    (["-v", IMAGE], script("CRAY_ROOTFS=SHIFTER aprun x"), {}, "line 2 of the script: aprun does not enter"),
    (["-v", IMAGE], script("export UDI=other:1"), {}, "UDI=other:1 on line 2 of the script: has no effect"),
    (["-v", IMAGE], script("export UDI_VOLUMES=/a:/b"), {}, "UDI_VOLUMES=/a:/b on line 2 of the script"),
    (["-v", IMAGE], script("setenv UDI_MODULES mpich"), {}, "UDI_MODULES=mpich on line 2 of the script: has no effect"),
    (["-v", IMAGE], script(), {"UDI_MODULES": "mpich"}, "UDI_MODULES of the environment is not passed"),
    (["-v", f"{IMAGE},UDI_MODULES=mpich,gpu"], script(), {}, "gpu on the command line is no module but a variable"),
    (["-v", IMAGE], script("x", "#PBS -v UDI_VOLUMES=/a:/b"), {}, "UDI_VOLUMES=/a:/b on line 3 of the script"),
    ([], script("export UDI=debian:12", "qsub -V next.sh"), {}, "UDI=debian:12 on line 2 of the script"),
    ([], script("cat >x <<E", "#PBS -v UDI=a:1", "E", "qsub x"), {}, "UDI=a:1 on line 3 of the script"),
    ([], script(f"#pbs -v {IMAGE}"), {}, "line 2 of the script is not a directive of this job"),
    ([], script(f"# PBS -v {IMAGE}"), {}, "line 2 of the script is not a directive of this job"),
    (["-C", "#X"], script(f"#PBS -v {IMAGE}"), {}, "line 2 of the script is not a directive of this job"),
    ([], script(f"#SBATCH -v {IMAGE}"), {}, "line 2 of the script is not a directive of this job"),
    ([], script(f"#$ -v {IMAGE}"), {}, "line 2 of the script is not a directive of this job"),
    (["-v", f"X=1;{IMAGE}"], script(), {}, "sets X alone: commas separate"),
    (["-v", f"X=1 {IMAGE}"], script(), {}, "sets X alone: commas separate"),
    (["-W", f"x={IMAGE}"], script(), {}, "UDI has no effect in -W x=UDI=debian:12"),
    (["-l", IMAGE], script(), {}, "UDI has no effect in -l UDI=debian:12"),
    (["job.sh", "-v", IMAGE], script(), {}, "after the script's name has no effect"),
]


@pytest.mark.parametrize(("arguments", "text", "environment", "message"), WARNED)
def test_what_may_be_meant_is_a_warning(
    arguments: list[str], text: str, environment: dict[str, str], message: str
) -> None:
    warnings = reviewed(arguments, text, environment)
    assert len(warnings) == 1 and message in warnings[0]


@pytest.mark.parametrize(
    ("arguments", "text", "environment"),
    [
        ([], script(), {}),
        (["-v", IMAGE], script(), {}),
        (["-v", f"{IMAGE},UDI_VOLUMES=/a:/b;/c:/d:ro,UDI_WAIT=no,X=1"], script(), {}),
        (["-v", f"{IMAGE},UDI_MODULES=mpich;gpu,X"], script(), {"X": "1"}),
        (["-V"], script(), {"UDI": "debian:12", "UDI_IMAGE_ID": "x", "UDI_MODULES_USED": "mpich"}),
        ([], script("#PBS -l nodes=1 \\", "  -N name", f"#PBS -v {IMAGE},\\", "UDI_VOLUMES=/a:/b"), {}),
        ([], script(f"#PBS -v {IMAGE}  # the image", ": UDI").replace("\n", "\r\n"), {}),
        (["-C", "#$", "-E"], script(f"#$ -v {IMAGE}"), {}),
        (["-v", f"EXPORTED,{IMAGE},BASH_FUNC_module%%=x"], script(), {}),
        (["-v", "UDI"], script(), {"UDI": "debian:12"}),
        (["-V"], script(), {"UDI": "debian:12", "UDI_VOLUMES": "/a:/b,/c:/d"}),
        (["-v", IMAGE], script("#PBS -v UDI=other:1"), {}),
        (["-v", IMAGE], script(f"#PBS -v {IMAGE},X=1"), {}),
        ([], script(f"#PBS -v {IMAGE}", f"#PBS -v {IMAGE}"), {}),
        (["-v", IMAGE, "-v", "UDI=other:1"], script(), {}),
        (["-I", "-v", IMAGE], "\n\n", {}),
        (["-t", "1-4", "-h", "-v", IMAGE], script(), {}),
        (["-v", f"{IMAGE},CRAY_ROOTFS=UDI"], script("export CRAY_ROOTFS=UDI", "export UDI=$UDI"), {}),
        (["-v", "CRAY_ROOTFS=DSL"], script("export CRAY_ROOTFS=DSL"), {"CRAY_ROOTFS": "DSL"}),
        (["-v", f"{IMAGE},CRAY_ROOTFS=SHIFTER"], script(), {}),
        ([], script("# export UDI=debian:12", "echo UDI=$UDI", "qsub -v UDI=debian:12 next.sh", "cat studio=1"), {}),
        ([], script("##PBS -v UDI=debian:12"), {}),
        (["-v", "UID=1001,UDP=on,UI,DI=/x,AUDIO=1,STUDIO=2,MY_UDI=3"], script(), {"UI": "1"}),
        (["-F", "UDI=1"], script(), {}),
        (["-v", "=x,UDI=debian:12"], script(), {}),
    ],
)
def test_what_holds_in_the_job_is_no_line(arguments: list[str], text: str, environment: dict[str, str]) -> None:
    assert reviewed(arguments, text, environment) == []


_PIECES = st.sampled_from(
    ("-v", "UDI=a:1", "udi=a", "UDI_VOLUMES=/a:/b", ",", "/c:/d", "#PBS -v ", "\n", "export ", "CRAY_ROOTFS=UDI", " ")
)
_TEXTS = st.lists(_PIECES, max_size=10).map("".join)


@given(st.lists(_TEXTS, max_size=5), _TEXTS)
def test_the_gate_lets_nothing_pass_that_would_be_refused(arguments: list[str], text: str) -> None:
    if not may_request_image(arguments, text.encode(), {}):
        assert review(read_submission(arguments, text.encode(), {}), {}) == []


@given(st.lists(st.text(max_size=30), max_size=5), st.text(max_size=300))
def test_any_text_is_refused_or_reviewed(arguments: list[str], text: str) -> None:
    try:
        warnings = review(read_submission(arguments, text.encode("utf-8", "surrogateescape"), {}), {})
    except UsageError as error:
        warnings = [error.message]
    assert all("\n" not in warning for warning in warnings)


def test_a_long_script_takes_linear_time() -> None:
    lines = "A=1 " * 1000 + "UDI=x; " * 500
    assert reviewed(["-v", IMAGE], script(*[lines] * 200)) != []


def test_a_directive_of_many_words_takes_linear_time() -> None:
    """A line of a script may be as long as the script, and is split into words, and each word into characters."""
    assert_linear(lambda size: read_submission([], b"#PBS " + b"a " * size, {}), 160_000)
    assert_linear(lambda size: read_submission([], b"#PBS -N '" + b"a" * size + b"'", {}), 1_600_000)
