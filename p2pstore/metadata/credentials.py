"""Who we are to etcd; the class lives beside the client that uses it."""

from __future__ import annotations

from engine.etcd.credentials import EtcdCredentials

__all__ = ["EtcdCredentials"]
