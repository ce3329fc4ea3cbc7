"""Amounts of money as people write them ("12.50 CNY") and as we keep them (minor units of a currency)."""

import re

import msgspec

MINOR_MAX = 2**53 - 1  # the largest integer every JSON reader keeps exact

# Digits after the point (ISO 4217, list one), for the currencies of places where tills and vouchers meet. A
# currency that is missing here is refused rather than guessed: a wrong exponent is off by a factor of 100.
EXPONENTS = {
    **dict.fromkeys(("CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("AED", "ARS", "AUD", "BDT", "BGN", "BND", "BRL", "CAD", "CHF", "CNY", "COP", "CZK"), 2),
    **dict.fromkeys(("DKK", "EGP", "EUR", "GBP", "HKD", "HUF", "IDR", "ILS", "INR", "KES", "KHR", "KZT"), 2),
    **dict.fromkeys(("LAK", "LKR", "MAD", "MMK", "MNT", "MOP", "MXN", "MYR", "NGN", "NOK", "NPR", "NZD"), 2),
    **dict.fromkeys(("PEN", "PHP", "PKR", "PLN", "QAR", "RON", "RSD", "RUB", "SAR", "SEK", "SGD", "THB"), 2),
    **dict.fromkeys(("TRY", "TWD", "UAH", "USD", "UYU", "UZS", "ZAR"), 2),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}

_MONEY = re.compile(r"(\d{1,16})(?:\.(\d{1,4}))? ([A-Z]{3})", re.ASCII)


class Money(msgspec.Struct, frozen=True):
    """`minor` units of the ISO 4217 `currency`: 1250 CNY is twelve yuan fifty."""

    minor: int
    currency: str


def parse_money(text: str) -> Money | str:
    """The amount in `"12.50 CNY"`, or why there is none. Never rounds."""
    found = _MONEY.fullmatch(text)
    if found is None:
        return 'an amount is written like "12.50 CNY": digits, a point, and the three letters of the currency'
    whole, fraction, currency = found[1], found[2] or "", found[3]
    exponent = EXPONENTS.get(currency)
    if exponent is None:
        return f"currency {currency} is not known here"
    if len(fraction) > exponent:
        return f"{currency} has {exponent} digits after the point, not {len(fraction)}"
    minor = int(whole + fraction.ljust(exponent, "0"))
    return Money(minor, currency) if minor <= MINOR_MAX else f"the amount is above {MINOR_MAX} minor units"


def money_text(minor: int, currency: str) -> str:
    """`"12.50 CNY"` for 1250 and CNY, as `parse_money` reads it. The currency must be one of `EXPONENTS`."""
    exponent = EXPONENTS[currency]
    digits = f"{minor:0{exponent + 1}d}"
    split = len(digits) - exponent
    return f"{digits[:split]}{'.' if exponent else ''}{digits[split:]} {currency}"
