"""The table of commands, and the command made from it."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import typer

from engine._version import __version__
from mooncake_cli.framework import Lazy, group
from mooncake_cli.invocation import Invocation

HELP = "Share large objects between machines, peer to peer: register on one node, get on others, verified."

EXAMPLES = (
    "mooncake register ./llama-3 --name models/llama-3    # on the node that has it",
    "mooncake get models/llama-3 /data/llama-3            # on every node that wants it",
    "mooncake info models/llama-3                         # who holds how much",
)

COMMANDS = {
    "register": Lazy(
        "Publish a file or directory under a name, or several.", "mooncake_cli.commands.register:register"
    ),
    "get": Lazy("Bring an object to this machine, verified.", "mooncake_cli.commands.get:get"),
    "jobs": Lazy(
        "Gets in the background: without a command, list them.",
        commands={
            "list": Lazy("List the gets in the background.", "mooncake_cli.commands.jobs:list_jobs"),
            "show": Lazy("Show one job: how far it is, or how it ended.", "mooncake_cli.commands.jobs:show"),
            "wait": Lazy("Wait for a job's end, and end as its get does.", "mooncake_cli.commands.jobs:wait"),
            "cancel": Lazy("End a job.", "mooncake_cli.commands.jobs:cancel"),
        },
        default="list",
    ),
    "list": Lazy("List the objects that there are.", "mooncake_cli.commands.list:list_objects"),
    "info": Lazy("Show an object's files, and who holds how much.", "mooncake_cli.commands.info:info"),
    "verify": Lazy("Hash again what this node holds.", "mooncake_cli.commands.verify:verify"),
    "unregister": Lazy("Withdraw what this node holds of an object.", "mooncake_cli.commands.unregister:unregister"),
    "history": Lazy("Show the versions of an object, and who holds each.", "mooncake_cli.commands.history:history"),
    "watch": Lazy("Print a line for each new version of an object, until Ctrl-C.", "mooncake_cli.commands.watch:watch"),
    "tag": Lazy("Give versions of an object names of their own, or list these.", "mooncake_cli.commands.tag:tag"),
    "cache": Lazy(
        "See and clear what lies on this node.",
        commands={
            "list": Lazy("List the copies that lie on this node.", "mooncake_cli.commands.cache:list_copies"),
            "du": Lazy("Show how much the copies take, and the quota.", "mooncake_cli.commands.cache:du"),
            "pin": Lazy("Let copies stay, whatever is cleared away.", "mooncake_cli.commands.cache:pin"),
            "unpin": Lazy("Let copies go when room is wanted.", "mooncake_cli.commands.cache:unpin"),
            "prune": Lazy("Delete replicas that lie on this node.", "mooncake_cli.commands.cache_prune:prune"),
        },
    ),
    "node": Lazy(
        "Run, start and stop this node's agent.",
        commands={
            "run": Lazy("Run the agent in the foreground.", "mooncake_cli.commands.node:run"),
            "start": Lazy("Start the agent in the background.", "mooncake_cli.commands.node:start"),
            "stop": Lazy("End the agent.", "mooncake_cli.commands.node:stop"),
            "limit": Lazy("Limit what the running agent sends and receives.", "mooncake_cli.commands.node:limit"),
            "status": Lazy("Show what the agent is and does.", "mooncake_cli.commands.node:status"),
            "logs": Lazy("Show the log of the background agent.", "mooncake_cli.commands.node:logs"),
        },
    ),
    "top": Lazy("Show what this node moves, until q or Ctrl-C.", "mooncake_cli.commands.top:top"),
    "config": Lazy(
        "Look at the settings.",
        commands={"show": Lazy("Show every setting.", "mooncake_cli.commands.config:show")},
    ),
    "doctor": Lazy("Look for what is wrong with this node, and say what to do.", "mooncake_cli.commands.doctor:doctor"),
    "topology": Lazy("Show network cards, RDMA devices and GPUs.", "mooncake_cli.commands.topology:topology"),
    "metadata": Lazy(
        "Serve the segment metadata of a Mooncake deployment.",
        commands={
            "serve": Lazy(
                "Serve segment metadata over HTTP, in place of Mooncake's own metadata server.",
                "mooncake_cli.commands.metadata:serve",
            )
        },
    ),
    "bench": Lazy(
        "Measure what this machine and its engine do.",
        commands={
            "transfer": Lazy("Measure the transfer engine.", "mooncake_cli.commands.bench_transfer:transfer"),
            "store": Lazy(
                "Measure how fast a pooled store puts, gets and looks up.", "mooncake_cli.commands.bench_store:store"
            ),
            "broadcast": Lazy(
                "Measure a broadcast by real agents on this machine.",
                "mooncake_cli.commands.bench_broadcast:broadcast",
            ),
            "gpu": Lazy(
                "Measure how fast tensors come to one GPU and to several.", "mooncake_cli.commands.bench_gpu:gpu"
            ),
            "delta": Lazy(
                "Measure what a new version of a checkpoint costs, beside a full get.",
                "mooncake_cli.commands.bench_delta:delta",
            ),
            "simulate": Lazy(
                "Simulate a broadcast to up to thousands of nodes.", "mooncake_cli.commands.bench_simulate:simulate"
            ),
            "serve": Lazy(
                "Simulate a serving cluster under a trace of requests.", "mooncake_cli.commands.bench_serve:serve"
            ),
        },
    ),
    "store": Lazy(
        "Put and get values by key (Mooncake Store).",
        commands={
            "master": Lazy(
                "Run the master of a pooled store in the foreground.", "mooncake_cli.commands.store_master:master"
            ),
            "give": Lazy(
                "Give memory of this machine to a pool, for as long as this runs.",
                "mooncake_cli.commands.store_give:give",
            ),
            "put": Lazy("Put a file under a key.", "mooncake_cli.commands.store_put:put"),
            "get": Lazy("Write a value to a file.", "mooncake_cli.commands.store_get:get"),
            "status": Lazy(
                "Show what the store's master has, and who calls it.", "mooncake_cli.commands.store_status:status"
            ),
            "list": Lazy("List the keys that there are.", "mooncake_cli.commands.store_list:list_keys"),
            "info": Lazy("Show one key, and where its value lies.", "mooncake_cli.commands.store_info:info"),
            "remove": Lazy(
                "Remove keys, and free what their values take.", "mooncake_cli.commands.store_remove:remove"
            ),
            "why": Lazy(
                "Say why a key cannot be read, why puts fail, or why the hit rate is 0.",
                "mooncake_cli.commands.store_why:why",
            ),
            "top": Lazy(
                "Show what the store's master is doing, a line for each interval.",
                "mooncake_cli.commands.store_top:top",
            ),
        },
    ),
    "proxy": Lazy("Serve OpenAI's API from prefill and decode instances of vLLM.", "mooncake_cli.commands.proxy:proxy"),
    "serve": Lazy(
        "Serve models on the pooled store.",
        commands={
            "init": Lazy(
                "Write what an engine is told of the pooled store, and print how to start it.",
                "mooncake_cli.commands.serve_init:init",
            )
        },
    ),
    "etcd": Lazy(
        "Look into the metadata server.",
        commands={
            "inspect": Lazy("Show what is in etcd, decoded.", "mooncake_cli.commands.etcd:inspect"),
            "gc": Lazy("Remove stale records.", "mooncake_cli.commands.etcd:gc"),
        },
    ),
}


def _version(ctx: typer.Context, value: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if value and isinstance(ctx.obj, Invocation):
        ctx.obj.output.line(f"mooncake {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options of the command as a whole."""


@functools.lru_cache(maxsize=1)
def root_command() -> Any:
    """The whole command line, its commands not imported yet."""
    return group(COMMANDS, name="mooncake", help_text=HELP, examples=EXAMPLES, callback=_root)
