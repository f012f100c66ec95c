#!/usr/bin/env bash
# Unpacks the Debian programs of the lab below .cache/parts: no root, no service, nothing installed.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C

target=$PWD/.cache/parts
# program=package, as in lab/parts.py
parts=(
    influxd=influxdb
    prometheus=prometheus
    promtool=prometheus
    prometheus-alertmanager=prometheus-alertmanager
    amtool=prometheus-alertmanager
    victoria-metrics=victoria-metrics
    prometheus-node-exporter=prometheus-node-exporter
    stress-ng=stress-ng
    iperf3=iperf3
    ip=iproute2
    unshare=util-linux
    nsenter=util-linux
    openssl=openssl
    systemd-analyze=systemd
    chromium-headless-shell=chromium-headless-shell
)

missing=()  # programs that are not installed
packages=() # the packages of these
complete=true
for part in "${parts[@]}"; do
    program=${part%%=*} package=${part#*=}
    # Debian keeps the sbin folders out of an ordinary user's PATH.
    if PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null; then
        continue
    fi
    missing+=("$program")
    [[ " ${packages[*]} " == *" $package "* ]] || packages+=("$package")
    [[ -x $target/usr/bin/$program || -x $target/usr/sbin/$program ]] || complete=false
done
if $complete; then
    exit 0
fi

fail() {
    local names verb=are
    printf -v names '%s, ' "${missing[@]}"
    [[ ${#missing[@]} -gt 1 ]] || verb=is
    echo "${names%, } $verb missing and could not be downloaded ($1): apt-get install ${packages[*]}" >&2
    exit 1
}
command -v apt-get >/dev/null || fail "there is no apt-get here"
# The browser has its tables of letters in another package, which is no library.
[[ " ${packages[*]} " != *" chromium-headless-shell "* ]] || packages+=(chromium-common)

mkdir -p .cache
work=$(mktemp -d "$PWD/.cache/parts.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,debs,root/usr/{bin,sbin,lib}}
echo "Downloading ${packages[*]} into .cache/parts: once, up to 170 MB." >&2

# The sandbox user of apt cannot write here, and apt warns about it when root runs this.
options=(-qq -o APT::Sandbox::User="$(id -un)")
# Package lists of our own: the system's may be empty or old, and only root may refresh them.
own_lists=(-o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache")

# What else an installation would bring and is a library: no web pages, no fonts, no service scripts.
# A line with "[" in the third field is an upgrade: the installed version must do.
libraries() {
    local new
    new=$(apt-get "${options[@]}" "$@" --simulate --no-install-recommends install "${packages[@]}" |
        awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }') || return
    # shellcheck disable=SC2086 # one word for each package
    apt-cache "${options[@]}" "$@" show --no-all-versions "${packages[@]}" $new |
        awk '$1 == "Package:" { name = $2 } $1 == "Section:" && $2 == "libs" { print name }'
}

download() {
    local needed
    rm -f "$work"/debs/*
    needed=$(libraries "$@") || return
    # shellcheck disable=SC2086
    (cd "$work/debs" && apt-get "${options[@]}" "$@" download "${packages[@]}" $needed)
}

if ! download >"$work/log" 2>&1; then
    # One unreachable source fails the update, though the one that has the packages may be fresh.
    apt-get "${options[@]}" "${own_lists[@]}" update >"$work/log" 2>&1 || true
    download "${own_lists[@]}" >>"$work/log" 2>&1 ||
        fail "$(grep -E -m1 '^(E:|W: Failed)' "$work/log" || echo "apt-get download failed")"
fi

# Some packages still name /bin and /lib, which on Debian are links into /usr.
ln -s usr/bin usr/sbin usr/lib "$work/root"
for package in "$work"/debs/*.deb; do
    dpkg-deb --fsys-tarfile "$package" |
        tar -x -C "$work/root" --no-same-owner --keep-directory-symlink --exclude=./{etc,var,usr/share}
    # Alertmanager does not start without its templates.
    if [[ $package == */prometheus-alertmanager_* ]]; then
        dpkg-deb --fsys-tarfile "$package" |
            tar -x -C "$work/root" --no-same-owner --wildcards "./usr/share/prometheus/alertmanager/*.tmpl"
    fi
done
# Its script names a folder below /usr, and one large library is for debugging graphics.
if [[ -d $work/root/usr/lib/chromium ]]; then
    ln -sf ../lib/chromium/chromium-headless-shell "$work/root/usr/bin/"
    rm -f "$work"/root/usr/lib/chromium/libVkLayer*
fi
rm -rf "$target"
mv -T "$work/root" "$target"
