#!/bin/sh
# Builds the private sshd, its client and its key generator as static programs, from Debian's own source package of
# dropbear with job-only.patch and localoptions.h, linked with musl.
# Usage: build.sh DIRECTORY; the programs are then in DIRECTORY/bin.
#
# The source comes from where this machine's apt gets its packages: the machine's own sources are given to apt once more
# as deb-src, with separate package lists, and apt verifies signatures and checksums as always.
set -eu
version=2022.83
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
# Files left by an earlier, failed build would be picked up.
rm -rf "dropbear-$version" dropbear_* bin.new lists sources
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
own_apt source --download-only dropbear
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
rm -rf bin "dropbear-$version" lists sources
mv bin.new bin
