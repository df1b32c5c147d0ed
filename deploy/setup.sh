#!/bin/sh
# Makes a Debian machine ready for what is asked for, and says so on stderr:
#
#   npm    packages of package-lock.json, and the Node.js 24 that is one of them (the host's may be older)
#   demo   the above, and the programs that `npm run demo` uses
#   test   the above, and the programs that `npm test` uses
#   interop  those of demo, and Debian's strongSwan for `npm run interop`; its service is not left running. A newer one
#            as well where it is to be had (strongswan6.sh): some cells need it, and say so
#   bench  those of demo, and the peers that `npm run bench` measures beside us; no service is left running
#   testbed  those of demo, and what `npm run bench -- planes --hosts` uses on each machine
#   all    everything but strongSwan and the peers of the bench
#
# Installs only what is missing; when nothing is, it takes well under a second. Run by the scripts of package.json.
set -eu
exec 1>&2
PATH=$PATH:/usr/sbin:/sbin
target=${1:-all}
cd "$(dirname "$0")/.."

# program:package, in Debian's terms. user-mode-linux is a kernel with ESP for hosts whose own has none.
demo_tools='ip:iproute2 nft:nftables iptables-legacy:iptables tcpdump:tcpdump curl:curl ping:iputils-ping
  modprobe:kmod sysctl:procps linux.uml:user-mode-linux'
# The browser looks at the directory's page; 300 MB, and it needs some letters to draw.
test_tools='iperf3:iperf3 tshark:tshark ethtool:ethtool chromium:chromium,fonts-dejavu-core'
# The plugins have no programs: they come with the daemon.
interop_tools='charon-systemd:charon-systemd,libstrongswan-standard-plugins,libstrongswan-extra-plugins,libcharon-extra-plugins
  swanctl:strongswan-swanctl'
bench_tools='iperf3:iperf3 ethtool:ethtool taskset:util-linux tor:tor stress-ng:stress-ng openvpn:openvpn openssl:openssl scp:openssh-client'

case $target in
  npm) tools= ;;
  demo) tools=$demo_tools ;;
  test | all) tools="$demo_tools $test_tools" ;;
  interop) tools="$demo_tools $interop_tools" ;;
  bench) tools="$demo_tools $interop_tools $bench_tools" ;;
  testbed) tools="$demo_tools iperf3:iperf3" ;;
  *)
    echo "usage: sh deploy/setup.sh npm|demo|test|interop|bench|testbed|all"
    exit 2
    ;;
esac

say() { echo "setup: $*"; }
die() {
  say "$*"
  exit 1
}

# ---------------------------------------------------------------------------------------- Debian packages
packages=
for tool in $tools; do
  command -v "${tool%%:*}" >/dev/null 2>&1 || packages="$packages ${tool#*:}"
done
packages=$(echo $packages | tr , ' ')
if [ -n "$packages" ]; then
  command -v apt-get >/dev/null 2>&1 ||
    die "missing, and this is no Debian where I could install it: $packages (Debian's names)"
  [ "$(id -u)" = 0 ] || die "missing: $packages; run as root, or: apt-get install $packages"
  say "installing Debian packages: $packages"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  # Without systemd this keeps Debian from starting the services it installs (invoke-rc.d).
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  # shellcheck disable=SC2086 # one word per package
  if ! {
    apt-get -q -o DPkg::Lock::Timeout=120 update &&
      apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends $packages
  } >"$log" 2>&1; then
    tail -n 15 "$log"
    die "apt-get could not install: $packages"
  fi
  say 'Debian packages are installed'
  # Debian starts what it installs; here the daemon is wanted in namespaces only, and never on this host's port 500.
  for service in charon-systemd:strongswan tor:tor stress-ng:stress-ng openvpn:openvpn; do
    case " $packages " in
      *" ${service%%:*} "*) if [ -d /run/systemd/system ]; then systemctl disable --now "${service#*:}" || :; fi ;;
    esac
  done
fi

# ------------------------------------------------------------------------------------------- npm packages
node=node_modules/.bin/node
# A copy of the lock file the installed tree was made from.
stamp=node_modules/.ippriv-lock
wanted=$(sed -n 's/^ *"node": "\([0-9][0-9.]*\)".*/\1/p' package.json)

node_is_right() { [ "$("$node" --version 2>/dev/null)" = "v$wanted" ]; }

if ! cmp -s package-lock.json "$stamp"; then
  # npm empties what it installs into: through a link that would be somebody else's tree.
  [ ! -L node_modules ] || die 'node_modules is a link, and what it leads to is not of this package-lock.json'
  command -v npm >/dev/null 2>&1 || die 'missing: npm (Debian: apt-get install npm)'
  say 'installing npm packages, among them Node.js '"$wanted"
  # .npmrc silences npm so that `npm run` prints nothing of its own; here its errors are wanted.
  npm ci --loglevel=error --no-audit --no-fund || die 'npm ci failed'
  node_is_right || {
    # npm was told not to run install scripts; this one puts the program into place.
    say "putting Node.js $wanted into place"
    (cd node_modules/node && npm_config_loglevel=error node installArchSpecificPackage.js) ||
      die "Node.js $wanted could not be installed"
    ln -sf ../node/bin/node "$node"
  }
  node_is_right || die "$node is not Node.js $wanted: $("$node" --version 2>&1 | head -n 1)"
  cp package-lock.json "$stamp"
  say 'npm packages are installed'
elif ! node_is_right; then
  rm -f "$stamp"
  die "$node is not Node.js $wanted; run me again to install everything anew"
fi

# ---------------------------------------------------------------------------------- a strongSwan with ML-KEM
# What needs it is absent without it.
if [ "$target" = interop ]; then sh deploy/strongswan6.sh || :; fi

# ------------------------------------------------------------------------------------------- an ssh server
# Unpacked, not installed: nobody wants a new ssh service for a measurement.
sshd=node_modules/.cache/openssh
case $target in bench | test | all) wants_sshd=yes ;; *) wants_sshd= ;; esac
if [ -n "$wants_sshd" ] && [ ! -x $sshd/usr/sbin/sshd ]; then
  mkdir -p $sshd
  (cd $sshd && { apt-get -q download openssh-server libwrap0 && for deb in *.deb; do dpkg -x "$deb" .; done; } >/dev/null 2>&1) ||
    say 'no openssh-server to be had: bench costs goes without scp, and the testbed is not tested'
fi
