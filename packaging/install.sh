#!/bin/sh
# Installs shifter-xc from this bundle below /opt/udi, without a network and without a compiler: an interpreter where one
# is asked for, the Python packages, and the programs that go into images. Nothing of it takes effect before
# `udi-admin install`. It can be run again, and over another version: nothing that is in use is changed in place.
set -eu
umask 022
PATH=/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
unset PYTHONHOME PYTHONPATH
here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
prefix=@PREFIX@
wanted=@PYTHON@
interpreter=@INTERPRETER@
version=@VERSION@
python=/usr/bin/python3
part=all

usage() {
    cat <<EOF
Usage: install.sh [--python PROGRAM|bundle] [--only-node]

Installs shifter-xc $version below $prefix.

  --python PROGRAM  the host's Python to use, which must be $wanted  [default: $python]
  --python bundle   use the interpreter of this bundle, installed as $prefix/$interpreter;
                    for hosts without $wanted
  --only-node       install the node software alone ($prefix/node/udi.zip), and the interpreter with --python bundle:
                    for compute nodes that see no shared file system
EOF
}

fail() {
    echo "install.sh: $1" >&2
    [ $# -lt 2 ] || echo "hint: $2" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --python)
        [ $# -ge 2 ] || fail "--python needs a value"
        python=$2
        shift
        ;;
    --only-node) part=node ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) fail "unknown argument '$1'" "install.sh --help lists what there is" ;;
    esac
    shift
done

[ "$(id -u)" = 0 ] || fail "this needs root, which must own what it installs"
machine=$(uname -m)
[ "$machine" = @MACHINE@ ] || fail "this bundle is for @MACHINE@, and this host is $machine"

# -- the bundle is complete, unchanged, and has nothing that its maker did not put there

cd "$here"
[ -f SHA256SUMS ] || fail "$here/SHA256SUMS not found" "unpack the archive again"
listed=$(sed 's/^[0-9a-f]* [ *]//' SHA256SUMS | sort)
present=$(find . ! -type d ! -path ./SHA256SUMS | sort)
if [ "$listed" != "$present" ]; then
    for file in $present; do
        case "
$listed
" in *"
$file
"*) ;; *) fail "$here/$file is not of this bundle" "unpack the archive again, into an empty directory" ;; esac
    done
fi
sha256sum --check --quiet --strict SHA256SUMS >&2 || fail "this bundle is damaged" "unpack the archive again"

# -- what is unfinished goes when anything fails

unfinished=
trap '[ -z "$unfinished" ] || rm -rf "$unfinished"' EXIT
trap 'exit 1' HUP INT TERM

# A run that was killed leaves such names, too. One that is an hour old belongs to no run of now, on any host.
for left in "$prefix"/.*.* "$prefix"/node/.*.* "$prefix"/lib/.*.* "$prefix"/lib/*/.*.*; do
    case ${left##*.} in '' | *[!0-9]*) continue ;; esac
    [ -z "$(find "$left" -maxdepth 0 -mmin +60)" ] || rm -rf "$left"
done

# Each version has a directory of its own; a link that is replaced atomically says which one is used.
require_link() {
    if [ -e "$prefix/$1" ] && [ ! -L "$prefix/$1" ]; then
        # The link keeps the hooks of jobs that run at work.
        fail "$prefix/$1 was not installed by install.sh" \
            "mv $prefix/$1 $prefix/$1.old && ln -s $1.old $prefix/$1; then install again"
    fi
}

switch() {
    require_link "$1"
    unfinished=$prefix/.$1.$$
    ln -s "$2" "$unfinished"
    mv -T "$unfinished" "$prefix/$1"
    unfinished=
    name_others "$1" "$2"
}

name_others() {
    for other in "$prefix/$1"-*; do
        [ "$other" = "$prefix/$2" ] || [ ! -d "$other" ] ||
            echo "kept: $other, of another version; running programs may use it"
    done
}

# put FILE PATH MODE: a file is replaced as a whole.
put() {
    mkdir -p "$(dirname "$2")"
    unfinished=$(dirname "$2")/.$(basename "$2").$$
    cp "$1" "$unfinished"
    chmod "$3" "$unfinished"
    mv "$unfinished" "$2"
    unfinished=
}

name_of() {
    sha256sum "$1" | cut -c 1-12
}

# -- an interpreter of the host's fits

if [ "$python" != bundle ] && [ "$part" = all ]; then
    case $python in
    /*) ;;
    *) fail "--python must be an absolute path or 'bundle', not '$python'" ;;
    esac
    [ -x "$python" ] || fail "$python is not an executable program" "install $wanted, or use --python bundle"
    found=$("$python" -I -c 'import sys; print("Python %d.%d" % sys.version_info[:2])' 2>/dev/null) ||
        fail "$python does not start" "use --python bundle"
    [ "$found" = "$wanted" ] || fail "$python is $found, and the packages of this bundle are for $wanted" \
        "use --python PROGRAM with one that is $wanted, or --python bundle"
fi

mkdir -p "$prefix"

# -- the interpreter

if [ "$python" = bundle ]; then
    require_link python
    if [ ! -d "$prefix/$interpreter" ]; then
        unfinished=$prefix/.$interpreter.$$
        mkdir "$unfinished"
        tar -x -f interpreter.tar -C "$unfinished" --no-same-owner
        loader=$(echo "$unfinished"/lib/ld-linux-*)
        "$loader" --library-path "$unfinished/lib" "$unfinished/bin/python3" -I -m compileall -q \
            --invalidation-mode unchecked-hash -s "$unfinished" -p "$prefix/$interpreter" "$unfinished/lib" ||
            fail "the interpreter of this bundle does not run here" "it needs Linux @KERNEL@ or newer; see docs/install.md"
        mv -T "$unfinished" "$prefix/$interpreter"
        unfinished=
    fi
    # Nodes run what the link leads to, with node software that was compiled for it: `udi-admin install` moves both.
    if [ "$part" = node ] || [ ! -e "$prefix/python" ]; then
        switch python "$interpreter"
    else
        name_others python "$interpreter"
    fi
    python=$prefix/$interpreter/bin/python3
fi

# -- the node software: elsewhere `udi-admin install` makes it, so that jobs keep what they were set up with

if [ "$part" = node ]; then
    put node/udi.zip "$prefix/node/udi.zip" 0644
    echo "installed: shifter-xc $version: $prefix/node/udi.zip"
    exit 0
fi

# -- the packages

directory=venv-$version-$(name_of SHA256SUMS)
require_link venv
if [ "$(readlink -f "$prefix/$directory/bin/python3")" != "$(readlink -f "$python")" ]; then
    unfinished=$prefix/.$directory.$$
    # Without pip, which some distributions keep apart from venv: the bundle has one.
    "$python" -I -m venv --without-pip "$unfinished" ||
        fail "$python cannot make virtual environments" "install its module venv, or use --python bundle"
    PIP_CONFIG_FILE=/dev/null "$unfinished/bin/python" -I -c 'import sys
sys.path.insert(0, sys.argv.pop(1))
from pip._internal.cli.main import main
sys.exit(main())' pip/pip-*.whl install --quiet --isolated --no-index --no-deps --no-cache-dir \
        --disable-pip-version-check --root-user-action ignore wheels/*.whl ||
        fail "the packages could not be installed" "is there space below $prefix?"
    # Programs name the directory of their own version, and not the link: hooks and services that are running then load
    # no module of another version, and the hooks in place are of this one only once its `udi-admin install` was run.
    for file in "$unfinished"/bin/*; do
        [ -L "$file" ] || sed -i "s|$unfinished|$prefix/$directory|g" "$file"
    done
    "$unfinished/bin/python" -I -c 'import admin.cli, admin.config_check, gateway.service.cli, outside.cli, cryptography.x509' ||
        fail "the packages do not work with $python" "use --python bundle"
    rm -rf "${prefix:?}/$directory"
    mv -T "$unfinished" "$prefix/$directory"
    unfinished=
fi

put lib/udi-run "$prefix/lib/udi-run" 0755
for program in sshd ssh sshkey; do
    put "lib/sshd/$program" "$prefix/lib/sshd/$program" 0755
done
[ ! -f lib/slurm/udi.so ] || put lib/slurm/udi.so "$prefix/lib/slurm/udi.so" 0755
switch venv "$directory"
echo "installed: shifter-xc $version below $prefix, for $python"
echo "next: write /etc/udi/udi.toml, then $prefix/venv/bin/udi-admin check-config and install (docs/install.md)"
