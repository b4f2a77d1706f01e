#!/bin/sh
# Builds udi-run as a static program, linked with musl; needs no network.
# Usage: build.sh DIRECTORY; the program is then DIRECTORY/udi-run. CPPFLAGS is passed on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
version=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' "$here/../udi/version.py")
mkdir -p "$1"
# CPPFLAGS is a list of options.
# shellcheck disable=SC2086
musl-gcc -std=c11 -Os -static -s -Wall -Wextra -Wshadow -Werror -fstack-protector-strong \
    -Wl,-z,noexecstack -Wl,-z,relro,-z,now "-DVERSION=\"$version\"" ${CPPFLAGS-} -o "$1/udi-run.new" "$here"/*.c
mv "$1/udi-run.new" "$1/udi-run"
