#!/bin/sh
# Packs one archive from which a host is installed without a network and without a compiler: install.sh, the Python
# packages as wheels in the versions of constraints.txt, an interpreter, the node software, udi-run, the private sshd,
# and the SPANK plugin for the Slurm of this machine. The same sources on the same machine give the same bytes.
# Usage: bundle.sh PYTHON CACHE OUTPUT: the interpreter that the hosts will use, the directory with the built programs,
# and the directory to write the archive to.
set -eu
umask 022
LC_ALL=C
export LC_ALL
here=$(cd "$(dirname "$0")/.." && pwd)
python=$1 cache=$2 output=$3
prefix=/opt/udi
version=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' "$here/udi/version.py")
machine=$(uname -m)
name=shifter-xc-$version-$machine
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || stat -c %Y "$here/setup.cfg")}
export SOURCE_DATE_EPOCH

fail() {
    echo "bundle.sh: $1" >&2
    exit 1
}
for built in udi-run/udi-run sshd/bin/sshd slurm/udi.so; do
    [ -e "$cache/$built" ] || fail "$cache/$built was not built; make programs builds it"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
bundle=$work/$name
mkdir "$bundle" "$bundle/wheels" "$bundle/pip" "$bundle/lib" "$bundle/node" "$work/source"

# -- the Python packages

# What a build leaves in a tree would end up in the next wheel, so it is made of a copy.
tar -c -C "$here" --exclude-vcs --exclude=./.cache --exclude='./.venv' --exclude=./build --exclude=./dist \
    --exclude='*.egg-info' --exclude=__pycache__ . | tar -x -C "$work/source"
"$python" -m venv "$work/venv"
pip="$work/venv/bin/pip --disable-pip-version-check --quiet"
PIP_CONSTRAINT=$here/packaging/build-constraints.txt $pip wheel --no-deps --wheel-dir "$bundle/wheels" "$work/source"
$pip download --only-binary :all: --constraint "$here/constraints.txt" --dest "$bundle/wheels" "$bundle"/wheels/*.whl
# The pip of this interpreter, since hosts may have none.
$pip download --no-deps --dest "$bundle/pip" "pip==$("$python" -c 'import ensurepip; print(ensurepip.version())')"

# -- the programs

cp "$cache/udi-run/udi-run" "$bundle/lib/"
cp -r "$cache/sshd/bin" "$bundle/lib/sshd"
mkdir "$bundle/lib/slurm"
cp "$cache/slurm/udi.so" "$bundle/lib/slurm/"
$pip install --no-index --no-deps "$bundle"/wheels/*.whl
"$work/venv/bin/python" -I "$here/packaging/nodezip.py" "$python" "$bundle/lib/udi-run" "$bundle/node/udi.zip"

# -- the interpreter

interpreter=$("$here/packaging/interpreter.sh" "$python" "$work/interpreter" "$prefix")
reproducible="--sort=name --mtime=@$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner --format=gnu"
# $reproducible is a list of options.
# shellcheck disable=SC2086
tar -c -f "$bundle/interpreter.tar" -C "$work/interpreter" $reproducible .

# -- the papers

cp "$here/LICENSE" "$here"/*.md "$here/constraints.txt" "$bundle/" # docs/ has links to pages beside it
cp -r "$here/docs" "$bundle/docs"
wanted=$("$python" -c 'import sys; print("Python %d.%d" % sys.version_info[:2])')
kernel=$(file -bL "$work/interpreter/bin/python3" | sed -n 's/.*for GNU\/Linux \([0-9.]*\),.*/\1/p')
slurm=$(sed -n 's/.*SLURM_VERSION_NUMBER.*\(0x[0-9a-f]*\).*/\1/p' /usr/include/slurm/slurm_version.h 2>/dev/null || true)
slurm=$(dpkg-query -W -f '${Version}' libslurm-dev 2>/dev/null || echo "${slurm:-unknown}")
commit=$(git -C "$here" rev-parse HEAD 2>/dev/null || echo unknown)
cat > "$bundle/BUILD" <<EOF
shifter-xc $version, $machine
commit $commit
packages for $wanted, in the versions of constraints.txt
interpreter $("$python" -V), for Linux ${kernel:-unknown} or newer, run from $prefix/$interpreter
plugin lib/slurm/udi.so for Slurm $slurm, and for no other version
EOF
sed -e "s|@PREFIX@|$prefix|" -e "s|@PYTHON@|'$wanted'|" -e "s|@INTERPRETER@|$interpreter|" -e "s|@VERSION@|$version|" \
    -e "s|@MACHINE@|$machine|" -e "s|@KERNEL@|${kernel:-of the machine that it was made on}|" "$here/packaging/install.sh" > "$bundle/install.sh"
chmod 0755 "$bundle/install.sh"

# -- the archive

chmod -R u=rwX,go=rX "$bundle"
(cd "$bundle" && find . -type f ! -path ./SHA256SUMS | sort | xargs -d '\n' sha256sum > "$work/sums")
mv "$work/sums" "$bundle/SHA256SUMS"
mkdir -p "$output"
# shellcheck disable=SC2086
tar -c -C "$work" $reproducible "$name" | gzip -n -9 > "$work/archive"
mv "$work/archive" "$output/$name.tar.gz"
(cd "$output" && sha256sum "$name.tar.gz" > "$name.tar.gz.sha256")
cat "$bundle/BUILD"
echo "$output/$name.tar.gz"
