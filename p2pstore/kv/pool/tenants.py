"""Whose the keys are, and how much memory each of those may take."""

from __future__ import annotations

from collections.abc import Iterator

from engine.rpc.codes import Code
from engine.rpc.messages import DEFAULT_TENANT
from p2pstore.kv.pool.entries import Entry, Tenant, TenantUse
from p2pstore.kv.pool.extents import rounded
from p2pstore.kv.pool.settings import PoolSettings

MAX_TENANTS = 100_000
"""Tenants that have keys; a caller could name a new one in each call."""

MAX_QUOTA = (1 << 63) - 1
"""Bytes of a tenant's quota, as upstream bounds it."""

MAX_QUOTAS = 10_000
"""Tenants whose quota is set while the pool runs."""


class Tenants(dict[str, Tenant]):
    """Those that ever put anything, by name, and the quotas of all."""

    def __init__(self, settings: PoolSettings) -> None:
        super().__init__()
        self._settings = settings
        self.quotas_set: dict[str, int] = {}
        """Quotas that were set while a pool ran; they hold before those of the settings. 0: one of those taken away."""

    def named(self, name: str) -> Tenant | None:
        """The one with that name, if it ever put anything."""
        return self.get(name if self._settings.tenants else DEFAULT_TENANT)

    def entry(self, name: str, key: str) -> Entry | None:
        """What a tenant has under a key, whether it can be read or not."""
        space = self.named(name)
        return space.keys.get(key) if space else None

    def for_put(self, name: str) -> Tenant | None:
        """The same, made where it is new; None where there are too many."""
        name = name if self._settings.tenants else DEFAULT_TENANT
        found = self.get(name)
        if found is None and len(self) < MAX_TENANTS:
            found = self[name] = Tenant(name, self._quota_of(name))
        return found

    def _quota_of(self, name: str) -> int:
        settings = self._settings
        return self.quotas_set.get(name, settings.tenant_quotas.get(name, 0)) if settings.tenants else 0

    @property
    def quotas(self) -> dict[str, int]:
        """Bytes that tenants may have, of those that have a quota."""
        both = {**self._settings.tenant_quotas, **self.quotas_set}
        return {name: size for name, size in both.items() if size}

    def may_have(self, name: str, size: int) -> Code:
        """Whether a tenant can be given such a quota, in bytes; 0 takes it away."""
        if not self._settings.tenants:
            return Code.BAD_MODE
        if not name or not 0 <= size <= MAX_QUOTA:
            return Code.BAD_PARAMS
        if not size and name not in self.quotas:
            return Code.NOT_FOUND
        if size and name not in self.quotas_set and len(self.quotas_set) >= MAX_QUOTAS:
            return Code.QUOTA
        return Code.OK

    def set_quota(self, name: str, size: int) -> None:
        """Give a tenant a quota of its own; 0 takes it away. What it has beyond goes as it puts more."""
        self.keep_quota(name, size)
        tenant = self.get(name)
        if tenant is not None:
            tenant.quota = size

    def keep_quota(self, name: str, size: int) -> None:
        """Have a quota that was set; one that was taken away only where the settings have another."""
        if size or name in self._settings.tenant_quotas:
            self.quotas_set[name] = size
        else:
            self.quotas_set.pop(name, None)

    def use(self, name: str) -> TenantUse | None:
        """What one takes, and may take; None where it has no quota and never put anything."""
        quota, tenant = self._quota_of(name), self.get(name)
        if not quota and tenant is None:
            return None
        return TenantUse(name, quota or None, tenant.used if tenant is not None else 0)

    def uses(self) -> Iterator[TenantUse]:
        """The same of each, as each is when it is asked for: they may be many."""
        for name in dict.fromkeys([*self.quotas, *self]):
            found = self.use(name)
            if found is not None:
                yield found


def room_in(tenant: Tenant, size: int) -> bool:
    """Whether the tenant's quota allows so many more bytes."""
    return not tenant.quota or tenant.used + rounded(size) <= tenant.quota
