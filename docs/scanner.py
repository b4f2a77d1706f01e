#!/usr/bin/env python3
"""An example of a scanner for shifter-xc: it compares an image's packages with a feed of advisories, a JSON file.

    udi.toml:   [audit]
                command = ["/usr/bin/python3", "/opt/udi/etc/scanner.py", "/opt/udi/etc/feed.json"]
                feed = ["/opt/udi/etc/feed.json"]

The feed names, for each distribution (`ID` and `VERSION_ID` of os-release, or `ID` alone), advisories by source:

    {"version": "2026-11-20",
     "debian:12": [{"id": "CVE-2026-1", "package": "openssl", "fixed": "3.0.16-1~deb12u1", "severity": "critical",
                    "summary": "…", "url": "https://…"}]}

A package is affected where its source's version is before `fixed`, or whatever its version where there is no fix yet.
Versions are compared as dpkg, rpm and apk do. It needs nothing but the standard library.
"""

import itertools
import json
import re
import sys

NAME = "shifter-xc example 1"


def main():
    inventory = json.load(sys.stdin)
    with open(sys.argv[1], encoding="utf-8") as stream:
        feed = json.load(stream)
    release = inventory["distribution"]
    names = (f"{release.get('id', '')}:{release.get('version_id', '')}", release.get("id", ""))
    advisories = {}
    for advisory in itertools.chain.from_iterable(feed.get(name, []) for name in names):
        advisories.setdefault(advisory["package"], []).append(advisory)
    findings = [
        {
            "id": advisory["id"],
            "package": package["name"],
            "version": package["version"],
            "severity": advisory["severity"],
            "fixed": advisory.get("fixed", ""),
            "summary": advisory.get("summary", ""),
            "url": advisory.get("url", ""),
        }
        for package in inventory["packages"]
        for advisory in advisories.get(package["source"], [])
        if is_before(package, advisory.get("fixed", ""))
    ]
    json.dump({"scanner": NAME, "feed": feed["version"], "findings": findings}, sys.stdout)


def is_before(package, fixed):
    """Of rpm's source packages, only the binary ones know the epoch."""
    version = package["version"] if package["manager"] == "rpm" else package["source_version"]
    return not fixed or COMPARE[package["manager"]](version, fixed) < 0


# dpkg: deb-version(7). Epoch, upstream version, revision; in each, texts without digits and numbers by turns.


def compare_dpkg(one, other):
    return sign(_dpkg(one), _dpkg(other))


def _dpkg(version):
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return int(epoch) if epoch.isdigit() else 0, _dpkg_key(upstream), _dpkg_key(revision)


def _dpkg_key(text):
    """`~` comes before the end of the text, letters before everything else."""
    key = []
    for letters, digits in re.findall(r"([^0-9]*)([0-9]*)", text):
        order = [-1 if c == "~" else ord(c) if c.isascii() and c.isalpha() else ord(c) + 256 for c in letters]
        key.append(([*order, 0], int(digits or "0")))
    while key and key[-1] == ([0], 0):
        key.pop()
    return [*key, ([0], 0)]


# rpm: rpmvercmp of lib/rpmio. Runs of digits and of letters, `~` before the end, `^` after it.


def compare_rpm(one, other):
    return sign(_rpm(one), _rpm(other))


def _rpm(version):
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, release = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return int(epoch) if epoch.isdigit() else 0, _rpm_key(upstream), _rpm_key(release)


def _rpm_key(text):
    key = []
    for run in re.findall(r"[0-9]+|[A-Za-z]+|~|\^", text):
        if run == "~":
            key.append((-1, 0, ""))
        elif run == "^":
            key.append((1, 0, ""))
        else:
            key.append((3, int(run), "") if run.isdigit() else (2, 0, run))
    return [*key, (0, 0, "")]


# apk: apk-package(5). Numbers, a letter, suffixes (alpha before beta, pre, rc, none, cvs, svn, git, hg, p), revision.

_SUFFIXES = {"alpha": -4, "beta": -3, "pre": -2, "rc": -1, "cvs": 1, "svn": 2, "git": 3, "hg": 4, "p": 5}
_APK = re.compile(r"([0-9]+(?:\.[0-9]+)*)([a-z]?)((?:_[a-z]+[0-9]*)*)(?:~[0-9a-f]+)?(?:-r([0-9]+))?")


def compare_apk(one, other):
    return sign(_apk(one), _apk(other))


def _apk(version):
    match = _APK.fullmatch(version)
    if not match:
        return [], "", [], 0
    first, *others = match[1].split(".")
    numbers = [(2, int(first), "")]
    for number in others:  # one with a leading zero is a fraction
        numbers.append((1, 0, number.rstrip("0")) if number[0] == "0" and number != "0" else (2, int(number), ""))
    suffixes = re.findall(r"_([a-z]+)([0-9]*)", match[3])
    ranks = [(_SUFFIXES.get(name, 0), int(count or "0")) for name, count in suffixes]
    return numbers, match[2], [*ranks, (0, 0)], int(match[4] or "0")


def sign(one, other):
    return (one > other) - (one < other)


COMPARE = {"dpkg": compare_dpkg, "rpm": compare_rpm, "apk": compare_apk}

if __name__ == "__main__":
    main()
