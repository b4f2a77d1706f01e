#!/bin/sh
# Fetches the unsquashfs of the oldest Debian release that Debian's mirrors still have, and the libraries of that release
# which it runs with. apt verifies signatures and checksums; nothing is installed.
# Usage: fetch.sh DIRECTORY; the program is then DIRECTORY/unsquashfs.
set -eu
suite=bullseye
mkdir -p "$1"
cd "$1"
# Files left by an earlier, failed fetch would be picked up.
rm -rf root unsquashfs new
mkdir -p new/lists/partial new/root
cd new
: > status
# The archive that this machine's own apt uses for Debian, as for debootstrap; the keys are those of Debian's package.
# shellcheck disable=SC2016 # it is apt that reads $(REPO_URI)
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | sed -n 's,\(/debian\)/*$,\1,p' | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror:-http://deb.debian.org/debian} $suite main" \
    > sources.list
own_apt() {
    apt-get -qq -o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$PWD/lists" -o Dir::State::status="$PWD/status" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o APT::Sandbox::User=root "$@"
}
own_apt update
own_apt download squashfs-tools libc6 liblz4-1 liblzma5 liblzo2-2 libzstd1 zlib1g
for package in *.deb; do
    dpkg-deb -x "$package" root
done
cd ..
mv new/root root
rm -rf new
# By its own loader, which is looked for in this machine's root otherwise.
cat > unsquashfs.new <<'END'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")/root
set -- "$root"/usr/bin/unsquashfs "$@"
for loader in "$root"/lib/*/ld-2.*.so; do
    libraries=$(dirname "$loader")
    exec "$loader" --library-path "$libraries:$root/usr${libraries#"$root"}" "$@"
done
END
chmod 755 unsquashfs.new
mv unsquashfs.new unsquashfs
