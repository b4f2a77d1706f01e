#!/bin/sh
# Builds the private sshd, its client and its key generator as static programs, from Debian's own source package of
# dropbear with job-only.patch and localoptions.h, linked with musl.
# Usage: build.sh DIRECTORY; the programs are then in DIRECTORY/bin.
set -eu
version=2022.83
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
# Files left by an earlier, failed build would be picked up.
rm -rf "dropbear-$version" dropbear_* bin.new
"$here/fetch.sh" dropbear
[ -f "dropbear_$version.orig.tar.bz2" ] || {
    echo "build.sh: this Debian does not have dropbear $version, which job-only.patch is made for" >&2
    exit 1
}
dpkg-source --no-check --extract dropbear_*.dsc "dropbear-$version" > build.log

cd "dropbear-$version"
patch -s -p1 --fuzz=0 < "$here/job-only.patch"
cp "$here/localoptions.h" .
# No shadow passwords and no login records: it runs as the user, who can neither read the former nor write the latter.
if ! { ac_cv_header_shadow_h=no ./configure CC=musl-gcc CFLAGS="-O2 -fstack-protector-strong" --enable-static \
        --disable-zlib --disable-pam --enable-bundled-libtom --disable-syslog --disable-lastlog --disable-utmp \
        --disable-utmpx --disable-wtmp --disable-wtmpx --disable-loginfunc --disable-pututline --disable-pututxline &&
        make -j"$(nproc)" PROGRAMS="dropbear dbclient dropbearkey"; } >> ../build.log 2>&1; then
    tail -n 20 ../build.log >&2
    exit 1
fi
mkdir ../bin.new
strip -o ../bin.new/sshd dropbear
strip -o ../bin.new/ssh dbclient
strip -o ../bin.new/sshkey dropbearkey
cd ..
rm -rf bin "dropbear-$version"
mv bin.new bin
