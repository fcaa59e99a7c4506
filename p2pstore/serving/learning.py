"""What prefill and decode cost, learnt from what happens while requests are served. Pure.

What is refused teaches nothing: were it refused because of costs that are wrong, or are not so any more, it would be
for ever. So while requests are refused and none comes through, the belief is halved from time to time, until one is let
in and shows how it is. A time in which nobody asks says nothing: each halving takes another refusal.
"""

from __future__ import annotations

from p2pstore.serving.costs import Costs
from p2pstore.serving.events import Reason
from p2pstore.serving.fit import DecodeFit, PrefillFit
from p2pstore.serving.instances import Instance, Tracked

HALVE_SECONDS = 10.0
"""Without a prefill, or without a token, while requests are refused for what they are believed to take."""


class LearntCosts:
    """Of all instances together: they are taken to be alike."""

    def __init__(self, guess: Costs) -> None:
        self.prefill = PrefillFit(guess.prefill)
        self.decode = DecodeFit(guess.decode)
        self._fits: dict[Reason, PrefillFit | DecodeFit] = {Reason.TTFT: self.prefill, Reason.TBT: self.decode}
        self._since: dict[Reason, float] = {}
        """Since when requests are refused for a reason, and nothing shows whether that is right."""

    def computed(self, tracked: Tracked, took: float | None) -> None:
        """A prompt was computed, in so many seconds where that is known."""
        if self._since:
            self._since.pop(Reason.TTFT, None)
        if took is not None and took > 0:
            self.prefill.observe(tracked.length, tracked.reused, took)

    def decoded(self, tracked: Tracked, instance: Instance, now: float, *, held: bool) -> None:
        """A token came; ``held`` as in the event."""
        if self._since:
            self._since.pop(Reason.TBT, None)
        paced = tracked.paced(now, instance, held=held)
        if paced is not None:
            self.decode.observe(*paced)

    def refused(self, reason: Reason, now: float) -> None:
        """A request was refused."""
        if reason in self._fits:
            self._since.setdefault(reason, now)

    def tick(self, now: float) -> None:
        """Time went on."""
        for reason, since in list(self._since.items()):
            if now - since >= HALVE_SECONDS:
                self._fits[reason].halve()
                del self._since[reason]  # until the next refusal: else one would make all costs 0 in a quiet night
