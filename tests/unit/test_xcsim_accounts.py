"""The accounts of xcsim's machine on a host that has accounts of its own."""

from __future__ import annotations

from pathlib import Path

from xcsim.shared_root import replace_lines


def test_accounts_of_the_host_with_the_same_name_or_number_are_removed(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text("root:x:0:0::/root:/bin/sh\nfirst:x:1001:1001::/:/bin/sh\nalice:x:7:7::/:/bin/sh\nbroken\n")
    replace_lines(passwd, ["alice:x:1001:1001::/home/alice:/bin/bash"], (0, 2))
    assert passwd.read_text() == "root:x:0:0::/root:/bin/sh\nbroken\nalice:x:1001:1001::/home/alice:/bin/bash\n"


def test_only_the_given_fields_are_compared(tmp_path: Path) -> None:
    shadow = tmp_path / "shadow"
    shadow.write_text("first:!:19000:0:99999:7:::\nalice:*:19000:::::\n")
    replace_lines(shadow, ["alice:!:19000:0:99999:7:::"], (0,))
    assert shadow.read_text() == "first:!:19000:0:99999:7:::\nalice:!:19000:0:99999:7:::\n"
