"""Makes the jobs of job nodes and of approvals."""

from __future__ import annotations

from collections.abc import Mapping

from spincycle_grpc.v1.approval_pb2 import Approval
from spincycle_server.capabilities import APPROVAL as APPROVAL_FEATURE
from spincycle_server.graph.chain_writer import ChainWriter
from spincycle_server.graph.job_creator import JobCreator
from spincycle_server.graph.path_labels import shown_value
from spincycle_server.graph.plan import NodePlan
from spincycle_server.graph.scope import Scope
from spincycle_server.specs.approval import APPROVAL, MAX_MESSAGE, MAX_SHOWN_VALUE, filled_message


class JobMaker:
    """Makes the jobs of one chain.

    Args:
        writer: Writes the jobs into the chain.
        creator: Creates the jobs.
    """

    def __init__(self, writer: ChainWriter, creator: JobCreator) -> None:
        self._writer = writer
        self._creator = creator

    def make(self, node: NodePlan, scope: Scope, args: dict[str, object]) -> str:
        """Makes a job, adds it to the chain, copies the args that it sets to the scope, and returns its id.

        The errors are those of `JobCreator.create`.
        """
        job_id = self._writer.job_id()
        self._creator.create(node, scope, args, self._writer.job_of(node, job_id, scope))
        return job_id

    def make_approval(self, node: NodePlan, what: Approval, scope: Scope, args: Mapping[str, object]) -> str:
        """Adds the job of an approval to the chain, with its message, and returns its id.

        Runs no user's code.

        Raises:
            InvalidArgumentError: The message with its args is too long. Reason: APPROVAL_MESSAGE_TOO_LONG.
        """
        text = filled_message(what.message, lambda name: shown_value(args[name], MAX_SHOWN_VALUE))
        if len(text) > MAX_MESSAGE:
            raise scope.path.bad_arg(
                f"the message of the approval has {len(text)} characters with its args, but at most "
                f"{MAX_MESSAGE} are allowed: pass shorter args, or name fewer args in the message",
                "APPROVAL_MESSAGE_TOO_LONG",
                node.name,
            )
        self._writer.features.add(APPROVAL_FEATURE)
        job_id = self._writer.job_id()
        message = self._writer.job(job_id, node.name, APPROVAL, scope.sequence_id, scope.parent_sequence_id)
        message.approval.CopyFrom(what)
        message.approval.message = text
        return job_id

    def leave(self, scope: Scope) -> None:
        """Copies the args that a finished sequence sets to the scope around it. The errors: `Scope.leave`."""
        scope.leave()
