"""What a plan holds about the private sshd: one line, complete or absent."""

from udiroot.errors import SetupFailed


class PlanSsh:
    """The job's sshd on each of its nodes.

    `programs` is the directory of its programs as the node sees it; it listens on `port` of the node's address in the
    plan. Both keys are made for the job, in base64 of the programs' own format: the user's, and the host key of all
    its nodes.
    """

    __slots__ = ("host_key", "port", "programs", "user_key")

    def __init__(self, programs: str, port: int, user_key: str, host_key: str) -> None:
        self.programs, self.port, self.user_key, self.host_key = programs, port, user_key, host_key

    def row(self) -> "tuple[object, ...]":
        """The fields of the plan's line."""
        return ("ssh", self.programs, self.port, self.user_key, self.host_key)

    @classmethod
    def of_row(cls, row: "list[str]") -> "PlanSsh":
        """Raises ValueError and SetupFailed for fields that `row` does not write."""
        port = int(row[1])
        if not 1024 <= port <= 65535:
            raise SetupFailed(f"plan: ssh port {port} is not between 1024 and 65535")
        return cls(row[0], port, row[2], row[3])
