"""The private sshd between two nodes: the job's programs come in, nobody else does, and after the job it is gone."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.node.pair import PORT, Pair
from tests.node.rig import ALICE, BOB, make_tree
from udi.accounts import group_name
from udi.sshkeys import public_key
from udiroot.plan import PlanUser
from xcsim import kernel
from xcsim.entering import Entry
from xcsim.picture import NodePicture

LAUNCHER = """
for node in $(uniq /var/nodelist); do
    /opt/udi/bin/ssh $node 'echo rank of $(cat /etc/xcsim/nid) as $(id -u)' &
done
wait
"""
"""As mpirun does: a process for every node of the list."""


# -- who comes in ------------------------------------------------------------------------------------------------


def test_a_command_on_the_other_node_as_the_same_user(joined: Pair) -> None:
    done = joined.ssh("'cat /etc/xcsim/nid; id; cat /etc/os-release; exit 7'")
    own, other = (f"{gid}({group_name(gid)})" for gid in (1001, 2001))
    assert done.stdout == f"413\nuid=1001(alice) gid={own} groups={own},{other}\nNAME=tiny\n"
    assert (done.returncode, done.stderr) == (7, "")
    assert joined.ssh("cat /etc/xcsim/nid", nid=413, to=412).stdout == "412\n"
    assert joined.ssh("cat /etc/xcsim/nid", nid=412, to=412).stdout == "412\n"


def test_a_launcher_finds_the_nodes_by_the_node_list(joined: Pair) -> None:
    done = joined.nodes[412].inside(LAUNCHER)
    assert sorted(done.stdout.splitlines()) == ["rank of 412 as 1001", "rank of 413 as 1001"]
    assert done.stderr == ""


def test_options_that_launchers_give_to_openssh(joined: Pair) -> None:
    words = "-x -n -q -o BatchMode=yes -o StrictHostKeyChecking=no -l alice nid00413 cat /etc/xcsim/nid"
    done = joined.nodes[412].inside(f"/opt/udi/bin/ssh {words}")
    assert (done.stdout, done.stderr) == ("413\n", "")


def test_a_script_on_standard_input_and_core_files_as_the_user_wants(joined: Pair) -> None:
    done = joined.nodes[412].inside("echo 'cat /etc/xcsim/nid; exit 3' | /opt/udi/bin/ssh nid00413")
    assert (done.returncode, done.stdout, done.stderr) == (3, "413\n", "")
    assert joined.ssh("ulimit -c").stdout == joined.nodes[412].inside("ulimit -c").stdout


def test_a_terminal_of_one_s_own(joined: Pair) -> None:
    here, there = os.openpty()
    entry = Entry(ALICE.uid, ALICE.gid, ALICE.groups, root="/var/udi")
    words = ["/opt/udi/bin/ssh", "-t", "nid00413", "tty; stty size; stat -c %u $(tty)"]
    process = joined.nodes[412].node.popen(words, entry=entry, stdin=there, stdout=there, stderr=there)
    os.close(there)
    output = b""
    try:
        while data := os.read(here, 4096):
            output += data
    except OSError as error:  # EIO: the last process with the terminal is gone
        assert error.errno == errno.EIO
    finally:
        os.close(here)
    assert process.wait() == 0, output
    assert output.split()[0].startswith(b"/dev/pts/")
    assert output.split()[-1] == b"1001"


def test_udi_run_finds_our_ssh_first_and_a_session_has_the_image_s_environment(pair: Pair) -> None:
    pair.set_up(pair.plan(pair.keys(), env=("PATH=/usr/bin:/bin", "MODEL=a b"), workdir="/analysis"))
    try:
        done = pair.nodes[412].inside("/opt/udi/bin/udi-run ssh nid00413 'echo $PATH $MODEL $PWD $(cat)' < /dev/null")
        assert (done.stdout, done.stderr) == ("/opt/udi/bin:/usr/bin:/bin a b /analysis\n", "")
    finally:
        pair.tear_down()


def test_much_data_both_ways(joined: Pair) -> None:
    done = joined.nodes[412].inside("head -c 4000000 /dev/zero | /opt/udi/bin/ssh nid00413 cat | wc -c")
    assert done.stdout.strip() == "4000000"


# -- what it is ----------------------------------------------------------------------------------------------------


def test_it_is_the_user_s_without_rights_and_without_inherited_descriptors(joined: Pair) -> None:
    [pid] = joined.sshd(413)
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == ["1001"] * 4
    assert status["Gid"].split() == ["1001"] * 4
    assert status["Groups"].split() == ["1001", "2001"]
    assert {
        name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    } == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)
    assert status["NoNewPrivs"] == "1"
    opened = {int(link.name): os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    assert {opened.pop(number) for number in range(3)} == {"/dev/null"}
    program = [path for path in opened.values() if path.endswith("/opt/udi/ssh/sshd")]
    sockets = [path for path in opened.values() if path.startswith("socket:")]
    assert sorted(opened.values()) == sorted(program + sockets)
    assert (len(sockets), len(program)) == (1, 1)
    mapped = {line.split()[5] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "/" in line}
    assert {os.path.basename(path) for path in mapped} == {"sshd"}
    assert Path(f"/proc/{pid}/environ").read_bytes() == b"PATH=/usr/local/bin:/usr/bin:/bin\0"
    assert os.readlink(f"/proc/{pid}/root").endswith("/var/udi")


def test_it_has_no_key_of_root_s(joined: Pair) -> None:
    """The kernel's keys: a session keyring of its own, and nothing in reach that belongs to another uid."""
    rows = [line.split() for line in joined.ssh("cat /proc/keys").stdout.splitlines()]
    assert {row[5] for row in rows} == {str(ALICE.uid)}
    assert any(row[8].startswith("_ses") for row in rows)


