#!/bin/sh
# Copies this machine's Python, with its C library and dynamic loader, into a directory that an older host can run: a
# service node whose Python and glibc are too old for us. Nothing of the host's libraries is used by it, and nothing of
# its libraries by the programs that it starts.
# Usage: interpreter.sh PYTHON DIRECTORY PREFIX; the files are then in DIRECTORY, and run from PREFIX/NAME, where NAME,
# which is printed, is that of their version and content (/opt/udi/python-3.11.2-0123456789ab): what runs from there is
# of one version for ever.
set -eu
python=$1 directory=$2
# Beyond what Python loads: what compiled wheels may load (a glibc's parts must all be of one version), and what the
# gateway loads for users of other hosts.
also='libdl.so.2 libpthread.so.0 libresolv.so.2 librt.so.1 libutil.so.1 libgcc_s.so.1 libstdc++.so.6 libz.so.1
      libmunge.so.2'
# Modules that no program of ours imports; readline also has a licence that forbids passing it on with ours.
without='readline _curses* _dbm _gdbm nis ossaudiodev _tkinter *test* xxlimited*'

fail() {
    echo "interpreter.sh: $1" >&2
    exit 1
}
command -v patchelf >/dev/null || fail "patchelf not found; on Debian install patchelf"

program=$("$python" -I -c 'import os, sys; print(os.path.realpath(sys.executable))')
name=$("$python" -I -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
library=$("$python" -I -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
loader=$(patchelf --print-interpreter "$program")

rm -rf "$directory"
mkdir -p "$directory/bin" "$directory/lib/$name"
# Files behind links outside of it, such as Debian's sitecustomize.py, become files here.
(cd "$library" && tar -c -h -f - --sort=name --exclude=__pycache__ --exclude=./test --exclude=./idlelib \
    --exclude=./ensurepip --exclude='./config-*' --exclude=./EXTERNALLY-MANAGED --exclude=./site-packages .) |
    tar -x -f - -C "$directory/lib/$name" --no-same-owner
for pattern in $without; do
    # $pattern is one.
    # shellcheck disable=SC2086
    rm -f "$directory/lib/$name"/lib-dynload/$pattern.*.so
done

cp "$program" "$directory/bin/$name"
cp -L "$loader" "$directory/lib/"
{
    ldd "$program" "$directory/lib/$name"/lib-dynload/*.so | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p'
    for wanted in $also; do
        /sbin/ldconfig -p | sed -n "s/^[[:blank:]]*$wanted (.*x86-64.*) => //p" | head -n 1
    done
} | LC_ALL=C sort -u > "$directory/libraries"
# A library of those above may need others.
while read -r path; do
    echo "$path"
    ldd "$path" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p'
done < "$directory/libraries" | LC_ALL=C sort -u > "$directory/libraries.all"
while read -r path; do
    cp -L "$path" "$directory/lib/"
done < "$directory/libraries.all"

version=$("$python" -I -c 'import platform; print(platform.python_version())')
content=$({ cat "$0"; cd "$directory" && find . -type f | LC_ALL=C sort | xargs -d '\n' sha256sum; } | sha256sum | cut -c 1-12)
prefix=$3/python-$version-$content

# DT_RPATH, unlike DT_RUNPATH, also holds for what extension modules load, and precedes a user's LD_LIBRARY_PATH.
# It is absolute, since $ORIGIN needs /proc.
patchelf --set-interpreter "$prefix/lib/$(basename "$loader")" --force-rpath --set-rpath "$prefix/lib" "$directory/bin/$name"
ln -s "$name" "$directory/bin/python3"

# Which packages these files are of, with their licences.
if command -v dpkg-query >/dev/null; then
    mkdir "$directory/licences"
    while read -r path; do
        # A path of a merged /usr is known to dpkg by the other name, too.
        dpkg-query -S "$path" "/usr$path" "$(readlink -f "$path")" 2>/dev/null | sed -n '1s/:.*//p'
    done < "$directory/libraries.all" > "$directory/owners"
    dpkg-query -S "$program" "$library/os.py" 2>/dev/null | sed 's/:.*//' >> "$directory/owners"
    LC_ALL=C sort -u "$directory/owners" | while read -r package; do
        dpkg-query -W -f '${Package} ${Version} ${Architecture}\n' "$package" | head -n 1
        cp -L "/usr/share/doc/$package/copyright" "$directory/licences/$package"
    done > "$directory/packages"
fi
rm -f "$directory/libraries" "$directory/libraries.all" "$directory/owners"
chmod -R u=rwX,go=rX "$directory"
echo "${prefix##*/}"
