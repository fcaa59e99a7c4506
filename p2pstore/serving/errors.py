"""The serving side's part of the error tree, which ``p2pstore.errors`` draws without it.

::

    MooncakeError                     1   (engine) a defect of ours
    └── Refused                       7   (engine) somebody said no (base class)
        └── ListenRefused             7   an open address without a secret
            └── ProxyUnguarded        7   the same of a proxy, which lets everybody in
"""

from __future__ import annotations

from p2pstore.errors import ListenRefused


class ProxyUnguarded(ListenRefused):
    """An address that others can reach, for a proxy: whether a client may ask is left to the engines behind it."""

    sentence = "refusing to serve on {address}: whoever reaches it can use the instances behind it"
    advice = "listen on loopback, or say --insecure where the instances check keys, or on a network that you trust"
