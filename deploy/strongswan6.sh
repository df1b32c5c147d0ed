#!/bin/sh
# Unpacks a strongSwan with ML-KEM (6.0.2 or later, with OpenSSL 3.5) for `npm run interop`: Debian 12 has 5.9. Nothing is
# installed: the packages of a newer Debian, with the libraries they need, are unpacked into a folder to chroot into.
# Says on stderr why it could not, and ends with 1; the cells that need it then give that reason.
set -u
cd "$(dirname "$0")/.."
suite=forky
target=$PWD/node_modules/.cache/strongswan6
[ -e "$target/root/.complete" ] && exit 0
apt=$target/apt
rm -rf "$target"
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$target/root" || exit 1
log=$target/log

fetch() {
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" \
    >"$apt/sources.list"
  # An empty list of what is installed: everything that is needed is fetched, down to the C library.
  : >"$apt/status"
  # Inside a user's folder apt's own user cannot read.
  set -- -q -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/nonexistent \
    -o "Dir::State=$apt" -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" \
    -o "Dir::Cache=$apt" -o "Dir::Cache::archives=$apt/archives" \
    -o APT::Sandbox::User=root -o APT::Install-Recommends=false -o Acquire::Retries=2
  apt-get "$@" update && apt-get "$@" -y --download-only install \
    charon-systemd strongswan-swanctl libstrongswan-standard-plugins libstrongswan-extra-plugins
}

unpack() {
  for package in "$apt"/archives/*.deb; do dpkg-deb -x "$package" "$target/root" || return 1; done
  for folder in bin sbin lib lib64; do
    [ -e "$target/root/$folder" ] || ln -s "usr/$folder" "$target/root/$folder" || return 1
  done
  mkdir -p "$target/root/proc" "$target/root/dev" "$target/root/run" "$target/root/tmp"
}

# charon-systemd knows no --version: whatever it is told, it starts.
loads() {
  loader=$(cd "$target/root" && ls lib64/ld-*.so.* | head -n 1)
  chroot "$target/root" "/$loader" --list /usr/sbin/charon-systemd
}

if ! command -v apt-get dpkg-deb >/dev/null 2>&1; then
  why='this is no Debian'
elif ! fetch >"$log" 2>&1; then
  why="apt-get: $(grep -m 1 '^[EW]:' "$log" || tail -n 1 "$log")"
elif ! unpack >>"$log" 2>&1; then
  why="dpkg-deb: $(tail -n 1 "$log")"
elif ! loads >>"$log" 2>&1; then
  why="it does not run: $(tail -n 1 "$log")"
else
  rm -rf "$apt"
  : >"$target/root/.complete"
  exit 0
fi
echo "$why" >"$target/reason"
echo "setup: no strongSwan with ML-KEM from Debian $suite: $why" >&2
exit 1