def test_it_listens_on_the_cluster_address_alone(joined: Pair) -> None:
    [pid] = joined.sshd(413)
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    lines += Path(f"/proc/{pid}/net/tcp6").read_text().splitlines()[1:]
    listening = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    assert listening == [f"9E01800A:{PORT:04X}"]


def test_keys_are_the_user_s_to_read_and_nobody_s_to_change(joined: Pair) -> None:
    listed = joined.nodes[412].inside("cd /opt/udi/etc; for f in *; do stat -c '%n %u %a' $f; done").stdout.splitlines()
    own = ["ssh_host_key 1001 400", "ssh_key 1001 400"]
    assert listed == ["authorized_keys 0 444", "known_hosts 0 444", "run 0 444", *own]
    for change in ("chmod 644 ssh_key", "echo x >> authorized_keys", "rm ssh_key", "mv known_hosts x"):
        assert joined.nodes[412].inside(f"cd /opt/udi/etc && {change}").returncode != 0, change
    denied = joined.nodes[412].inside("cat /opt/udi/etc/ssh_key", user=BOB)
    assert "Permission denied" in denied.stderr


# -- who does not --------------------------------------------------------------------------------------------------


def test_another_key_of_the_same_user_even_where_his_own_file_allows_it(joined: Pair, tmp_path: Path) -> None:
    """By OpenSSH, since our own client always shows the job's key too."""
    own = joined.rig.directory / "home/alice/.ssh"
    own.mkdir(mode=0o700)
    key = tmp_path / "key"
    subprocess.run(["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    shutil.copy(f"{key}.pub", own / "authorized_keys")
    for path in (own, own / "authorized_keys"):
        os.chown(path, ALICE.uid, ALICE.gid)
    (own / "authorized_keys").chmod(0o600)
    output = _openssh(joined, f"-o IdentitiesOnly=yes -i {key}", "alice")
    shutil.rmtree(own)
    assert output == (255, "alice@10.128.1.158: Permission denied (publickey).")


@pytest.mark.parametrize("name", ["root", "bob", "daemon", "nobody", "alice "])
def test_another_name_with_the_job_s_own_key(joined: Pair, name: str) -> None:
    done = joined.nodes[412].inside(f"/opt/udi/bin/ssh -l '{name}' nid00413 id")
    assert (done.returncode, done.stdout) == (1, "")


def test_another_user_of_the_same_node_has_no_key(joined: Pair) -> None:
    done = joined.nodes[412].inside("/opt/udi/bin/ssh -l alice nid00413 id", user=BOB)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("name", ["alice", "root"])
def test_a_password_is_no_way_in(joined: Pair, name: str) -> None:
    """The server offers neither a password nor an empty one."""
    output = _openssh(joined, "-o PreferredAuthentications=none,password,keyboard-interactive", name)
    assert output == (255, f"{name}@10.128.1.158: Permission denied (publickey).")


def test_the_client_trusts_the_job_s_own_nodes_alone(pair: Pair) -> None:
    """The other node is another job's, with keys of its own: its host key is not trusted, whatever name it has."""
    mine, others = pair.plan(pair.keys()), pair.plan(pair.keys(), job="77.sdb")
    assert pair.nodes[412].set_up(mine).ok
    assert pair.nodes[413].set_up(others).ok
    try:
        for name in ("nid00413", "10.128.1.158"):
            done = pair.nodes[412].inside(f"/opt/udi/bin/ssh -y {name} id")
            assert (done.returncode, done.stdout) == (1, "")
            assert "not a node of this job" in done.stderr
        forced = pair.nodes[412].inside("/opt/udi/bin/ssh -y -y nid00413 id")
        assert (forced.returncode, forced.stdout) == (1, "")
    finally:
        assert pair.nodes[412].tear_down().ok
        assert pair.nodes[413].tear_down("77.sdb").ok


def test_an_image_that_tries_to_have_a_say(pair: Pair, pictures: dict[int, NodePicture]) -> None:
    """Files by which an image could change a login: libraries, name services, shells, keys, banners, ssh's own."""
    tree = pair.rig.directory / "hostile"
    make_tree(tree)
    for name, text in (
        ("ld.so.preload", "/usr/lib/evil.so\n"),
        ("ld-musl-x86_64.path", "/usr/lib/evil\n"),
        ("shells", "/bin/false\n"),
        ("environment", "LD_PRELOAD=/usr/lib/evil.so\n"),
        ("shadow", "alice::19000:0:99999:7:::\nroot::19000:0:99999:7:::\n"),
        ("motd", "hello\n"),
        ("nologin", "no\n"),
    ):
        (tree / "etc" / name).write_text(text)
    for directory in ("dropbear", "ssh"):
        (tree / "etc" / directory).mkdir()
        (tree / "etc" / directory / "authorized_keys").write_text(public_key(pair.keys().user) + "\n")
    (tree / "opt/udi/etc").mkdir(parents=True)
    (tree / "opt/udi/etc/authorized_keys").write_text(public_key(pair.keys().user) + "\n")
    pair.rig.make_image("squashfs", "77" * 32, tree)
    pair.set_up(pair.plan(pair.keys(), id="77" * 32))
    done = pair.ssh("id -un")
    assert (done.stdout, done.stderr) == ("alice\n", "")
    assert "no such" not in pair.ssh("grep -c . /opt/udi/etc/authorized_keys").stdout
    assert pair.ssh("grep -c . /opt/udi/etc/authorized_keys").stdout == "1\n"
    pair.tear_down()
    assert pair.differences(pictures) == []


def test_a_user_whose_shell_the_image_lacks(pair: Pair) -> None:
    user = PlanUser("alice", ALICE.uid, ALICE.gid, ALICE.groups, "/home/alice", "/bin/tcsh")
    pair.set_up(pair.plan(pair.keys(), user=user))
    done = pair.ssh("'echo $SHELL'")
    pair.tear_down()
    assert (done.stdout, done.stderr) == ("/bin/sh\n", "")


def test_root_gets_none(pair: Pair) -> None:
    root = PlanUser("root", 0, 0, (0,), "/root", "/bin/sh")
    report = pair.nodes[412].set_up(pair.plan(pair.keys(), user=root))
    assert report.code == 7
    assert "uid 0 is not that of a user" in report.words
    assert pair.nodes[412].check() == (0, "udi: clean")


def _openssh(pair: Pair, options: str, name: str) -> tuple[int, str]:
    """Exit code and last words of Debian's own client, in the network of the first node, on its way to the second."""
    network = f"/proc/{pair.nodes[412].node.pid}/ns/net"

    def enter() -> None:
        with open(network) as namespace:
            kernel.setns(namespace.fileno())

    common = "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=5"
    words = f"/usr/bin/ssh {common} {options} -p {PORT} {name}@10.128.1.158 id"
    done = subprocess.run(words.split(), capture_output=True, text=True, preexec_fn=enter, timeout=60)
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1]
