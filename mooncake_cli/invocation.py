"""What the global options said, and what follows from them for every command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mooncake_cli.output import Mode, Output
    from p2pstore.agent.client import AgentClient
    from p2pstore.agent.home import Home
    from p2pstore.settings.settings import Settings


@dataclass
class Invocation:
    """One run of the command; ``ctx.obj`` of all its contexts.

    Nothing heavy is imported before a command asks for it: ``--help`` and completion pass through here too.
    """

    arguments: list[str] = field(default_factory=list)
    """The command line, without the command's own name."""
    home: str | None = None
    metadata: str | None = None
    config: str | None = None
    quiet: bool = False
    verbose: bool = False
    json: bool = False
    _told: set[str] = field(default_factory=set, repr=False)
    _output: Output | None = field(default=None, repr=False)

    @property
    def output(self) -> Output:
        """The sink of this run; ``--json`` wins over ``--quiet``."""
        from mooncake_cli.output import Output  # noqa: PLC0415 - see the class

        said = ("json" if self.json else "quiet" if self.quiet else "human", self.verbose, self.home)
        if self._output is None or (self._output.mode, self._output.verbose, self._output.home) != said:
            mode: Mode = "json" if self.json else "quiet" if self.quiet else "human"
            self._output = Output(mode, verbose=self.verbose, home=self.home)
        return self._output

    def settings(self, **flags: object) -> Settings:
        """The settings, with the global options and ``flags`` on top. Raises ``BadConfig``."""
        from p2pstore.errors import UsageError  # noqa: PLC0415 - see the class
        from p2pstore.settings.settings import Settings  # noqa: PLC0415 - as above

        if self.config == "":
            raise UsageError(detail="--config: it is empty")
        given = {"home": self.home, "metadata": self.metadata, **flags}
        settings = Settings.load(given, config=None if self.config is None else Path(self.config))
        self._tell_of_ignored(settings)
        return settings

    def _tell_of_ignored(self, settings: Settings) -> None:
        """Say, once, what of the configuration is not obeyed: somebody else may have meant us to obey it."""
        from mooncake_cli.text import printable  # noqa: PLC0415 - see the class

        for what, why in settings.ignored:
            if what not in self._told:
                self._told.add(what)
                self.output.warning(printable(f"{what} is ignored: {why}"))

    def find_home(self, settings: Settings | None = None) -> Home:
        """The home of the agent to talk to."""
        from p2pstore.agent.home import Home  # noqa: PLC0415 - see the class

        return Home.resolve((settings or self.settings()).home)

    def client(self) -> AgentClient:
        """A client of the agent that runs; starts none."""
        from p2pstore.agent.client import AgentClient  # noqa: PLC0415 - see the class

        client = AgentClient(self.find_home())
        self._check_metadata(client)
        return client

    def client_of_started(self, settings: Settings) -> AgentClient:
        """A client of the agent, which is started in the background when none runs; a message then says so."""
        from p2pstore.agent.client import AgentClient  # noqa: PLC0415 - see the class
        from p2pstore.agent.connection import last_end  # noqa: PLC0415 - see the class

        home = self.find_home(settings)
        client = AgentClient(home)
        if client.answers():
            self._check_metadata(client)
            return client
        from p2pstore.agent.launch import ensure_agent  # noqa: PLC0415 - mostly, one runs

        ended = last_end(home)
        if ensure_agent(home, settings, verbose=self.verbose):
            if ended is not None:
                self.output.message(str(ended))
            self.output.message("started an agent in the background; 'mooncake node stop' ends it")
            self.warn_of(client.status())
        else:  # by another command, meanwhile
            self._check_metadata(client)
        return client

    def warn_of(self, status: Mapping[str, Any]) -> None:
        """Tell why others may not reach the agent that was started, as its ``status`` has it."""
        from mooncake_cli.text import printable  # noqa: PLC0415 - see the class

        for text in status.get("warnings", []):
            self.output.message(printable(f"warning: {text}"))

    def _check_metadata(self, client: AgentClient) -> None:
        """Raise ``OtherMetadata`` when ``--metadata`` names another server than the one that the agent uses."""
        if self.metadata is None:
            return
        from p2pstore.errors import OtherMetadata  # noqa: PLC0415 - see the class
        from p2pstore.metadata.urls import parse_url  # noqa: PLC0415 - see the class

        theirs = str(client.status()["metadata"])
        if parse_url(theirs) != parse_url(self.metadata):
            raise OtherMetadata(home=client.home.root, theirs=theirs, asked=self.metadata)
