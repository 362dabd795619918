#!/bin/sh
# image-root.sh TARGET PATH...: makes TARGET the root of an image with these paths, the shared libraries they need, and the
# files that any program looks up: certificates, time zones, names. No shell, no package manager, no tools.
set -eu
target=$1
shift

mkdir -p "$target/usr/lib" "$target/usr/lib64" "$target/etc" "$target/var/lib/dpkg/status.d"
ln -s usr/lib "$target/lib"
ln -s usr/lib64 "$target/lib64"
install -d -m 1777 "$target/tmp"
tar -c "$@" /etc/ssl /etc/ld.so.conf /etc/ld.so.conf.d /etc/nsswitch.conf /etc/services /etc/protocols /etc/os-release \
    /usr/lib/os-release /usr/lib/ssl /usr/share/ca-certificates /usr/share/zoneinfo 2>/dev/null | tar -C "$target" -x

# Copy each library under the name that programs ask for. Vulnerability scanners read the list of packages.
libraries=$(find "$@" -type f \( -name '*.so' -o -name '*.so.*' -o -path '*/bin/*' \) -exec ldd {} + 2>/dev/null |
    grep -oE '/[^ :()]+\.so[^ :()]*' | sort -u)
for library in $libraries; do
    [ -e "$target$library" ] && continue
    mkdir -p "$target${library%/*}"
    cp -L "$library" "$target$library"
    dpkg-query --search "$(readlink -f "$library")" 2>/dev/null | cut -d: -f1
done | sort -u | while read -r package; do
    dpkg-query --status "$package" > "$target/var/lib/dpkg/status.d/$package"
done
for package in base-files ca-certificates netbase tzdata; do
    dpkg-query --status "$package" > "$target/var/lib/dpkg/status.d/$package"
done
ldconfig -r "$target"

# Names for the image's user. Any other user id works as well.
printf 'root:x:0:0:root:/:/none\nnotifier:x:10001:10001::/srv/notifier:/none\n' > "$target/etc/passwd"
printf 'root:x:0:\nnotifier:x:10001:\n' > "$target/etc/group"
