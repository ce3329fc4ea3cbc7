"""What of the console is whose: screens and deeds by role, stores and campaigns by what a role is bound to. Pure."""

import msgspec

from gateway.campaign import Campaign
from gateway.directory import Directory
from gateway.roles import ROLES, Action, Bound, Principal, may

# Each screen, and what a role must be allowed for it: any one of these.
SCREENS = {
    "now": (Action.STORE_READ, Action.LOG_READ),
    "stores": (Action.STORE_READ,),
    "campaigns": (Action.CAMPAIGN_READ,),
    "vouchers": (Action.VOUCHER_READ, Action.REVERSE_ANY),
    "events": (Action.LOG_READ, Action.STORE_READ),
    "system": (Action.LOG_READ,),
    "load": (Action.LOG_READ,),
}
DEEDS = {"void": Action.VOUCHER_VOID, "reverse": Action.REVERSE_ANY}


def screens_of(principal: Principal) -> list[str]:
    """The screens a role has; none for tills and integrators, who have no use for a console."""
    actions = ROLES[principal.role].actions
    return [screen for screen, wanted in SCREENS.items() if not actions.isdisjoint(wanted)]


def deeds_of(principal: Principal) -> list[str]:
    """What a role may change from the console."""
    return [deed for deed, action in DEEDS.items() if action in ROLES[principal.role].actions]


class View(msgspec.Struct, frozen=True):
    """What somebody may see. Two askers of the same role and scope have equal views and are told the same bytes."""

    principal: Principal
    directory: Directory

    @property
    def key(self) -> tuple[str, str]:
        """Equal for equal views."""
        return self.principal.role, self.principal.scope

    @property
    def sees_all(self) -> bool:
        """Whether the role is bound to nothing."""
        return ROLES[self.principal.role].bound is Bound.NOTHING

    @property
    def reads_log(self) -> bool:
        """Whether troubles, latencies and control events are for this role."""
        return Action.LOG_READ in ROLES[self.principal.role].actions

    def sees_store(self, store: str) -> bool:
        """A merchant sees its own stores; a channel none."""
        if self.sees_all:
            return True
        found = self.directory.stores.get(store)
        return found is not None and self._is_merchant and found.merchant == self.principal.scope

    def sees_campaign(self, campaign: Campaign) -> bool:
        """A merchant sees those that may be redeemed at one of its stores, a channel its own."""
        merchant = self.principal.scope if self.principal.scope in self.directory.merchants_of(campaign) else None
        return may(self.principal, Action.CAMPAIGN_READ, merchant=merchant, channel=campaign.offer.channel)

    def sees_cell(self, store: str, campaign: int) -> bool:
        """Whether scans of this campaign (0: of no voucher) in this store are this role's to count."""
        if self.sees_all or self.sees_store(store):
            return True
        found = self.directory.campaigns.get(campaign)
        return found is not None and not self._is_merchant and self.sees_campaign(found)

    @property
    def counts_by_store(self) -> bool:
        """Whether a campaign's counts are those of the asker's own stores only."""
        return self._is_merchant

    def own_stores(self) -> list[str]:
        """The stores this role sees, by name."""
        return sorted(store for store in self.directory.stores if self.sees_store(store))

    @property
    def _is_merchant(self) -> bool:
        return ROLES[self.principal.role].bound is Bound.MERCHANT
