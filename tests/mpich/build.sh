#!/bin/sh
# Builds an MPICH of our own from Debian's source package: the same ABI as Debian's libmpich12 (libmpich.so.12), but
# messages by sockets (ch3:sock) where Debian's go through UCX, so that a program can tell which one it runs with.
# Usage: build.sh DIRECTORY; the library is then DIRECTORY/lib/libmpich.so.12, without anything it does not need.
#
# Two minutes on two cores: Fortran, C++, MPI-IO, hwloc, chains of tools (QMPI) and the larger engine of datatypes (yaksa)
# are left out, and nothing is optimized.
set -eu
version=4.0.2
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"
# Files left by an earlier, failed build would be picked up.
rm -rf "mpich-$version" mpich_* lib.new
"$here/../../sshd/fetch.sh" mpich
[ -f "mpich_$version.orig.tar.xz" ] || {
    echo "build.sh: this Debian does not have mpich $version" >&2
    exit 1
}
tar -xJf "mpich_$version.orig.tar.xz"

cd "mpich-$version"
# Most files begin with this header, which takes longer than all else: gcc reads it once, where the options are the same.
cat > header.mk << 'EOF'
include Makefile
src/include/mpiimpl.h.gch: src/include/mpiimpl.h
	$(CC) $(DEFS) $(DEFAULT_INCLUDES) $(INCLUDES) $(lib_libmpich_la_CPPFLAGS) $(CPPFLAGS) $(AM_CFLAGS) $(CFLAGS) \
		-fPIC -DPIC -x c-header -o $@ $<
EOF
if ! { ./configure MPILIBNAME=mpich --with-device=ch3:sock --with-datatype-engine=dataloop --with-pm=no \
        --without-hwloc --disable-fortran --disable-cxx --disable-romio --disable-static --disable-qmpi \
        --disable-dependency-tracking --enable-cache --enable-fast=O0,ndebug &&
        make -f header.mk src/include/mpiimpl.h.gch &&
        make -j"$(nproc)"; } > ../build.log 2>&1; then
    tail -n 20 ../build.log >&2
    exit 1
fi
mkdir ../lib.new
strip --strip-unneeded -o ../lib.new/libmpich.so.12 lib/.libs/libmpich.so.12
cd ..
rm -rf lib "mpich-$version" mpich_*
mv lib.new lib
