#!/bin/sh
# Builds the SPANK plugin for the Slurm whose headers (libslurm-dev, slurm-devel) this machine has: a plugin loads only
# in the version that it was built for.
# Usage: build.sh DIRECTORY; the plugin is then DIRECTORY/udi.so. CPPFLAGS is passed on, for headers elsewhere.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
# CPPFLAGS is a list of options.
# shellcheck disable=SC2086
gcc -std=gnu11 -O2 -Wall -Wextra -Wshadow -Werror -fPIC -fstack-protector-strong -D_FORTIFY_SOURCE=2 \
    -shared -Wl,-z,noexecstack -Wl,-z,relro,-z,now ${CPPFLAGS-} -o "$1/udi.so.new" "$here/udi.c"
mv "$1/udi.so.new" "$1/udi.so"
