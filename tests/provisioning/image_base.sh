#!/bin/sh
# image_base.sh FILE PYTHON: a stand-in for the official Python image, for machines that reach no registry of images.
# FILE becomes a tar archive of Debian with the Python of the folder PYTHON. Needs root and debootstrap.
set -eu
file=$1
python=$2
root=$(mktemp -d)
trap 'umount "$root/proc" 2>/dev/null || true; rm -rf "$root"' EXIT INT TERM
mirror=$(grep -rhoE '^(URIs: |deb (\[[^]]*\] )?)https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null |
    grep -oE 'https?://[^ ]+' | head -n 1)
packages=binutils,ca-certificates,netbase,tzdata,libssl3t64,libffi8,libbz2-1.0,libreadline8t64,libsqlite3-0,liblzma5,zlib1g
debootstrap --variant=minbase --include="$packages,libuuid1,libncursesw6" trixie "$root" "$mirror" >"$file.log" 2>&1
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/usr/share/doc "$root"/usr/share/man \
    "$root"/usr/share/locale "$root"/usr/share/info
(cd "$python" && tar --exclude=site-packages --exclude=test --exclude=__pycache__ --exclude='*.a' -c bin/python bin/python3 \
    bin/python3.[0-9][0-9] lib) | tar -C "$root/usr/local" -x
ln -sf python3 "$root/usr/local/bin/python"
# The certificates that this machine trusts: its package index may have one of its own.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > "$root/etc/pip.conf"
chroot "$root" sh -c 'ldconfig && mkdir -p /usr/local/lib/$(basename /usr/local/lib/python3*)/site-packages &&
    /usr/local/bin/python3 -m ensurepip >/dev/null 2>&1 && ln -sf pip3 /usr/local/bin/pip'
tar -C "$root" --one-file-system -c . > "$file"
