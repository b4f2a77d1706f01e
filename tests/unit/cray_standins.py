"""Small real programs that stand in for Cray's and Torque's commands, each able to fail in each way that it can.

What a stand-in does is set by files beside it, so that a test can change it between two calls.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from udi import config
from udi.config import SiteConfig
from udi.facts import Facts, Ref
from udi.reference import ImageReference
from udi.store import StoreLayout

IMAGE_ID = "ab" * 32
OTHER_ID = "cd" * 32

_SAY = """\
#!/bin/sh
# Prints NAME.out, and exits with NAME.exit; hangs where NAME.hang exists.
here=$(dirname "$0"); me=$(basename "$0")
printf '%s\\n' "$*" >>"$here/$me.calls"
cat >"$here/$me.stdin"
[ -e "$here/$me.out" ] && cat "$here/$me.out"
[ -e "$here/$me.hang" ] && sleep 60
exit "$(cat "$here/$me.exit" 2>/dev/null || echo 0)"
"""

_APSTAT = """\
#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$*" >>"$here/apstat.calls"
[ -e "$here/apstat.hang" ] && sleep 60
[ -e "$here/apstat.exit" ] && { echo "apsched is gone" >&2; exit "$(cat "$here/apstat.exit")"; }
if [ "$1" = -r ]; then
    calls=$(grep -c '^-r$' "$here/apstat.calls")
    late=$(cat "$here/apstat.late" 2>/dev/null || echo 0)
    if [ "$calls" -le "$late" ]; then echo "No reservations are present"; else cat "$here/apstat.rows"; fi
else
    cat "$here/apstat.$3"
fi
"""

_XTXQTCMD = """\
#!/bin/sh
# Each node answers as the file STEP.NID or STEP.all says (the rest of a report after nonce and nid), else ok.
# `silent`: not at all; `absent`: its shell finds no Python; `killed`: Python is; `nameless`: it cannot read its nid.
here=$(dirname "$0")
case $2 in *setupRoot*unset*) ;; *unsetupRoot*) step=unsetupRoot ;; *setupRoot*) step=setupRoot ;; *) step=check ;; esac
echo "$step $(tr '\\n' ' ' <"$1")" >>"$here/xtxqtcmd.calls"
[ -e "$here/$step.dies" ] && { kill -9 $$; }
nonce=${2##* }
while read -r name; do
    nid=$(expr "${name#nid}" + 0)
    says="ok 5 0 - - done"
    [ -e "$here/$step.all" ] && says=$(cat "$here/$step.all")
    [ -e "$here/$step.$nid" ] && says=$(cat "$here/$step.$nid")
    case $says in
    silent) ;;
    absent) echo "UDI-EXIT $nonce $nid 127 not-started /bin/sh: /dsl/ld: not found" ;;
    killed) echo "UDI-EXIT $nonce $nid 137 started UDI-STARTED Killed" ;;
    nameless) echo "UDI-REPORT $nonce unknown failed 1 7 - - no nid in /proc/cray_xt/nid" ;;
    *) echo "UDI-REPORT $nonce $nid $says" ;;
    esac
    echo "Reply (complete) from $name exit code: 0"
done <"$1"
[ -e "$here/$step.hang" ] && sleep 60
exit "$(cat "$here/xtxqtcmd.exit" 2>/dev/null || echo 0)"
"""

_XTPROCADMIN = """\
#!/bin/sh
here=$(dirname "$0")
printf '%s\\n' "$*" >>"$here/xtprocadmin.calls"
[ -e "$here/xtprocadmin.exit" ] && { echo "no database" >&2; exit "$(cat "$here/xtprocadmin.exit")"; }
if [ "$1" = -k ]; then
    [ -e "$here/xtprocadmin.deaf" ] && exit 0
    for nid in $(echo "$5" | tr , ' '); do echo "$3" >"$here/state.$nid"; done
    exit 0
fi
echo "Connected"
echo "   NID    (HEX)    NODENAME     TYPE    STATUS        MODE"
for nid in $(echo "$2" | tr , ' '); do
    echo "   $nid   0x$nid  c0-0c0s1n0  compute  $(cat "$here/state.$nid" 2>/dev/null || echo up)  batch"
done
"""

ROWS = """\
 ResId     ApId From           Arch   PEs N d Memory State
   524  5385733 batch:123      XT     4 2 1   1024 conf,claim
