"""`xtxqtcmd`: one shell line on many nodes at once, as root, in each node's own root (cray-reference section 1).

Output of all nodes is mixed as it arrives; each node that answered gets one reply line with the exit code of its
command. Killing the caller does not stop what already runs on the nodes.
"""

import os
import subprocess
import threading
import time
from pathlib import Path

from udiroot.errors import NotFound
from xcsim.call import Call
from xcsim.faults import Faults
from xcsim.node import ComputeNode, kill_program
from xcsim.settings import Settings


class FanOut:
    """The nodes of the machine, as xtxqtcmd reaches them."""

    def __init__(self, nodes: dict[int, ComputeNode], faults: Faults, settings: Settings) -> None:
        self._by_name = {node.name: node for node in nodes.values()}
        self._faults = faults
        self._settings = settings

    def run(self, call: Call) -> int:
        """Run one call; its exit status says nothing about the nodes (X14)."""
        if call.uid != 0:
            call.write_error("xtxqtcmd: must be run as root\n")
            return 1
        if len(call.arguments) != 2:
            call.write_error("usage: xtxqtcmd nodelist_file command\n")
            return 1
        listing, command = call.arguments
        try:
            names = (Path(call.cwd) / listing).read_text().split()
        except OSError as error:
            call.write_error(f"xtxqtcmd: {listing}: {error.strerror}\n")
            return 1
        if not self._on_all(names, command, call):
            return 1
        bad = self._faults.strikes("bad-exit")
        return int(bad.seconds(1)) if bad else 0

    def _on_all(self, names: list[str], command: str, call: Call) -> bool:
        """Run it everywhere, and wait until done or until the caller is gone; False in that case."""
        done = os.eventfd(0)

        def on_each() -> None:
            threads = [threading.Thread(target=self._on, args=(name, command, call), daemon=True) for name in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            os.eventfd_write(done, 1)

        threading.Thread(target=on_each, daemon=True).start()
        if call.wait_gone(done):
            return False
        os.close(done)
        return True

    def _on(self, name: str, command: str, call: Call) -> None:
        node = self._by_name.get(name)
        if node is None or not node.running or self._faults.strikes("dead-node", node.nid):
            return
        if self._faults.strikes("hung-node", node.nid):
            threading.Event().wait()
        if slow := self._faults.strikes("slow-node", node.nid):
            time.sleep(slow.seconds(2))
        lost = self._faults.strikes("lost-reply", node.nid) is not None
        code = self._run(node, command, call, lost=lost)
        if self._faults.strikes("exit-1", node.nid):
            code = 1
        if not lost:
            call.write(self._settings.reply_line.format(name=name, code=code) + "\n")

    def _run(self, node: ComputeNode, command: str, call: Call, *, lost: bool) -> int:
        pipe, merged = subprocess.PIPE, subprocess.STDOUT
        try:
            process = node.popen(["/bin/sh", "-c", command], stdout=pipe, stderr=merged)
        except NotFound:
            return 1
        if struck := self._faults.strikes("kill-command", node.nid):
            threading.Timer(struck.seconds(0.01), kill_program, args=(process,)).start()
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                if not lost:
                    call.write(line)
        return process.returncode if process.returncode >= 0 else 128 - process.returncode
