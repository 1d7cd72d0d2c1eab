"""The columns of FOCUS 1.3's Cost and Usage dataset, and Manta's own columns behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["STRING", "NUMERIC", "TIMESTAMP", "DATE"]
#: M mandatory, C conditional, R recommended; ours are neither.
Level = Literal["M", "C", "R"]


@dataclass(frozen=True, slots=True)
class FocusColumn:
    """One column: BigQuery type, level, whether NULL is allowed, the version that brought it.

    `json` columns are STRING in files and hold one JSON object.
    """

    name: str
    kind: Kind
    level: Level
    nullable: bool
    since: str
    json: bool = False


def _columns(rows: str) -> tuple[FocusColumn, ...]:
    kinds: dict[str, Kind] = {"S": "STRING", "D": "NUMERIC", "T": "TIMESTAMP", "J": "STRING"}
    levels: dict[str, Level] = {"M": "M", "C": "C", "R": "R"}
    return tuple(
        FocusColumn(name, kinds[kind], levels[level], null == "N", since, kind == "J")
        for name, kind, level, null, since in (row.split() for row in rows.strip().splitlines())
    )


#: 57 columns of 1.2 and the 8 of 1.3 (ProviderName and PublisherName are deprecated there, not gone).
COLUMNS: Final = _columns("""
AllocatedMethodDetails J R N 1.3
AllocatedMethodId S C N 1.3
AllocatedResourceId S C N 1.3
AllocatedResourceName S C N 1.3
AllocatedTags J C N 1.3
AvailabilityZone S R N 0.5
BilledCost D M - 0.5
BillingAccountId S M - 0.5
BillingAccountName S M N 0.5
BillingAccountType S C - 1.2
BillingCurrency S M - 0.5
BillingPeriodEnd T M - 0.5
BillingPeriodStart T M - 0.5
CapacityReservationId S C N 1.1
CapacityReservationStatus S C N 1.1
ChargeCategory S M - 0.5
ChargeClass S M N 1.0
ChargeDescription S M N 1.0
ChargeFrequency S R - 1.0
ChargePeriodEnd T M - 0.5
ChargePeriodStart T M - 0.5
CommitmentDiscountCategory S C N 1.0
CommitmentDiscountId S C N 1.0
CommitmentDiscountName S C N 1.0
CommitmentDiscountQuantity D C N 1.1
CommitmentDiscountStatus S C N 1.0
CommitmentDiscountType S C N 1.0
CommitmentDiscountUnit S C N 1.1
ConsumedQuantity D C N 1.0
ConsumedUnit S C N 1.0
ContractApplied J C N 1.3
ContractedCost D M - 1.0
ContractedUnitPrice D C N 1.0
EffectiveCost D M - 0.5
HostProviderName S M N 1.3
InvoiceId S R N 1.2
InvoiceIssuerName S M - 0.5
ListCost D M - 1.0
ListUnitPrice D C N 1.0
PricingCategory S C N 1.0
PricingCurrency S C N 1.2
PricingCurrencyContractedUnitPrice D C N 1.2
PricingCurrencyEffectiveCost D C N 1.2
PricingCurrencyListUnitPrice D C N 1.2
PricingQuantity D M N 1.0
PricingUnit S M N 1.0
ProviderName S M - 0.5
PublisherName S M - 0.5
RegionId S C N 1.0
RegionName S C N 1.0
ResourceId S C N 0.5
ResourceName S C N 0.5
ResourceType S C N 1.0
ServiceCategory S M - 0.5
ServiceName S M - 0.5
ServiceProviderName S M - 1.3
ServiceSubcategory S R - 1.1
SkuId S C N 1.0
SkuMeter S C N 1.1
SkuPriceDetails J C N 1.1
SkuPriceId S C N 1.0
SubAccountId S C N 0.5
SubAccountName S C N 0.5
SubAccountType S C N 1.2
Tags J C N 1.0
""")

#: Manta's columns: name, type, whether NULL is allowed. Lineage (x_org_slug and so on) comes behind them.
CUSTOM: Final[tuple[tuple[str, Kind, bool], ...]] = (
    ("x_UsageDate", "DATE", False),
    ("x_ChargeId", "STRING", False),
    ("x_Source", "STRING", False),
    ("x_Model", "STRING", True),
    ("x_TokenKind", "STRING", True),
    ("x_ServiceTier", "STRING", True),
    ("x_ApiKeyId", "STRING", True),
    ("x_UserId", "STRING", True),
    ("x_PriceId", "STRING", True),
    ("x_CostType", "STRING", True),
    ("x_InvoiceMonth", "STRING", True),
    ("x_CreditType", "STRING", True),
    ("x_AdjustmentType", "STRING", True),
    ("x_TransactionType", "STRING", True),
    ("x_SubscriptionId", "STRING", True),
    ("x_TermStart", "DATE", True),
    ("x_TermEnd", "DATE", True),
    ("x_Derivation", "STRING", True),
    ("x_credential_id", "STRING", False),
)

NAMES: Final = tuple(column.name for column in COLUMNS)

ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    "CapacityReservationStatus": ("Used", "Unused"),
    "ChargeCategory": ("Usage", "Purchase", "Tax", "Credit", "Adjustment"),
    "ChargeClass": ("Correction",),
    "ChargeFrequency": ("One-Time", "Recurring", "Usage-Based"),
    "CommitmentDiscountCategory": ("Spend", "Usage"),
    "CommitmentDiscountStatus": ("Used", "Unused"),
    "PricingCategory": ("Standard", "Dynamic", "Committed", "Other"),
}
