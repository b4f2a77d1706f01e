#!/bin/sh
# Downloads a source package of Debian's into the current directory, from where this machine's apt gets its packages: the
# machine's own sources are given to apt once more as deb-src, with separate package lists, and apt verifies signatures
# and checksums as always.
# Usage: fetch.sh PACKAGE
set -eu
rm -rf lists sources
mkdir -p lists/partial sources
for list in /etc/apt/sources.list /etc/apt/sources.list.d/debian*.list; do
    if [ -f "$list" ]; then
        sed -n 's/^deb /deb-src /p' "$list" > "sources/$(basename "$list" .list).list"
    fi
done
for list in /etc/apt/sources.list.d/debian*.sources; do
    if [ -f "$list" ]; then
        sed 's/^Types:.*/Types: deb-src/' "$list" > "sources/$(basename "$list")"
    fi
done
own_apt() {
    apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$PWD/sources" \
        -o Dir::State::Lists="$PWD/lists" -o APT::Sandbox::User=root "$@"
}
own_apt update
own_apt source --download-only "$1"
rm -rf lists sources
