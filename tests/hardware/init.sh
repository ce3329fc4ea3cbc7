#!/busybox sh
# First program of the guest: the host's own tree, read-only, under a layer of memory; udev; the tests; off.
b=/busybox
. /settings
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
for module in /modules/*; do
  name=${module##*/??-}
  # shellcheck disable=SC2046 # parameters are words
  $b insmod "$module" $($b sed -n "s/^$name //p" /parameters) || echo "guest: no $name"
done
share=trans=virtio,version=9p2000.L,msize=524288
$b mount -t 9p -o "$share,ro,cache=loose" host /host || $b poweroff -f
$b mount -t tmpfs -o size=50% upper /upper
$b mkdir /upper/upper /upper/work
$b mount -t overlay -o lowerdir=/host,upperdir=/upper/upper,workdir=/upper/work tree /tree || $b poweroff -f
for place in proc sys dev run; do $b mkdir -p /tree/$place; done
$b mount -t proc proc /tree/proc
$b mount -t sysfs sys /tree/sys
$b mount -t devtmpfs dev /tree/dev
$b mkdir -p /tree/dev/pts /tree/dev/shm
$b mount -t devpts pts /tree/dev/pts
$b mount -t tmpfs shm /tree/dev/shm
$b mount -t tmpfs run /tree/run
$b mkdir -p /tree/run/out /tree/run/tmp
$b mount -t 9p -o "$share" out /tree/run/out || $b poweroff -f
$b mount -t configfs config /tree/sys/kernel/config
$b ip link set lo up
exec $b chroot /tree "$SHELL" "$PROJECT/tests/hardware/guest/start.sh" "$PROJECT" "$PYTHON" "$KIT" "$PYTEST_WORDS"
