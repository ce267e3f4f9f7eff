"""What of a report has a form by which it is found: dates, telephones, labelled numbers, titled names."""

from __future__ import annotations

import re

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_MONTH = "(?:" + "|".join([*MONTHS, *(f"{month[:3]}" for month in MONTHS), "sept"]) + ")"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?:19|20)\d{2}"
_NAME = r"(?-i:[A-Z][a-zA-Z'’\-]+|[A-Z]\.)"
_LABELS = (
    r"MRN", r"medical record(?: number| no\.?)?", r"patient (?:id|number|no\.?)", r"accession(?: number| no\.?)?",
    r"acc(?:\.|#)", r"case (?:number|no\.?)", r"order (?:number|no\.?)", r"hospital (?:number|no\.?)",
    r"NHS(?: number| no\.?)?", r"SSN", r"social security(?: number)?", r"account(?: number)?",
    r"chart(?: number| no\.?)",
)  # fmt: skip
_TITLES = "Dr|Drs|Prof|Professor|Doctor|Mr|Mrs|Ms|Miss|Nurse|Sister"
_SIGNED = "signed|read|dictated|reported|verified|approved|transcribed|interpreted"
_STREETS = "street|st|avenue|ave|road|rd|lane|ln|drive|boulevard|blvd"

_PATTERNS: tuple[tuple[str, str], ...] = (
    ("EMAIL", r"[\w.+\-]+@[\w\-]+(?:\.[\w\-]+)+"),
    ("URL", r"\b(?:https?://|www\.)\S+"),
    (
        "ID",
        rf"\b(?:{'|'.join(_LABELS)})\s*(?:is|:|#|=)*\s*"
        r"(?P<value>[A-Z]{0,4}[- ]?\d[\w\-/]*(?: \d{3,4}){0,2})",
    ),
    ("ID", r"\b\d{3}-\d{2}-\d{4}\b"),
    ("DATE", rf"\b{_DAY}(?:st|nd|rd|th)?[\s-]+(?:of\s+)?{_MONTH}\b\.?,?(?:[\s-]+{_YEAR}\b)?"),
    ("DATE", rf"\b{_MONTH}\.?\s+{_DAY}(?:st|nd|rd|th)?,?\s+{_YEAR}\b"),
    ("DATE", rf"\b{_MONTH}\.?\s+{_YEAR}\b"),
    ("DATE", rf"\b{_YEAR}[-/.](?:0?[1-9]|1[0-2])[-/.]{_DAY}\b"),
    ("DATE", rf"\b{_DAY}[-/.]{_DAY}[-/.](?:{_YEAR}|\d{{2}})\b"),
    ("DATE", r"\b(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\b"),
    ("DATE", rf"\b(?:on|dated|since|from|of)\s+(?P<value>(?:0?[1-9]|1[0-2])/{_DAY})(?![/\d])"),
    (
        "PHONE",
        r"\b(?:tel|phone|telephone|fax|pager|mobile|call)\b\.?:?\s*(?:at\s+|number\s+|is\s+)*"
        r"(?P<value>\+?\(?\d[\d\-.() /]{2,}\d)",
    ),
    ("PHONE", r"\bext\.?:?\s*(?P<value>\d{3,6})\b"),
    ("PHONE", r"(?<![\w.])(?:\+\d{1,3}[\s\-]?)?\(?\d{3}\)?[\s\-.]\d{3}[\s\-.]\d{4}\b"),
    ("NAME", rf"\b(?:{_TITLES})\b\.?\s+(?P<value>{_NAME}(?:[\s\-]+{_NAME}){{0,3}})"),
    (
        "NAME",
        rf"\b(?:(?:{_SIGNED})(?: electronically)? by|referring physician|attending|radiologist|"
        rf"patient(?: name)?|name)\s*:\s*(?P<value>{_NAME}(?:,?[\s\-]+{_NAME}){{0,3}})",
    ),
    ("NAME", rf"\b(?P<value>{_NAME}(?:\s+{_NAME}){{1,2}}),?\s+(?-i:M\.?D\.?|MBBS|FRCR|PhD|R\.?N\.?)(?!\w)"),
    ("AGE", r"\b(?P<value>9\d|1[0-2]\d)(?=[\s-]*(?:years?|yrs?|y/?o|yo)\b)"),
    ("ADDRESS", rf"\b\d{{1,5}}\s+(?:(?-i:[A-Z])[\w'.]+\s+){{1,3}}(?:{_STREETS})\b\.?"),
    ("ADDRESS", r"\b(?-i:[A-Z]{2})\s+\d{5}(?:-\d{4})?\b"),
)
RULES = tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in _PATTERNS)
