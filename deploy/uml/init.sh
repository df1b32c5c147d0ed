#!/bin/sh
# Init of a User-Mode Linux guest that runs one command on the host's root file system (see src/linux/uml.ts).
#
#   $IPP_UML_JOB/command    shell script to run
#   $IPP_UML_JOB/writable   directories, one per line, that the guest may write; all else is read-only
#   $IPP_UML_NONCE          line that ends both output streams, with the exit code
#
# /dev/tty1 is the command's standard output, /dev/tty2 its standard error, /dev/tty0 and the output of this
# script the kernel's log.
[ $$ -eq 1 ] || { echo "refusing to run: not the init of a virtual machine" >&2; exit 1; }
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

mount -t proc proc /proc
# Unmounted, /proc would be the host's: make sure that it is ours before any sysctl is written.
read -r pid rest </proc/self/stat
[ "$pid" = 1 ] || { echo "no /proc of our own"; exit 1; }
mount -t sysfs sys /sys
grep -q ' /dev devtmpfs' /proc/mounts || mount -t devtmpfs dev /dev
mkdir -p /dev/shm && mount -t tmpfs shm /dev/shm

# Held open: the terminals keep their settings, and `raw` keeps bytes as they are.
exec 8>/dev/tty1 9>/dev/tty2
stty -F /dev/tty1 raw -echo
stty -F /dev/tty2 raw -echo

# Unix sockets and network namespaces do not work on hostfs: /run is memory.
mount -t tmpfs run /run
mkdir -p /run/netns /run/lock /run/tmp /run/home /run/kmod/lib
chmod 1777 /run/tmp
# The sub-mounts stay writable when the root is not.
while read -r directory; do mount --bind "$directory" "$directory"; done <"$IPP_UML_JOB/writable"
mount -o remount,bind,ro /

# The host's own /lib/modules, if it has one, is not this kernel's. The kernel loads modules by itself as well.
ln -s /usr/lib/uml/modules /run/kmod/lib/modules
printf '#!/bin/sh\nexec modprobe -d /run/kmod "$@"\n' >/run/kmod/modprobe
chmod 755 /run/kmod/modprobe
echo /run/kmod/modprobe >/proc/sys/kernel/modprobe
modprobe -d /run/kmod -q -a veth dummy tun bridge sch_netem af_packet \
  xfrm_user esp4 gcm seqiv ctr ghash_generic echainiv chacha20poly1305 \
  iptable_nat iptable_filter iptable_mangle xt_MASQUERADE xt_policy xt_conntrack xt_tcpudp xt_multiport \
  xt_comment xt_mark xt_TCPMSS ipt_REJECT nf_conntrack_netlink
ip link set lo up

sh "$IPP_UML_JOB/command" </dev/null >&8 2>&9 8>&- 9>&-
code=$?
sync
printf '\0%s %d\n' "$IPP_UML_NONCE" $code >&8
printf '\0%s %d\n' "$IPP_UML_NONCE" $code >&9
# The host ends this machine when it has read both.
while :; do sleep 60; done
