#!/usr/bin/env bash
# Unpacks Debian's influxd below .cache: no root, no service, nothing installed.
set -euo pipefail
cd "$(dirname "$0")/.."

target=.cache/influxdb
if command -v influxd >/dev/null || [ -x "$target/usr/bin/influxd" ]; then
    exit 0
fi

fail() {
    echo "influxd is missing and could not be downloaded ($1): apt-get install influxdb" >&2
    exit 1
}
command -v apt-get >/dev/null || fail "there is no apt-get here"

mkdir -p .cache
work=$(mktemp -d "$PWD/.cache/influxdb.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"

# The sandbox user of apt cannot write here, and apt warns about it when root runs this.
apt=(apt-get -qq -o APT::Sandbox::User="$(id -un)")
# Package lists of our own: the system's may be empty or old, and only root may refresh them.
own_lists=(-o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache")

download() {
    (cd "$work" && "${apt[@]}" "$@" download influxdb) >"$work/log" 2>&1
}
if ! download; then
    # One unreachable source fails the update, though the one that has influxdb may be fresh.
    "${apt[@]}" "${own_lists[@]}" update >"$work/log" 2>&1 || true
    download "${own_lists[@]}" || fail "$(grep -m1 '^E:' "$work/log" || echo "apt-get download failed")"
fi

dpkg -x "$work"/influxdb_*.deb "$work/root"
rm -rf "$target"
mv "$work/root" "$target"
