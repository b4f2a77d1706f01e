#!/bin/sh
# Builds RPM packages from the bundle in a directory: what install.sh and `udi-admin install` put on a host for a
# configuration, taken apart by the hosts that need it. Nothing of this machine is changed: it is installed in a mount
# namespace, where only /opt and /etc are written, to copies.
# Usage: rpm.sh DIRECTORY [UDI_TOML]; without a configuration, for Torque on a Cray with the default paths.
set -eu
umask 022
here=$(cd "$(dirname "$0")/.." && pwd)
output=$(cd "$1" && pwd)
version=$(sed -n 's/^VERSION = "\(.*\)"$/\1/p' "$here/udi/version.py")
archive=$output/shifter-xc-$version-$(uname -m).tar.gz
[ -f "$archive" ] || {
    echo "rpm.sh: $archive not found; make bundle builds it" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
stage=$work/stage
mkdir -p "$stage/opt/udi" "$work/etc" "$work/overlay" "$work/lists" "$work/bundle"
tar -xzf "$archive" -C "$work/bundle" --strip-components 1

if [ $# -ge 2 ]; then
    cp "$2" "$work/udi.toml"
else
    cat > "$work/udi.toml" <<'EOF'
[store]
path = "/scratch/udi"

[install]
python = "/opt/udi/python/bin/python3"
EOF
fi

# An upgrade by rpm removes the old directories at once, also where a hook that `udi-admin install` wrote still names one:
# so programs of packages name the links, that to the interpreter too.
namespace="unshare --mount"
[ "$(id -u)" = 0 ] || namespace="$namespace --map-root-user"
# $namespace is a command with its options, and $1 and $2 are those of the other shell.
# shellcheck disable=SC2016,SC2086
$namespace sh -ec '
    mount --bind "$1/stage/opt" /opt
    mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/overlay" etc /etc
    install -D -m 0644 "$1/udi.toml" /etc/udi/udi.toml
    "$1/bundle/install.sh" --python bundle >&2
    venv=$(readlink /opt/udi/venv)
    for file in /opt/udi/venv/bin/*; do
        [ -L "$file" ] || sed -i "s|/opt/udi/$venv/|/opt/udi/venv/|g" "$file"
    done
    python=$(readlink /opt/udi/python)
    sed -i "s|/opt/udi/$python/|/opt/udi/python/|g" /opt/udi/venv/pyvenv.cfg
    ln -sfn /opt/udi/python/bin/python3 /opt/udi/venv/bin/python3
    /opt/udi/venv/bin/udi-admin install --root "$1/stage" >/dev/null 2>&1 ||
        exec /opt/udi/venv/bin/udi-admin install --root "$1/stage"
' sh "$work"

# -- which package each file is of

cd "$stage"
for hook in prologue epilogue; do
    # A site may have one of its own, which then calls ours; `udi-admin install` settles that on the host.
    path=$(find . -path "*/mom_priv/$hook")
    [ -z "$path" ] || mv "$path" "${path%/*}/udi-$hook"
done
# rpm replaces files by their names, and would remove the version that running jobs need: so one file, and no link to it.
link=$(find . -path '*/node/*' -name '*.zip' -type l)
if [ -n "$link" ]; then
    mv -T "${link%/*}/$(readlink "$link")" "$link"
fi
find . ! -type d | LC_ALL=C sort | while read -r file; do
    path=${file#.}
    case $path in
    /opt/udi/venv | /opt/udi/venv-*) package= ;;
    /opt/udi/python | /opt/udi/python-*) package= ;;
    */mom_priv/udi-*) package='torque-mom' ;;
    /var/lib/udi/installed.json) package= ;; # rpm keeps its own record
    */torque.cfg | */roots.conf | */nodehealth.conf | */plugstack.conf) package= ;; # shared with the site
    /var/lib/udi/*) package= ;; # the record of an installation is each host's own
    /opt/udi/node/* | */nodehealth-check) package=node ;;
    */udi-slurm-submit | */udi-submit-filter | */bin/udi | */udi-session | */profile.d/* | */sudoers.d/*) package=login ;;
    */udi-gateway* | */systemd/* | */xinetd.d/*) package=gateway ;;
    */udi-slurm-* | */udi.so) package=slurm ;;
    */logrotate.d/* | /opt/udi/bin/* | /opt/udi/lib/*) package=main ;;
    */share/man/* | */bash-completion/* | */zsh/* | */fish/*) package=main ;;
    *)
        echo "rpm.sh: $path is of no package" >&2
        exit 1
        ;;
    esac
    [ -z "$package" ] || echo "\"$path\"" >> "$work/lists/$package"
done
for package in main node login gateway slurm torque-mom; do
    touch "$work/lists/$package"
    # The directories below our own are its, too, as of each other package that has files there.
    sed -n 's|^"\(/opt/udi/.*\)/[^/]*"$|\1|p' "$work/lists/$package" | while read -r directory; do
        while [ "$directory" != /opt/udi ]; do
            echo "%dir \"$directory\""
            directory=${directory%/*}
        done
    done | LC_ALL=C sort -u > "$work/directories"
    cat "$work/directories" >> "$work/lists/$package"
done
mkdir "$stage/papers"
cp -r "$work/bundle/docs" "$work"/bundle/*.md "$work/bundle/LICENSE" "$work/bundle/BUILD" "$stage/papers/"

torque=0
[ ! -s "$work/lists/torque-mom" ] || torque=1
venv=$(readlink opt/udi/venv)
python=$(readlink opt/udi/python)
mom_priv=$(sed -n 's|^"\(.*\)/udi-prologue"$|\1|p' "$work/lists/torque-mom")
rpmbuild -bb --quiet --define "_topdir $work/rpm" --define "_rpmdir $work/built" --define "stage $stage" \
    --define "lists $work/lists" --define "project_version $version" --define "torque $torque" \
    --define "mom_priv ${mom_priv:-none}" --define "venv_directory $venv" --define "python_directory $python" \
    --define "_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm" "$here/packaging/shifter-xc.spec"
rm -f "$output"/shifter-xc*.rpm
mv "$work"/built/*.rpm "$output/"
(cd "$output" && ls shifter-xc*.rpm)
