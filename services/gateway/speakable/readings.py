"""How a number with what stands around it is read aloud: money, shares, clocks, dates, units, ranges. Pure; English and
Chinese. A reading is None where the text had better be left to the model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.gateway.speakable import numbers

_PLAIN = re.compile(r"(\d{1,3}(?:,\d{3})+|\d+)(?:\.(\d+))?\Z")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\Z")
_DATE = re.compile(r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})\Z")
_RANGE = re.compile(r"(\d{1,4})[-–](\d{1,4})\Z")
_FRACTION = re.compile(r"(\d{1,3})/(\d{1,3})\Z")
_DOTTED = re.compile(r"\d+(?:\.\d+){2,}\Z")
_MONTH_NAMES = "January February March April May June July August September October November December"
_MONTHS = _MONTH_NAMES.split()
_MONEY = {"$": ("dollar", "cent", "美元"), "€": ("euro", "cent", "欧元"), "£": ("pound", "", "英镑")}
_MONEY |= {"¥": ("yuan", "", "元"), "￥": ("yuan", "", "元")}
SCALES = {"thousand": "千", "million": "百万", "billion": "十亿", "trillion": "万亿"}
UNITS = {
    "%": ("percent", "percent", ""),
    "‰": ("per mille", "per mille", ""),
    "°": ("degree", "degrees", "度"),
    "°C": ("degree Celsius", "degrees Celsius", "摄氏度"),
    "℃": ("degree Celsius", "degrees Celsius", "摄氏度"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit", "华氏度"),
    "km": ("kilometer", "kilometers", "公里"),
    "m": ("meter", "meters", "米"),
    "cm": ("centimeter", "centimeters", "厘米"),
    "mm": ("millimeter", "millimeters", "毫米"),
    "km/h": ("kilometer per hour", "kilometers per hour", "公里每小时"),
    "m/s": ("meter per second", "meters per second", "米每秒"),
    "mph": ("mile per hour", "miles per hour", "英里每小时"),
    "kg": ("kilogram", "kilograms", "公斤"),
    "g": ("gram", "grams", "克"),
    "mg": ("milligram", "milligrams", "毫克"),
    "lb": ("pound", "pounds", "磅"),
    "lbs": ("pound", "pounds", "磅"),
    "oz": ("ounce", "ounces", "盎司"),
    "ft": ("foot", "feet", "英尺"),
    "ml": ("milliliter", "milliliters", "毫升"),
    "mL": ("milliliter", "milliliters", "毫升"),
    "L": ("liter", "liters", "升"),
    "h": ("hour", "hours", "小时"),
    "min": ("minute", "minutes", "分钟"),
    "s": ("second", "seconds", "秒"),
    "ms": ("millisecond", "milliseconds", "毫秒"),
    "KB": ("kilobyte", "kilobytes", "KB"),
    "MB": ("megabyte", "megabytes", "MB"),
    "GB": ("gigabyte", "gigabytes", "GB"),
    "TB": ("terabyte", "terabytes", "TB"),
    "Hz": ("hertz", "hertz", "赫兹"),
    "kHz": ("kilohertz", "kilohertz", "千赫"),
    "MHz": ("megahertz", "megahertz", "兆赫"),
    "GHz": ("gigahertz", "gigahertz", "吉赫"),
    "W": ("watt", "watts", "瓦"),
    "kW": ("kilowatt", "kilowatts", "千瓦"),
    "kWh": ("kilowatt hour", "kilowatt hours", "千瓦时"),
    "V": ("volt", "volts", "伏"),
    "m²": ("square meter", "square meters", "平方米"),
    "km²": ("square kilometer", "square kilometers", "平方公里"),
}
HALVES = {"am": "A M", "AM": "A M", "a.m.": "A M", "pm": "P M", "PM": "P M", "p.m.": "P M"}
SUFFIXES = frozenset({"st", "nd", "rd", "th"})
ENDINGS = (*UNITS, *HALVES, *SUFFIXES, *SCALES)
"""What may belong to the number before it."""
_TWO_OF = re.compile(r"[个位只本张条次件天年间家辆台份种杯瓶块双岁口页层]")


@dataclass(frozen=True)
class Spelled:
    """A number as it is written: `sign` and `money` before it, `ending` behind it, and what comes then."""

    body: str
    sign: str = ""
    money: str = ""
    ending: str = ""
    behind: str = ""
    chinese: bool = False
    everything: bool = False  # plain numbers too


def reading(spelled: Spelled) -> str | None:
    """The words for it, its ending included; None: as it stands."""
    words = _chinese(spelled) if spelled.chinese else _english(spelled)
    if words is None or not spelled.sign:
        return words
    return f"负{words}" if spelled.chinese else f"minus {words}"


def _english(it: Spelled) -> str | None:
    if it.money:
        return _money(it)
    if (clock := _CLOCK.match(it.body)) is not None:
        return _english_clock(clock, it.ending)
    if (date := _DATE.match(it.body)) is not None and _is_date(date):
        return f"{_MONTHS[int(date[2]) - 1]} {numbers.ordinal(str(int(date[3])))}, {numbers.year(date[1])}"
    plain = _PLAIN.match(it.body)
    if it.ending in SUFFIXES:
        return None if plain is None or plain[2] else numbers.ordinal(plain[1].replace(",", ""))
    if plain is not None and it.ending in HALVES:
        return f"{numbers.decimal(_whole(plain), plain[2] or '')} {HALVES[it.ending]}"
    if plain is not None and it.ending in UNITS:
        one, many, _ = UNITS[it.ending]
        return f"{numbers.decimal(_whole(plain), plain[2] or '')} {one if it.body == '1' else many}"
    if (span := _RANGE.match(it.body)) is not None and it.ending in UNITS:
        return f"{numbers.cardinal(span[1])} to {numbers.cardinal(span[2])} {UNITS[it.ending][1]}"
    return _bare_english(it, plain) if it.everything or it.sign else None


def _bare_english(it: Spelled, plain: re.Match[str] | None) -> str | None:
    if it.ending:
        return None
    if plain is not None:
        is_year = len(it.body) == 4 and "1100" <= it.body <= "2099" and it.body.isdigit() and not it.sign
        return numbers.year(it.body) if is_year else numbers.decimal(_whole(plain), plain[2] or "")
    if (span := _RANGE.match(it.body)) is not None and min(len(span[1]), len(span[2])) < 3:
        return f"{numbers.cardinal(span[1])} to {numbers.cardinal(span[2])}"
    if (fraction := _FRACTION.match(it.body)) is not None:
        named = {"2": "half", "4": "quarter"}.get(fraction[2])
        if named is not None and fraction[1] == "1":
            return f"one {named}"
        return f"{numbers.cardinal(fraction[1])} over {numbers.cardinal(fraction[2])}"
    if _DOTTED.match(it.body):
        return " point ".join(map(numbers.cardinal, it.body.split(".")))
    return None


def _english_clock(clock: re.Match[str], half: str) -> str | None:
    if not _is_clock(clock) or (half and half not in HALVES):
        return None
    hour, minute = numbers.cardinal(str(int(clock[1]))), int(clock[2])
    after = f" {HALVES[half]}" if half else ""
    if minute == 0:
        return hour + (after or " o'clock")
    return f"{hour} {'oh ' if minute < 10 else ''}{numbers.cardinal(str(minute))}{after}"


def _money(it: Spelled) -> str | None:
    plain = _PLAIN.match(it.body)
    if plain is None or (it.ending and it.ending not in SCALES):
        return None
    one, cent, han = _MONEY[it.money]
    whole, fraction = _whole(plain), plain[2] or ""
    if it.chinese:
        return numbers.han_decimal(whole, fraction) + SCALES.get(it.ending, "") + han
    many = one if one == "yuan" else f"{one}s"
    if it.ending:
        return f"{numbers.decimal(whole, fraction)} {it.ending} {many}"
    if len(fraction) == 2 and cent:
        words = f"{numbers.cardinal(whole)} {one if whole == '1' else many}"
        cents = int(fraction)
        return f"{words} and {numbers.cardinal(str(cents))} {cent if cents == 1 else f'{cent}s'}" if cents else words
    return f"{numbers.decimal(whole, fraction)} {one if it.body == '1' else many}"


def _chinese(it: Spelled) -> str | None:
    if it.money:
        return _money(it)
    if (clock := _CLOCK.match(it.body)) is not None:
        if not _is_clock(clock) or it.ending:
            return None
        minute = f"{numbers.han_cardinal(str(int(clock[2])))}分" if int(clock[2]) else ""
        return f"{_han_count(str(int(clock[1])), '点')}点{minute}"
    if (date := _DATE.match(it.body)) is not None and _is_date(date):
        month, day = (numbers.han_cardinal(str(int(part))) for part in (date[2], date[3]))
        return f"{numbers.han_digits(date[1])}年{month}月{day}日"
    plain, span = _PLAIN.match(it.body), _RANGE.match(it.body)
    if plain is not None and it.ending in ("%", "‰"):
        share = "百" if it.ending == "%" else "千"
        return f"{share}分之{numbers.han_decimal(_whole(plain), plain[2] or '')}"
    if plain is not None and it.ending in UNITS:
        return numbers.han_decimal(_whole(plain), plain[2] or "") + UNITS[it.ending][2]
    if span is not None and it.ending in UNITS and it.ending not in ("%", "‰"):
        return f"{numbers.han_cardinal(span[1])}到{numbers.han_cardinal(span[2])}{UNITS[it.ending][2]}"
    if it.ending or not (it.everything or it.sign):
        return None
    if plain is not None:
        if len(it.body) == 4 and it.behind == "年":
            return numbers.han_digits(it.body)
        return numbers.han_decimal(_whole(plain), plain[2]) if plain[2] else _han_count(_whole(plain), it.behind)
    return None if span is None else f"{numbers.han_cardinal(span[1])}到{numbers.han_cardinal(span[2])}"


def _han_count(text: str, behind: str) -> str:
    """Of two of something Chinese says 两."""
    return "两" if text == "2" and (behind == "点" or _TWO_OF.match(behind)) else numbers.han_cardinal(text)


def _whole(plain: re.Match[str]) -> str:
    return plain[1].replace(",", "")


def _is_clock(clock: re.Match[str]) -> bool:
    return int(clock[1]) < 25 and int(clock[2]) < 60 and clock[3] is None


def _is_date(date: re.Match[str]) -> bool:
    return 1 <= int(date[2]) <= 12 and 1 <= int(date[3]) <= 31 and date[1][0] in "12"
