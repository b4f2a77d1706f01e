"""What a plan says of the private sshd: one line, all of it or nothing."""

from udiroot.errors import SetupFailed, printable


class PlanSsh:
    """The job's sshd on each of its nodes.

    `programs` is the folder of its programs as the node sees it; it listens on `port` of the node's cluster address.
    Both keys are made for the job, in base64 of the programs' own format: the user's, and that of all its nodes.
    """

    __slots__ = ("first_address", "host_key", "port", "programs", "user_key")

    def __init__(self, programs: str, port: int, first_address: str, user_key: str, host_key: str) -> None:
        self.programs, self.port, self.first_address = programs, port, first_address
        self.user_key, self.host_key = user_key, host_key

    def row(self) -> "tuple[object, ...]":
        """The fields of the plan's line."""
        return ("ssh", self.programs, self.port, self.first_address, self.user_key, self.host_key)

    def address(self, nid: int) -> str:
        """The cluster address of a node."""
        return cluster_address(self.first_address, nid)

    @classmethod
    def of_row(cls, row: "list[str]") -> "PlanSsh":
        """Raises ValueError and SetupFailed for fields that `row` does not write."""
        port = int(row[1])
        if not 1024 <= port <= 65535:
            raise SetupFailed(f"plan: {port} is not a port that a user may listen on")
        made = cls(row[0], port, row[2], row[3], row[4])
        made.address(0)
        return made


def cluster_address(first: str, nid: int) -> str:
    """The address of node `nid`, where `first` is that of node 0 and the others follow. Raises SetupFailed."""
    parts = first.split(".")
    if len(parts) != 4 or not all(part.isdecimal() and part.isascii() and int(part) < 256 for part in parts):
        raise SetupFailed(f"plan: not an IPv4 address: {printable(first)}")
    number = int.from_bytes(bytes(map(int, parts)), "big") + nid
    if number >= 1 << 32:
        raise SetupFailed(f"plan: no address is left for nid {nid} after {first}")
    return ".".join(map(str, number.to_bytes(4, "big")))