A  524  5385734 batch:123      XT     4 - -   1024 conf,claim
   525  5385735 batch:1234     XT    16 8 1   1024 conf
   526   230Sec. batch:1235  XT   2 2 2   1024 unbound
"""
DETAIL = """\
Reservation detail
Res[0]: apid 5385733, pagg 11022, resId 524, user alice,
     gid 100, account 100, time 0, normal
Batch System ID = 123.sdb
Number of PEs 4, nid 77
    PE 1, cmd 0, nid 13, CPU 0x1, map 0x1, accels 0
    PE 0, cmd 0, nid 12, CPU 0x1, map 0x1, accels 0
    PE 3, cmd 0, nid 13, CPU 0x2, map 0x1, accels 0
    PE 2, cmd 0, nid 12, CPU 0x2, map 0x1, accels 0
"""


def wait_for(happened: Callable[[], bool]) -> None:
    """Until it has happened, which must be within a minute."""
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


class StandIns:
    """A site in a directory: its configuration, an image store with one image, and the stand-ins."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "bin"
        self.store = directory / "store"
        self.config_path = directory / "udi.toml"
        self.bin.mkdir()
        for name, text in (
            ("apstat", _APSTAT),
            ("xtxqtcmd", _XTXQTCMD),
            ("xtprocadmin", _XTPROCADMIN),
            ("qstat", _SAY),
            ("qhold", _SAY),
            ("apbasil", _SAY),
        ):
            self.program(name, text)
        self.tell("apstat.rows", ROWS)
        self.tell("apstat.524", DETAIL)
        self.site = self._configured()
        self.add_image("debian:12", IMAGE_ID)

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def tell(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)

    def calls(self, name: str) -> list[str]:
        path = self.bin / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def add_image(self, reference: str, image_id: str, owners: tuple[int, ...] = ()) -> None:
        layout = StoreLayout(str(self.store))
        for path in (layout.images, layout.refs, layout.plans):
            os.makedirs(path, exist_ok=True)
        facts = Facts(id=image_id, format="squashfs", size=1, sha256="00" * 32)
        Path(layout.image(image_id, "squashfs")).write_bytes(b"x")
        Path(layout.facts(image_id)).write_text(facts.to_json())
        self.add_ref(reference, image_id, owners)

    def add_ref(self, reference: str, image_id: str, owners: tuple[int, ...] = ()) -> None:
        parsed = ImageReference.parse(reference)
        path = StoreLayout(str(self.store)).ref(parsed, owners[0] if owners else None)
        Path(path).write_text(Ref(reference=str(parsed), id=image_id, owners=owners).to_json())

    def plans(self) -> list[str]:
        return os.listdir(self.store / "plans")

    def qstat_job(self, variables: str, job: str = "123.sdb", **fields: str) -> None:
        shown = {"exec_host": "12/0-1+13/0-1", "start_count": "1", "Job_Name": "run"} | fields
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in shown.items())
        body = f"<Job><Job_Id>{job}</Job_Id>{inner}<Variable_List>{variables}</Variable_List></Job>"
        self.tell("qstat.out", f'<?xml version="1.0"?>\n<Data>{body}</Data>\n')

    def _configured(self) -> SiteConfig:
        self.config_path.write_text(
            textwrap.dedent(f"""\
            [store]
            path = "{self.store}"
            account = "0"
            [gateway]
            socket = "{self.directory}/gateway.sock"
            [node]
            python = ["/dsl/python3"]
            deadline = 2
            [volumes]
            allowed = ["/scratch"]
            [alps]
            apstat = "{self.bin}/apstat"
            apbasil = "{self.bin}/apbasil"
            xtxqtcmd = "{self.bin}/xtxqtcmd"
            xtprocadmin = "{self.bin}/xtprocadmin"
            reservation_wait = 2
            command_deadline = 2
            fanout_deadline = 2
            [torque]
            qstat = "{self.bin}/qstat"
            qhold = "{self.bin}/qhold"
            command_deadline = 2
            prologue_deadline = 12
            epilogue_deadline = 12
            requeue_pause = 0
            mom_priv = "{self.directory}/mom_priv"
            server_home = "{self.directory}/torque"
            [jobs]
            state = "{self.directory}/spool/jobs"
            nodes = "{self.directory}/spool/nodes"
            log = "{self.directory}/log/hooks.log"
            reports = "{self.directory}/reports"
            syslog = false
            """)
        )
        self.config_path.chmod(0o644)
        return config.parse(self.config_path.read_text(), str(self.config_path))
